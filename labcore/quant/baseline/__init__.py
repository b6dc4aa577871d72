"""A small Llama in float weights, trained by this package, for the comparisons that need an unquantized original."""

from pathlib import Path


def baseline() -> Path:
    """The checkpoint folder: config.json, tokenizer.json and fp16 weights, as `open_checkpoint` reads them."""
    return Path(__file__).with_name("weights")
