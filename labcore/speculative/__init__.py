"""Proposers: whatever guesses the next tokens, so that one pass of the model can check several at once."""
