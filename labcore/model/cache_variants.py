"""The caches that `labcore bench kv_quality` judges: a name, what it is, how to build it, what it should weigh.

To have a cache judged, add a line to VARIANTS.
"""

from collections.abc import Callable
from dataclasses import dataclass

from labcore.formulas import formula
from labcore.kv.contiguous import ContiguousKVCache
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


VARIANTS: dict[str, Variant] = {
    "exact": Variant("every token in full precision: the control", exact, exact_nbytes),
}
