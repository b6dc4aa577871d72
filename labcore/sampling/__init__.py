"""From logits to tokens: adjustments, truncation, the draw, and log probabilities, for a whole batch at a time."""
