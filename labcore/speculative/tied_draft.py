"""A small Llama that speaks with the target's own embeddings and LM head.

Of a small model with a large vocabulary most is the table of embeddings; this one borrows the target's. Its own are a
projection from the target's width down to its own, a few layers, and a projection back up to the head.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from labcore.model.config import DecoderConfig
from labcore.model.llama import Block, Llama, RMSNorm, RotaryEmbedding
from labcore.speculative.reduced_head import ReducedHead
from labcore.speculative.weights_file import WEIGHTS, Weights


class Projected(nn.Module):
    """One module, then another, which computes in float32 whatever the target computes in."""

    def __init__(self, first: nn.Module, then: nn.Module):
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x).float())


class TiedDraft(nn.Module):
    """What a tied draft has of its own: down [target hidden -> hidden], layers, norm, up [hidden -> target hidden]."""

    def __init__(self, config: DecoderConfig, target_hidden: int):
        super().__init__()
        self.config = config
        self.down = nn.Linear(target_hidden, config.hidden, bias=False)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.up = nn.Linear(config.hidden, target_hidden, bias=False)

    def between(self, embed_tokens: nn.Module, head: ReducedHead) -> Llama:
        """The decoder with the target's two ends. Its logits are those of the draft vocabulary."""
        with torch.device("meta"):
            model = Llama(self.config).eval().requires_grad_(False)
        model.embed_tokens, model.lm_head = Projected(embed_tokens, self.down), Projected(self.up, head)
        model.layers, model.norm, model.rope = self.layers, self.norm, RotaryEmbedding(self.config)
        return model


def draft_config(target: DecoderConfig, n_layers: int = 2, hidden: int = 256, intermediate: int = 768) -> DecoderConfig:
    """Heads as wide as the target's, the same positions; two query heads share one key head. Never wider than it."""
    hidden = min(hidden, target.hidden)
    n_heads = hidden // target.head_dim
    return replace(
        target, n_layers=n_layers, hidden=hidden, intermediate=intermediate, n_heads=n_heads, n_kv_heads=n_heads // 2
    )


def load_tied_draft(target: Llama, path: str | Path | None = None) -> tuple[Llama, list[int]]:
    """The draft model in the file, None: that of SmolLM2-135M which comes with the package, and the target's token id
    of each of its logits."""
    file = Weights(path or WEIGHTS / "draft.gguf", target, "draft_model")
    draft, head = file.fill(TiedDraft(file.config, target.config.hidden)), file.head()
    return draft.between(target.embed_tokens, head), head.token_ids.tolist()
