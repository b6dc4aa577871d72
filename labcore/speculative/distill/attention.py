"""Attention while a draft is trained: causal over each sequence, and over the draft's own outputs when it is unrolled.

In step j of an unrolled draft, row t stands for the draft that began at token t and is j tokens further on. It sees
what the draft of the first step stored for the tokens up to t, and behind that only its own chain: what row t itself
stored in steps 1 to j. Source: EAGLE-3, arXiv:2503.01840, section 3.2 and figure 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.kv.contiguous import causal_attention


class UnrolledAttention:
    """The `attend` of a draft of one layer, called once a step.

    Step 0 has all rows of all sequences, `lengths` of them; later steps only those from `firsts` on.
    """

    def __init__(self, lengths: Sequence[int], firsts: Sequence[int]):
        self.lengths, self.firsts = list(lengths), list(firsts)
        self.steps: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []  # keys and values by sequence

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.steps:
            self.steps.append((k.split(self.lengths), v.split(self.lengths)))
            return CausalAttention(self.lengths)(layer, q, k, v)
        counts = [length - first for length, first in zip(self.lengths, self.firsts, strict=True)]
        self.steps.append((k.split(counts), v.split(counts)))
        return torch.cat([self._unrolled(index, rows) for index, rows in enumerate(q.split(counts))])

    def _unrolled(self, index: int, q: Tensor) -> Tensor:
        """q: [rows, n_heads, head_dim] of the rows from firsts[index] on; returns the like."""
        group = q.shape[1] // self.steps[0][0][index].shape[1]
        keys, values = zip(
            *((part[index].repeat_interleave(group, dim=1) for part in step) for step in self.steps), strict=True
        )
        begun = torch.arange(self.firsts[index], self.lengths[index])[:, None]
        past = torch.einsum("qhd,khd->qhk", q, keys[0])
        past = past.masked_fill((torch.arange(len(keys[0])) > begun)[:, None], -torch.inf)
        own = torch.stack([(q * key).sum(-1) for key in keys[1:]], dim=-1)  # [rows, n_heads, step]
        weights = (torch.cat((past, own), dim=-1) * q.shape[2] ** -0.5).softmax(-1)
        out = torch.einsum("qhk,khd->qhd", weights[..., : len(keys[0])], values[0])
        return out + torch.einsum("qhs,sqhd->qhd", weights[..., len(keys[0]) :], torch.stack(values[1:]))


class CausalAttention:
    """The `attend` of a whole small decoder: every layer over its own sequences."""

    def __init__(self, lengths: Sequence[int]):
        self.lengths = list(lengths)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sequences = zip(*(part.split(self.lengths) for part in (q, k, v)), strict=True)
        return torch.cat([causal_attention(a, b.transpose(0, 1), c.transpose(0, 1)) for a, b, c in sequences])
