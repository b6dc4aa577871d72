"""The caches of `labcore.kv` that drop tokens, layers or directions, at the settings that `kv_quality` judges."""

from collections.abc import Sequence

from torch import Tensor

from labcore.formulas import formula
from labcore.kv.cross_layer import SharedKVCache, cla_owners
from labcore.kv.eviction import H2OKVCache, ScissorhandsKVCache
from labcore.kv.latent import LatentKVCache, principal_basis
from labcore.kv.sinks import AttentionSinkKVCache
from labcore.kv.sparse import QuestKVCache
from labcore.kv.windows import SlidingWindowKVCache, local_global
from labcore.model.cache_variants import Variant, exact_nbytes, shape
from labcore.model.kv_basis import activation_covariance, rotary, weight_covariance
from labcore.model.llama import Llama

PAGE = 16


def size(model: Llama, capacity: int) -> dict:
    return {"slots": 1, "capacity": capacity, "dtype": model.norm.weight.dtype}


def of_layers(model: Llama) -> dict:
    """The arguments of a formula that counts layers and KV heads."""
    n_layers, n_kv, d_h = shape(model)
    return {"n_layers": n_layers, "n_kv": n_kv, "d_h": d_h, "b_kv": model.norm.weight.itemsize}


def bounded(model: Llama, capacity: int, tokens: int) -> float:
    """Bytes of every layer's keys and values when no more than `tokens` of them are held."""
    return formula["kv.window_bytes"](
        kappa=formula["kv.bytes_per_token"](**of_layers(model)), L=capacity, W=tokens, B=1
    )


def window(tokens: int) -> Variant:
    def make(model: Llama, capacity: int) -> SlidingWindowKVCache:
        n_layers, n_kv, d_h = shape(model)
        return SlidingWindowKVCache([tokens] * n_layers, n_kv, d_h, **size(model, capacity))

    return Variant(f"the newest {tokens} tokens", make, lambda model, capacity: bounded(model, capacity, tokens))


def hybrid(tokens: int, n_local: int) -> Variant:
    def make(model: Llama, capacity: int) -> SlidingWindowKVCache:
        n_layers, n_kv, d_h = shape(model)
        return SlidingWindowKVCache(local_global(n_layers, tokens, n_local), n_kv, d_h, **size(model, capacity))

    def nbytes(model: Llama, capacity: int) -> float:
        layers = of_layers(model)
        n_global = layers.pop("n_layers") // (n_local + 1)
        counts = {"n_global": n_global, "n_local": model.config.n_layers - n_global}
        return formula["kv.hybrid_bytes"](**counts, **layers, B=1, L=capacity, W=tokens)

    return Variant(f"{n_local} layers with a window of {tokens}, then one with all tokens", make, nbytes)


def sinks(tokens: int, n_sinks: int = 4) -> Variant:
    def make(model: Llama, capacity: int) -> AttentionSinkKVCache:
        budget = {"sinks": n_sinks, "recent": tokens - n_sinks}
        return AttentionSinkKVCache(*shape(model), **budget, rotate=rotary(model), **size(model, capacity))

    what = f"the first {n_sinks} and the newest {tokens - n_sinks} tokens, positions in the cache"
    return Variant(what, make, lambda model, capacity: bounded(model, capacity, tokens))


def evicting_nbytes(model: Llama, tokens: int) -> float:
    """Keys and values of a full budget, and for each of them its position and its record, 4 B each, a KV head."""
    n_layers, n_kv, _ = shape(model)
    return bounded(model, tokens, tokens) + 8 * n_layers * n_kv * tokens


def h2o(tokens: int) -> Variant:
    def make(model: Llama, capacity: int) -> H2OKVCache:
        return H2OKVCache(*shape(model), budget=tokens, recent=tokens // 2, **size(model, capacity))

    what = f"H2O: {tokens // 2} heavy hitters and {tokens // 2} recent tokens"
    return Variant(what, make, lambda model, capacity: evicting_nbytes(model, tokens))


def scissorhands(tokens: int) -> Variant:
    quarter = tokens // 4
    rule = {"budget": tokens, "recent": quarter, "history": quarter, "drop": quarter}

    def make(model: Llama, capacity: int) -> ScissorhandsKVCache:
        return ScissorhandsKVCache(*shape(model), **rule, **size(model, capacity))

    what = f"Scissorhands: budget {tokens}, recent, history and drop {quarter} each"
    return Variant(what, make, lambda model, capacity: evicting_nbytes(model, tokens))


def one_pair(n_layers: int) -> list[int]:
    """Owners when one layer in the middle shares with the one below it."""
    middle = n_layers // 2
    return [layer - (layer == middle) for layer in range(n_layers)]


def shared(what: str, owners) -> Variant:
    def make(model: Llama, capacity: int) -> SharedKVCache:
        n_layers, n_kv, d_h = shape(model)
        return SharedKVCache(owners(n_layers), n_kv, d_h, **size(model, capacity))

    def nbytes(model: Llama, capacity: int) -> float:
        kept = {"n_layers": len(set(owners(model.config.n_layers)))}
        return formula["kv.bytes"](kappa=formula["kv.bytes_per_token"](**of_layers(model) | kept), L=capacity, B=1)

    return Variant(what, make, nbytes)


def quest(tokens: int) -> Variant:
    def make(model: Llama, capacity: int) -> QuestKVCache:
        return QuestKVCache(*shape(model), page_size=PAGE, pages=tokens // PAGE, **size(model, capacity))

    def nbytes(model: Llama, capacity: int) -> float:
        return exact_nbytes(model, capacity) + exact_nbytes(model, -(-capacity // PAGE))  # two vectors a page

    return Variant(f"Quest: all tokens kept, {tokens // PAGE} pages of {PAGE} read", make, nbytes)


LOSSY: dict[str, Variant] = {
    **{f"window_{tokens}": window(tokens) for tokens in (64, 128, 256)},
    **{f"sinks_{tokens}": sinks(tokens) for tokens in (64, 128, 256)},
    **{f"h2o_{tokens}": h2o(tokens) for tokens in (64, 128, 256)},
    **{f"scissorhands_{tokens}": scissorhands(tokens) for tokens in (64, 128)},
    **{f"hybrid_{n_local}_to_1": hybrid(64, n_local) for n_local in (1, 5)},
    "cla_pair": shared("one layer reads the keys and values of the layer below", one_pair),
    "cla_2": shared("every second layer reads those of the layer below", lambda n_layers: cla_owners(n_layers, 2)),
    **{f"quest_{tokens}": quest(tokens) for tokens in (64, 128)},
}


def low_rank(model: Llama, calibration: Sequence[int]) -> dict[str, Variant]:
    """Latent caches of this model: bases from its weights alone, and from the keys and values of `calibration`."""
    weights, before = weight_covariance(model), activation_covariance(model, calibration)
    after = activation_covariance(model, calibration, rotated=True)
    names = {"svd_256": (weights, 256, True)}
    names |= {f"latent_{rank}": (before, rank, True) for rank in (64, 128, 192, 256)}
    names |= {f"rotated_{rank}": (after, rank, False) for rank in (128, 192, 256)}
    return {name: latent(*setting) for name, setting in names.items()}


def latent(covariance: Tensor, rank: int, before_rotation: bool) -> Variant:
    """The cache of the leading directions of `covariance`, which is that of this model's keys and values."""

    def make(model: Llama, capacity: int) -> LatentKVCache:
        basis, rotate = principal_basis(covariance, rank), rotary(model) if before_rotation else None
        return LatentKVCache(basis, *shape(model)[1:], rotate=rotate, slots=1, capacity=capacity)

    def nbytes(model: Llama, capacity: int) -> float:
        width = {"n_layers": model.config.n_layers, "b_kv": model.norm.weight.itemsize}
        kappa = formula["kv.latent_bytes_per_token"](d_c=rank, **width)
        return formula["kv.bytes"](kappa=kappa, L=capacity, B=1)

    when = "before" if before_rotation else "after"
    return Variant(f"keys and values in {rank} of {covariance.shape[-1]} directions, {when} rotation", make, nbytes)
