"""The simplest KV cache: one contiguous buffer per sequence, as long as the longest it may become.

Every sequence reserves `capacity` tokens from its first one on, whether it uses them or not; that reservation is what
paging later gets rid of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kernels.cpu.attention import DecodePass, supports


def causal_attention(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the last `new` tokens of a sequence over all of it.

    q: [new, n_heads, head_dim]; keys, values: [n_kv_heads, tokens, head_dim], tokens >= new, the last `new` of them
    belonging to the queries. Returns [new, n_heads, head_dim]. Query i sees every key up to its own.
    """
    new, tokens = q.shape[0], keys.shape[1]
    if new == 1:  # nothing to mask, so the queries that share a key head can be the rows of one product
        shared = q.reshape(keys.shape[0], -1, q.shape[2])
        return F.scaled_dot_product_attention(shared[None], keys[None], values[None]).reshape(q.shape)
    mask = None
    if new < tokens:  # is_causal would align the mask with the first key instead of the last
        mask = torch.ones(new, tokens, dtype=torch.bool, device=q.device).tril(diagonal=tokens - new)
    attended = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=new == tokens,
        enable_gqa=q.shape[1] != keys.shape[0],
    )
    return attended[0].transpose(0, 1)


@dataclass(frozen=True)
class Span:
    """The tokens of one sequence in a pass: pass indices [begin, end) become cache positions [past, past + new)."""

    slot: int
    begin: int
    end: int
    past: int

    @property
    def total(self) -> int:
        return self.past + self.end - self.begin


class ContiguousKVCache:
    """Keys and values of up to `slots` sequences.

    keys, values: [n_layers, slots, n_kv_heads, capacity, head_dim]; lengths[slot]: tokens stored.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = n_layers, slots, n_kv_heads, capacity, head_dim
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.capacity = capacity
        self.lengths = [0] * slots

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not."""
        return self.keys.nbytes + self.values.nbytes

    def extend(self, new_tokens: Sequence[tuple[int, int]]) -> "Extension":
        """Reserve room for (slot, count) new tokens each, in the order in which the pass holds them.

        The result is the `attend` of that pass and knows its positions. InputError, with nothing reserved, when a slot
        would overflow, is named twice, or gets fewer than one token.
        """
        return Extension(self, self.reserve(new_tokens))

    def reserve(self, new_tokens: Sequence[tuple[int, int]]) -> list[Span]:
        """Which pass indices and cache positions the tokens that `extend` is given take."""
        spans, begin = [], 0
        for slot, count in new_tokens:
            if not 0 <= slot < len(self.lengths):
                raise InputError(f"slot {slot}: this cache has slots 0 to {len(self.lengths) - 1}")
            past = self.lengths[slot]
            if count < 1 or past + count > self.capacity or any(span.slot == slot for span in spans):
                raise InputError(
                    f"slot {slot}: {count} new tokens after {past}; a pass adds 1 or more to a slot, once, and a slot "
                    f"holds {self.capacity}"
                )
            spans.append(Span(slot, begin, begin + count, past))
            begin += count
        for span in spans:
            self.lengths[span.slot] = span.total
        return spans

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of `slot`; 0 empties it for another sequence."""
        if not 0 <= length <= self.lengths[slot]:
            raise InputError(f"slot {slot} holds {self.lengths[slot]} tokens; cannot truncate it to {length}")
        self.lengths[slot] = length


class Extension:
    """One pass over new tokens of some sequences: stores their keys and values, then attends."""

    def __init__(self, cache: ContiguousKVCache, spans: list[Span]):
        self.cache, self.spans = cache, spans
        self.is_decode = all(span.end - span.begin == 1 for span in spans)
        self.totals = torch.tensor([span.total for span in spans], device=cache.keys.device)

    @cached_property
    def decode_pass(self) -> DecodePass | None:
        """The compiled kernel's view of a pass with one new token per sequence: a slot is a block of its capacity."""
        if not self.is_decode or not supports(self.cache.keys):
            return None
        slots = torch.tensor([[span.slot] for span in self.spans])
        return DecodePass(self.cache.keys, self.cache.values, slots, self.totals)

    @property
    def positions(self) -> Tensor:
        """int64 [tokens]: the position of each token of the pass in its own sequence."""
        if self.is_decode:
            return self.totals - 1
        return torch.cat([torch.arange(span.past, span.total) for span in self.spans]).to(self.cache.keys.device)

    @property
    def last(self) -> Tensor:
        """int64 [sequences]: the pass index of each sequence's newest token."""
        return torch.tensor([span.end - 1 for span in self.spans], device=self.cache.keys.device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v [tokens, n_kv_heads, head_dim], return the attention output, shaped like q."""
        if self.decode_pass is not None:
            return self.decode_pass(layer, q, k, v)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        out = torch.empty_like(q)
        for span in self.spans:
            new = slice(span.begin, span.end)
            keys[span.slot, :, span.past : span.total] = k[new].transpose(0, 1)
            values[span.slot, :, span.past : span.total] = v[new].transpose(0, 1)
            out[new] = causal_attention(q[new], keys[span.slot, :, : span.total], values[span.slot, :, : span.total])
        return out
