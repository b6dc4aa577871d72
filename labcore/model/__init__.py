"""A Llama-family language model on PyTorch: checkpoint, tokenizer, decoder, generation."""
