"""The classic draft: a small model with the target's tokenizer says the next K tokens, one after the other.

Same tokenizer means the same token for every id, which models of one family usually have and need not have.
Sources: Leviathan et al., arXiv:2211.17192; Chen et al., arXiv:2302.01318.
"""

from __future__ import annotations

from pathlib import Path

import torch

from labcore.core.errors import InputError
from labcore.model.checkpoints import fetch
from labcore.model.config import DecoderConfig
from labcore.model.fast import fast_path
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.tokenizer import Tokenizer
from labcore.speculative.paged_draft import PagedDraft
from labcore.speculative.proposer import Target
from labcore.speculative.tied_draft import load_tied_draft


def draft_model(
    target: Target, model: str | Path | None = None, num_tokens: int = 3, quantization: str | None = None
) -> PagedDraft:
    """Chains from the checkpoint `model`, anything that `checkpoints.fetch` takes, quantization as for `LLM`; None:
    from the small draft of SmolLM2-135M that comes with the package (`tied_draft`).

    Raises InputError for a model with another tokenizer than the target's.
    """
    if quantization not in (None, "gguf"):
        raise InputError(f"quantization={quantization!r}: must be None or 'gguf'")
    if model is None:
        return PagedDraft(*load_tied_draft(target.model), num_tokens=num_tokens)
    checkpoint = open_checkpoint(fetch(model, progress=False))
    check_vocabulary(str(model), checkpoint.config, checkpoint.tokenizer(), target)
    transform, dtype = fast_path() if quantization == "gguf" else (None, torch.float32)
    device = target.model.norm.weight.device
    return PagedDraft(load_model(checkpoint, dtype=dtype, device=device, transform=transform), num_tokens=num_tokens)


def check_vocabulary(name: str, config: DecoderConfig, tokenizer: Tokenizer | None, target: Target) -> None:
    """Raises InputError unless draft and target mean the same by every token id."""
    ours, theirs = target.model.config.vocab, config.vocab
    if ours != theirs:
        raise InputError(f"draft model {name!r} has {theirs} tokens and the target {ours}; take one of the same family")
    if tokenizer is None or target.tokenizer is None:
        return
    pairs = zip(target.tokenizer.token_bytes, tokenizer.token_bytes, strict=False)
    different = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if different is not None:
        raise InputError(
            f"draft model {name!r} means something else by token {different} than the target; take another"
        )
