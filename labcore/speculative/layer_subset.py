"""Some layers of a decoder as a decoder of their own, between the same embedding, norm and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.model.compiled import CompiledStack
from labcore.model.llama import Attend, Llama
from labcore.speculative.reduced_head import ReducedHead


class Renumbered(nn.Module):
    """A layer whose keys and values go by another number: its place among the layers that are kept."""

    def __init__(self, layer: nn.Module, place: int):
        super().__init__()
        self.layer, self.place = layer, place

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        return self.layer(x, rotation, lambda _, q, k, v: attend(self.place, q, k, v))


def subset(model: Llama, layers: Sequence[int], vocabulary: Sequence[int] | None = None) -> Llama:
    """The decoder that runs only these layers of `model`, in this order, and shares every weight with it.

    vocabulary: its logits are those of these tokens only, None: of all. Raises InputError unless the layers rise and
    exist, and so the tokens.
    """
    n_layers = model.config.n_layers
    if not _rising(layers, n_layers):
        raise InputError(f"layers={list(layers)}: must be rising numbers from 0 to {n_layers - 1}, at least one")
    if vocabulary is not None and not _rising(vocabulary, model.config.vocab):
        raise InputError(f"draft_vocab: must be rising token ids from 0 to {model.config.vocab - 1}, at least one")
    with torch.device("meta"):
        part = Llama(replace(model.config, n_layers=len(layers))).eval().requires_grad_(False)
    part.embed_tokens, part.rope, part.norm = model.embed_tokens, model.rope, model.norm
    part.lm_head = model.lm_head if vocabulary is None else ReducedHead(model, torch.tensor(vocabulary))
    if isinstance(first := model.layers[0], CompiledStack):
        products = [four for stack in model.layers for four in stack.products]
        part.layers = nn.ModuleList([CompiledStack((products[i] for i in layers), first.n_heads, first.n_kv_heads)])
    else:
        part.layers = nn.ModuleList(Renumbered(model.layers[i], place) for place, i in enumerate(layers))
    return part


def _rising(numbers: Sequence[int], end: int) -> bool:
    """Whether there are any, each larger than the one before it, from 0 to end - 1."""
    some = list(numbers)
    return bool(some) and some == sorted(set(some)) and 0 <= some[0] and some[-1] < end
