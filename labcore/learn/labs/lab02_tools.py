"""What lab 2 gives its reader: one sequence's cache, a pass without any to compare with, and configs as published."""

from __future__ import annotations

from collections.abc import Callable
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


def full_pass(model: Llama, token_ids: Tensor, visible: Tensor | None = None, change: Callable | None = None) -> Tensor:
    """Logits [tokens, vocab] of a whole sequence in one pass that caches nothing: the oracle of every cache.

    visible: bool [tokens, tokens], the keys (columns) that each query (row) sees; None for all up to its own.
    change(keys, values) -> (keys, values), each [tokens, n_kv_heads, head_dim]: what a lossy cache would make of them.
    """

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if change is not None:
            k, v = change(k, v)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None, enable_gqa=True)
        return seen[0].transpose(0, 1)

    return model(token_ids, torch.arange(len(token_ids)), attend)


def window_mask(tokens: int, sinks: int, window: int) -> Tensor:
    """bool [tokens, tokens]: query i sees the first `sinks` tokens, and the newest `window` up to and with its own."""
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)
    return (key <= query) & ((key < sinks) | (key > query - window))


def expanded_attention(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    """One decode step of multi-head latent attention as the paper's equations have it; shapes as in `kv.absorb`."""
    keys = torch.einsum("hdc,tc->htd", W_uk, latent)
    values = torch.einsum("hvc,tc->htv", W_uv, latent)
    scores = torch.einsum("hd,htd->ht", q_nope, keys) + q_rope @ k_rope.T
    weights = (scores / (q_nope.shape[1] + q_rope.shape[1]) ** 0.5).softmax(-1)
    return torch.einsum("ht,htv->hv", weights, values)


def published_config(id: str) -> dict[str, Any]:
    """The fields of a published config.json that describe the language model, by its id in `labcore.facts`."""
    content = read_json(f"configs/{id}.json")
    return content.get("text_config", content)


STORY = (
    "The code word for tonight is heron. The ferry leaves the harbour at ten. On the upper deck a woman with a green "
    "umbrella counts the lamps along the shore, because her brother once told her that nobody had ever done it. She "
    "writes each number into a small notebook, closes it, and waits for the next light. Behind her two mechanics argue "
    "about the engine. The older one says that it has run too hot since spring, the younger one that the gauge is "
    "broken and the engine is fine. Neither of them goes down to look. When the coast has disappeared, the cook brings "
    "coffee in paper cups and tells everybody the same story: in winter, years ago, the ferry stood still for eleven "
    "hours in the ice, and the passengers danced in the car deck to keep warm. Nobody on board believes him, but "
    "nobody leaves before the end either. Towards morning the wind turns, and the lamps of the other shore come up one "
    "after another, small and yellow."
)
QUESTION = " The woman opens her notebook again. The code word for tonight is"
