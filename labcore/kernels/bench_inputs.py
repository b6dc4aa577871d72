"""What the GPU suites of the kernels share: random inputs, paged caches with shuffled tables, and exact attention.

Inputs are random normal, never zeros, which draw less power and flatter a GPU. References compute in float32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from labcore.bench.cuda_run import CudaRun

BF16 = 2  # bytes


def normal(run: CudaRun, *shape: int, seed: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    """Random normal; in bf16 on a GPU, unless `dtype` says otherwise."""
    generator = torch.Generator(run.device).manual_seed(seed)
    wanted = dtype or (torch.bfloat16 if run.device == "cuda" else torch.float32)
    return torch.randn(*shape, generator=generator, device=run.device, dtype=wanted)


@dataclass(frozen=True)
class Heads:
    """Query heads, key-value heads and their width; those of Llama 3 8B unless said otherwise."""

    q: int = 32
    kv: int = 8
    dim: int = 128

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of the bf16 keys and values of so many tokens."""
        return 2 * tokens * self.kv * self.dim * BF16

    def flops(self, pairs: int) -> int:
        """FLOP of attention over so many visible (query, key) pairs: two products of 2 FLOP an element, every head."""
        return 4 * pairs * self.q * self.dim

    def shape(self) -> dict[str, int]:
        """As a row states it."""
        return {"Hq": self.q, "Hkv": self.kv, "D": self.dim}


def causal_pairs(queries: int, keys: int, window: int | None = None) -> int:
    """Visible pairs when the last of `queries` tokens is the last of `keys`, each seeing at most `window`."""
    past = keys - queries
    if window is None or window >= keys:
        return queries * past + queries * (queries + 1) // 2
    return sum(min(past + i + 1, window) for i in range(queries))


@dataclass(frozen=True)
class Paged:
    """Keys and values of requests in pages [pages, page, Hkv, D] that lie in no order, and where they are."""

    keys: Tensor
    values: Tensor
    table: Tensor
    lengths: Tensor
    longest: int

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments that all paged kernels take."""
        return self.keys, self.values, self.table, self.lengths

    def request(self, index: int) -> tuple[Tensor, Tensor]:
        """Its keys and values in float32, [tokens, Hkv, D]."""
        length, page = int(self.lengths[index]), self.keys.shape[1]
        pages = self.table[index, : -(-length // page)].long()
        return tuple(cache[pages].flatten(0, 1)[:length].float() for cache in (self.keys, self.values))


def paged(run: CudaRun, lengths: Sequence[int], heads: Heads, page: int = 16, seed: int = 0) -> Paged:
    """A cache that requests of these lengths fill, every page table shuffled."""
    counts = [-(-length // page) for length in lengths]
    shape = sum(counts), page, heads.kv, heads.dim
    keys, values = (normal(run, *shape, seed=2 * seed + i) for i in range(2))
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)).int()
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    for row, part in zip(table, order.split(counts), strict=True):
        row[: len(part)] = part
    length = torch.tensor(lengths, dtype=torch.int32, device=run.device)
    return Paged(keys, values, table.to(run.device), length, max(lengths))


def starts(lengths: Iterable[int], device: str) -> Tensor:
    """int32 [n + 1]: where each of n sequences begins, and the end of the last."""
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def attend(q: Tensor, k: Tensor, v: Tensor, places: Tensor, window: int | None = None) -> Tensor:
    """Exact attention in float32: queries [n, Hq, D] at `places` (int64 [n]) over k, v [tokens, Hkv, D]."""
    grouped = q.float().unflatten(1, (k.shape[1], -1)) * q.shape[-1] ** -0.5  # [n, Hkv, G, D]
    scores = torch.einsum("nhgd,thd->hgnt", grouped, k.float())
    token = torch.arange(len(k), device=q.device)
    seen = token <= places[:, None]
    if window is not None:
        seen &= token > places[:, None] - window
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hgnt,thd->nhgd", weights, v.float()).flatten(1, 2)


def some_queries(count: int, most: int = 48) -> Tensor:
    """Indices of the first and last queries of `count`, and of some between, at random."""
    edge = min(8, count)
    between = torch.randint(count, (max(1, most - 2 * edge),), generator=torch.Generator().manual_seed(count))
    return torch.cat([torch.arange(edge), torch.arange(count - edge, count), between]).unique()


def attend_some(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Sequence[int], cu_k: Sequence[int], window: int | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of some queries of every sequence of a packed batch, and exact attention for them (bottom-right)."""
    indices, exact = [], []
    for (q0, q1), (k0, k1) in zip(pairwise(cu_q), pairwise(cu_k), strict=True):
        chosen = some_queries(q1 - q0).to(q.device)
        indices.append(q0 + chosen)
        exact.append(attend(q[q0 + chosen], k[k0:k1], v[k0:k1], (k1 - k0) - (q1 - q0) + chosen, window))
    return torch.cat(indices), torch.cat(exact)
