"""What lab 2 gives its reader: one sequence's cache, a pass without any to compare with, and configs as published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.facts.lookup import read_json
from labcore.model.llama import Llama


@dataclass(repr=False)
class Cache:
    """Keys and values of one sequence: [n_layers, n_kv_heads, capacity, head_dim], of which `length` tokens are filled.

    What lies behind `length` is whatever the memory held before.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def __repr__(self) -> str:
        return f"Cache({self.length} of {self.capacity} tokens)"


def empty_cache(model: Llama, capacity: int, dtype: torch.dtype = torch.float32) -> Cache:
    """A cache with room for `capacity` tokens of one sequence of `model`."""
    one = model.config
    shape = one.n_layers, one.n_kv_heads, capacity, one.head_dim
    return Cache(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype))


def full_pass(model: Llama, token_ids: Tensor, visible: Tensor | None = None) -> Tensor:
    """Logits [tokens, vocab] of a whole sequence in one pass that caches nothing: the oracle of every cache.

    visible: bool [tokens, tokens], the keys (columns) that each query (row) sees; None for all up to its own.
    """

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None, enable_gqa=True)
        return seen[0].transpose(0, 1)

    return model(token_ids, torch.arange(len(token_ids)), attend)


def window_mask(tokens: int, sinks: int, window: int) -> Tensor:
    """bool [tokens, tokens]: query i sees the first `sinks` tokens, and the newest `window` up to and with its own."""
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)
    return (key <= query) & ((key < sinks) | (key > query - window))


def published_config(id: str) -> dict[str, Any]:
    """The fields of a published config.json that describe the language model, by its id in `labcore.facts`."""
    content = read_json(f"configs/{id}.json")
    return content.get("text_config", content)
