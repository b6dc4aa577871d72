"""Small caches of every kind, a decoder's share of a pass, and attention written out, for the tests of lossy caches."""

import math
from collections.abc import Callable

import torch

from labcore.kv.contiguous import ContiguousKVCache
from labcore.kv.cross_layer import SharedKVCache
from labcore.kv.eviction import H2OKVCache, ScissorhandsKVCache
from labcore.kv.latent import LatentKVCache
from labcore.kv.sinks import AttentionSinkKVCache
from labcore.kv.sparse import QuestKVCache
from labcore.kv.windows import SlidingWindowKVCache

LAYERS, HEADS, KV_HEADS, DIM = 2, 6, 2, 8
SHAPE = LAYERS, KV_HEADS, DIM
CAPACITY = 24


def rope(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding through complex numbers: pair (i, i + DIM/2) of x [tokens, heads, DIM] is one of them."""
    angles = positions[:, None].to(x.dtype) * 100.0 ** (-torch.arange(DIM // 2, dtype=x.dtype) / (DIM // 2))
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * angles)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def random_qkv(tokens: int, seed: int) -> list[tuple[torch.Tensor, ...]]:
    """(q, k, v) of each layer before rotation."""
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randn(tokens, heads, DIM, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS))
        for _ in range(LAYERS)
    ]


def full_basis(rank: int = 2 * KV_HEADS * DIM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(LAYERS, 2 * KV_HEADS * DIM, 2 * KV_HEADS * DIM, generator=generator)
    return torch.linalg.qr(square).Q[..., :rank].contiguous()


def exact(slots: int = 1, capacity: int = CAPACITY) -> ContiguousKVCache:
    return ContiguousKVCache(*SHAPE, slots=slots, capacity=capacity)


# Each kind twice: so small that it drops tokens of a text of CAPACITY, and so large that it has room for all of them.
SMALL: dict[str, Callable] = {
    "window": lambda **size: SlidingWindowKVCache([5] * LAYERS, KV_HEADS, DIM, **size),
    "hybrid": lambda **size: SlidingWindowKVCache([3, None], KV_HEADS, DIM, **size),
    "sinks": lambda **size: AttentionSinkKVCache(*SHAPE, sinks=2, recent=4, rotate=rope, **size),
    "h2o": lambda **size: H2OKVCache(*SHAPE, budget=6, recent=3, **size),
    "scissorhands": lambda **size: ScissorhandsKVCache(*SHAPE, budget=7, recent=2, history=2, drop=3, **size),
    "shared": lambda **size: SharedKVCache([0, 0], KV_HEADS, DIM, **size),
    "latent": lambda **size: LatentKVCache(full_basis(9), KV_HEADS, DIM, rotate=rope, **size),
    "rotated latent": lambda **size: LatentKVCache(full_basis(9), KV_HEADS, DIM, rotate=None, **size),
    "quest": lambda **size: QuestKVCache(*SHAPE, page_size=3, pages=2, dense_layers=1, **size),
}
LARGE: dict[str, Callable] = {
    "window": lambda **size: SlidingWindowKVCache([CAPACITY, 99], KV_HEADS, DIM, **size),
    "hybrid": lambda **size: SlidingWindowKVCache([CAPACITY, None], KV_HEADS, DIM, **size),
    "sinks": lambda **size: AttentionSinkKVCache(*SHAPE, sinks=3, recent=CAPACITY - 3, rotate=rope, **size),
    "h2o": lambda **size: H2OKVCache(*SHAPE, budget=CAPACITY, recent=3, **size),
    "scissorhands": lambda **size: ScissorhandsKVCache(*SHAPE, budget=CAPACITY, recent=2, history=4, drop=4, **size),
    "shared": lambda **size: SharedKVCache([0, 1], KV_HEADS, DIM, **size),
    "latent": lambda **size: LatentKVCache(full_basis(), KV_HEADS, DIM, rotate=rope, **size),
    "rotated latent": lambda **size: LatentKVCache(full_basis(), KV_HEADS, DIM, rotate=None, **size),
    "quest": lambda **size: QuestKVCache(*SHAPE, page_size=3, pages=CAPACITY // 3, dense_layers=0, **size),
}


def run_pass(cache, plan: list[tuple[int, int]], sequences: dict[int, list]) -> torch.Tensor:
    """One pass as the decoder makes it, [layers, tokens, heads, DIM]: rotate by the pass's positions, then attend.

    plan: (slot, count) as for `extend`; sequences[slot]: that slot's `random_qkv`, from its first token on.
    """
    parts = [(slot, slice(cache.lengths[slot], cache.lengths[slot] + count)) for slot, count in plan]
    attend = cache.extend(plan)
    out = []
    for layer in range(LAYERS):
        q, k, v = (torch.cat([sequences[slot][layer][i][part] for slot, part in parts]) for i in range(3))
        out.append(attend(layer, rope(q, attend.positions), rope(k, attend.positions), v))
    return torch.stack(out)


def decode(cache, sequence: list, slot: int = 0) -> torch.Tensor:
    """The whole sequence token by token, [layers, tokens, heads, DIM]."""
    tokens = len(sequence[0][0])
    return torch.cat([run_pass(cache, [(slot, 1)], {slot: sequence}) for _ in range(tokens)], dim=1)


def attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """softmax(q·k/√d)·v of one query: q [HEADS, DIM], keys and values [tokens, KV_HEADS, DIM]."""
    group = HEADS // KV_HEADS
    return torch.stack(
        [
            (keys[:, head // group] @ q[head] / math.sqrt(DIM)).softmax(0) @ values[:, head // group]
            for head in range(HEADS)
        ]
    )
