"""The caches that `labcore bench kv_quality` judges: a name, what it is, how to build it, what it should weigh.

To have a cache judged, add a line to VARIANTS.
"""

from collections.abc import Callable
from dataclasses import dataclass

from labcore.formats.fp8 import E5M2, ScaledFloat8
from labcore.formats.uniform import Uniform
from labcore.formulas import formula
from labcore.kv.contiguous import ContiguousKVCache
from labcore.kv.quantized import FP8, FP8_SCALED, INT8, KVFormat, QuantizedKVCache, kivi, per_token
from labcore.kv.quantized_store import CHANNEL, TOKEN, Scheme
from labcore.model.llama import Llama


@dataclass(frozen=True)
class Variant:
    """make(model, capacity) builds the cache with one slot of `capacity` tokens; nbytes(model, capacity) is the size
    that a formula predicts for it, which the suite compares with the cache's own count."""

    what: str
    make: Callable[[Llama, int], object]
    nbytes: Callable[[Llama, int], float]


def shape(model: Llama) -> tuple[int, int, int]:
    """The n_layers, n_kv_heads, head_dim that every cache starts with."""
    return model.config.n_layers, model.config.n_kv_heads, model.config.head_dim


def exact(model: Llama, capacity: int) -> ContiguousKVCache:
    return ContiguousKVCache(*shape(model), slots=1, capacity=capacity, dtype=model.norm.weight.dtype)


def exact_nbytes(model: Llama, capacity: int) -> float:
    n_layers, n_kv, d_h = shape(model)
    kappa = formula["kv.bytes_per_token"](n_layers=n_layers, n_kv=n_kv, d_h=d_h, b_kv=model.norm.weight.itemsize)
    return formula["kv.bytes"](kappa=kappa, L=capacity, B=1)


def quantized(what: str, format: KVFormat) -> Variant:
    def make(model: Llama, capacity: int) -> QuantizedKVCache:
        return QuantizedKVCache(*shape(model), format=format, slots=1, capacity=capacity, dtype=model.norm.weight.dtype)

    return Variant(what, make, lambda model, capacity: sum(_side_nbytes(one, model, capacity) for one in format.sides))


def _side_nbytes(scheme: Scheme, model: Llama, capacity: int) -> float:
    """Keys, or values: each is half of what the formulas count."""
    size = dict(zip(("n_layers", "n_kv", "d_h"), shape(model), strict=True))
    kappa, per_token_ = formula["kv.bytes_per_token"], formula["kv.quant_bytes_per_token"]
    widths = [8 * dtype.itemsize for dtype in scheme.format.parameters] + [0, 0]
    if widths[0]:
        group = {"G": scheme.group or size["d_h"], "b_scale": widths[0], "b_zero": widths[1]}
        coded = per_token_(bits=scheme.format.bits, **group, **size)
    else:
        coded = kappa(b_kv=scheme.format.bits / 8, **size)
    exact = kappa(b_kv=model.norm.weight.itemsize, **size) * (scheme.residual + scheme.sinks)
    return (coded * scheme.room(capacity) + exact) / 2


def _two_bits(keys: str, values: str, sinks: int = 0) -> KVFormat:
    return KVFormat(*(Scheme(Uniform(2), axis, group=32, residual=32, sinks=sinks) for axis in (keys, values)))


VARIANTS: dict[str, Variant] = {
    "exact": Variant("every token in full precision: the control", exact, exact_nbytes),
    "int8": quantized("INT8, symmetric, a scale for each token and head", INT8),
    "fp8": quantized("FP8 E4M3, no scale", FP8),
    "fp8_scaled": quantized("FP8 E4M3, a scale for each token and head", FP8_SCALED),
    "fp8_e5m2": quantized("FP8 E5M2, no scale", per_token(ScaledFloat8(E5M2))),
    "int4_token": quantized("INT4, a token's 32 channels a group, window 32", per_token(Uniform(4), 32, residual=32)),
    "kivi4": quantized("KIVI, 4 bits, groups of 32, window 32", kivi(4, 32, residual=32)),
    "kivi2": quantized("KIVI, 2 bits, groups of 32, window 32", kivi(2, 32, residual=32)),
    "kivi2_r128": quantized("KIVI, 2 bits, groups of 32, window 128", kivi(2, 32, residual=128)),
    "int2_token_token": quantized("2 bits, keys a token, values a token, window 32", _two_bits(TOKEN, TOKEN)),
    "int2_token_channel": quantized("2 bits, keys a token, values a channel, window 32", _two_bits(TOKEN, CHANNEL)),
    "int2_channel_channel": quantized(
        "2 bits, keys a channel, values a channel, window 32", _two_bits(CHANNEL, CHANNEL)
    ),
    "kivi2_sinks": quantized("KIVI, 2 bits, groups of 32, window 32, 4 sinks", kivi(2, 32, residual=32, sinks=4)),
    "int2_channel_channel_sinks": quantized(
        "2 bits, keys a channel, values a channel, window 32, 4 sinks", _two_bits(CHANNEL, CHANNEL, sinks=4)
    ),
    "kivi2_v0": quantized(
        "KIVI, 2 bits, window 32 for keys, none for values",
        KVFormat(kivi(2, 32, residual=32).keys, Scheme(Uniform(2), TOKEN, group=32)),
    ),
}
