"""EAGLE's draft: one decoder layer that continues the target's hidden states instead of its tokens alone.

The pair (feature of token t, token t+1) enters at position t, so what was sampled is known to the draft; out comes its
guess of the feature of token t+1, which the target's LM head turns into token t+2. Fed back, with the token chosen,
it goes on. Two kinds:

EAGLE-1 and 2: the feature is the state that the LM head reads, and the draft is trained to predict it.
EAGLE-3: the feature is a mixture of a low, a middle and a high layer; what the draft puts out need not resemble it,
because training feeds the draft its own output (training-time test).

Sources: EAGLE, arXiv:2401.15077, section 3; EAGLE-3, arXiv:2503.01840, section 3; SafeAILab/EAGLE, eagle/model.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.model.config import DecoderConfig
from labcore.model.llama import Attend, Block, RMSNorm, RotaryEmbedding


def eagle_config(target: DecoderConfig, intermediate: int) -> DecoderConfig:
    """One layer with the target's heads and positions, its MLP narrower."""
    return replace(target, n_layers=1, intermediate=intermediate)


def tap_layers(n_layers: int) -> tuple[int, int, int]:
    """The low, middle and high layer whose outputs EAGLE-3 mixes."""
    return 2, n_layers // 2, n_layers - 3


class EagleHead(nn.Module):
    """fuse: mixes the three taps (EAGLE-3 only); join: makes one vector of token and feature; layers: the one layer."""

    def __init__(self, config: DecoderConfig, fused: bool):
        super().__init__()
        self.config, size = config, config.hidden
        self.fuse = nn.Linear(3 * size, size, bias=False) if fused else None
        self.join = nn.Linear(2 * size, size, bias=False)
        self.layers = nn.ModuleList([Block(config, 0)])
        self.norm = RMSNorm(size, config.norm_eps) if fused else nn.Identity()
        self.rope = RotaryEmbedding(config)

    def features(self, hidden: Tensor, taps: list[Tensor]) -> Tensor:
        """What the draft reads of the target, [tokens, hidden]: `hidden`, or the mixture of the three `taps`, each
        normalized: a middle layer's outputs are forty times as large as a low one's."""
        if self.fuse is None:
            return hidden
        return self.fuse(torch.cat([_unit(tap) for tap in taps], dim=-1))

    def forward(self, embeddings: Tensor, features: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Features [tokens, hidden] one token on. embeddings: of the tokens that follow `features`."""
        x = self.join(torch.cat((_unit(embeddings), _unit(features)), dim=-1))
        rotation = self.rope(positions)
        for layer in self.layers:
            x = layer(x, rotation, attend)
        return x

    def ready(self, x: Tensor) -> Tensor:
        """What the LM head reads, of what `forward` returned."""
        return self.norm(x)


def _unit(x: Tensor) -> Tensor:
    """x scaled to a root mean square of 1, so that features of any origin enter alike."""
    return F.rms_norm(x, x.shape[-1:])
