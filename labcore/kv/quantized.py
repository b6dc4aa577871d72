"""A KV cache in fewer bits: codes in storage, numbers again on every read.

It takes the place of ContiguousKVCache: the same `extend`, the same `attend`. Keys and values are stored each by a
scheme of their own, because they want different ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.fp8 import E4M3, ScaledFloat8
from labcore.formats.uniform import Uniform
from labcore.kv.contiguous import ContiguousKVCache, Extension, causal_attention
from labcore.kv.quantized_store import CHANNEL, TOKEN, QuantizedStore, Scheme


@dataclass(frozen=True)
class KVFormat:
    """The schemes of keys and values."""

    keys: Scheme
    values: Scheme

    @property
    def sides(self) -> tuple[Scheme, Scheme]:
        return self.keys, self.values


def per_token(format: Uniform | ScaledFloat8, group: int | None = None, residual: int = 0) -> KVFormat:
    """Keys and values alike, with the scales of each token its own: what most engines do."""
    scheme = Scheme(format, TOKEN, group, residual)
    return KVFormat(scheme, scheme)


def kivi(bits: int, group: int = 32, residual: int = 128, sinks: int = 0) -> KVFormat:
    """Keys a channel, values a token, asymmetric, the newest tokens in full precision. Source: arXiv:2402.02750.

    KIVI itself spares no `sinks`.
    """
    return KVFormat(*(Scheme(Uniform(bits), axis, group, residual, sinks) for axis in (CHANNEL, TOKEN)))


INT8 = per_token(Uniform(8, symmetric=True))
INT4 = per_token(Uniform(4), group=32)
FP8 = per_token(ScaledFloat8(E4M3))
FP8_SCALED = per_token(ScaledFloat8(E4M3, scaled=True))


class QuantizedKVCache(ContiguousKVCache):
    """Up to `capacity` tokens of keys and values of up to `slots` sequences, stored by `format`.

    keys, values: QuantizedStore. `dtype` is that of the window of recent tokens and of what attention computes with.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        format: KVFormat,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        size = {"slots": slots, "capacity": capacity, "dtype": dtype, "device": device}
        self.keys, self.values = (
            QuantizedStore(scheme, n_layers, n_kv_heads, head_dim, **size) for scheme in format.sides
        )
        self.format, self.capacity = format, capacity
        self.lengths = [0] * slots

    def extend(self, new_tokens: Sequence[tuple[int, int]]) -> "QuantizedExtension":
        """As ContiguousKVCache.extend."""
        return QuantizedExtension(self, super().extend(new_tokens).spans)

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of `slot`; 0 empties it for another sequence."""
        super().truncate(slot, length)
        for store in (self.keys, self.values):
            store.truncate(slot, length)


class QuantizedExtension(Extension):
    """One pass over new tokens: they attend to the past as it is stored and to themselves as they are.

    Only then are they stored. So a prompt that arrives in one pass never sees a quantized key, and perplexity measured
    in one pass says nothing about the cache. Source: KIVI, algorithm 1 (prefill attends in full precision).
    """

    cache: QuantizedKVCache

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention output, shaped like q; store k and v [tokens, n_kv_heads, head_dim].

        InputError, with nothing of this layer stored, for a key or value that is not finite; to go on, truncate the
        slots to their lengths before the pass.
        """
        for new in (k, v):
            if not new.isfinite().all():
                bad = new[~new.isfinite()][0].item()
                raise InputError(f"layer {layer}: a new key or value is {bad}; only finite ones can be quantized")
        out = torch.empty_like(q)
        stores = self.cache.keys, self.cache.values
        for span in self.spans:
            rows = slice(span.begin, span.end)
            own = k[rows].transpose(0, 1), v[rows].transpose(0, 1)
            past = (store.read(layer, span.slot) for store in stores)
            keys, values = (torch.cat(both, dim=1) for both in zip(past, own, strict=True))
            out[rows] = causal_attention(q[rows], keys, values)
            for store, new in zip(stores, own, strict=True):
                store.append(layer, span.slot, new)
        return out
