"""Paged caches in the state that real ones are in: pages in no order, rubbish in every place no request owns."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.kernels.paging import NO_WINDOW, gather


@dataclass
class Case:
    """Requests of given lengths. Unused pages and slots hold NaN; table entries that none may read, -1 or too much."""

    k_cache: Tensor
    v_cache: Tensor
    block_table: Tensor
    seq_lens: Tensor

    @property
    def caches(self) -> tuple[Tensor, Tensor]:
        return self.k_cache, self.v_cache

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.k_cache, self.v_cache, self.block_table, self.seq_lens

    def of(self, requests: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`where` for some of the requests, in this order."""
        return self.k_cache, self.v_cache, self.block_table[requests].contiguous(), self.seq_lens[requests].contiguous()


def paged_case(
    lengths, kv_heads=2, head_dim=32, page=16, *, dtype=torch.float32, device="cpu", seed=0, spare_pages=3
) -> Case:
    random = torch.Generator().manual_seed(seed)
    counts = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(counts) + spare_pages, generator=random)[: sum(counts)]
    table = torch.tensor([-1, 2**30], dtype=torch.int32).repeat(len(lengths), max([1, *counts]) // 2 + 1)
    k_cache, v_cache = (torch.full((sum(counts) + spare_pages, page, kv_heads, head_dim), torch.nan) for _ in "kv")
    for row, length, pages in zip(table, lengths, order.split(counts), strict=True):
        row[: len(pages)] = pages
        for cache in (k_cache, v_cache):
            tokens = torch.full((len(pages) * page, kv_heads, head_dim), torch.nan)
            tokens[:length] = torch.randn(length, kv_heads, head_dim, generator=random)
            cache[pages] = tokens.view(-1, page, kv_heads, head_dim)
    lengths = torch.tensor(lengths, dtype=torch.int32)
    caches = (cache.to(device, dtype) for cache in (k_cache, v_cache))
    return Case(*caches, table.to(device), lengths.to(device))


def queries(tokens: int, heads: int, head_dim=32, *, dtype=torch.float32, device="cpu", seed=1) -> Tensor:
    numbers = torch.randn(tokens, heads, head_dim, generator=torch.Generator().manual_seed(seed))
    return numbers.to(device, dtype)


def starts(lengths) -> Tensor:
    """int32 [n + 1]: cumulated lengths."""
    return torch.tensor([0, *lengths]).cumsum(0).int()


def by_torch(q: Tensor, case: Case, q_lens, window=None, scale=None, dtype=None) -> Tensor:
    """What torch's own attention computes from the gathered keys, in `dtype` or that of q. No key: 0."""
    dtype = dtype or q.dtype
    out, begin = torch.zeros(q.shape, dtype=dtype, device=q.device), 0
    for request, (new, length) in enumerate(zip(q_lens, case.seq_lens.tolist(), strict=True)):
        if length and new:
            mine = slice(begin, begin + new)
            k, v = (gather(cache, case.block_table[request], length).to(dtype)[None] for cache in case.caches)
            position = torch.arange(length - new, length, device=q.device)[:, None]
            key = torch.arange(length, device=q.device)
            seen = (key <= position) & (key > position - (window or NO_WINDOW))
            heads_first = (part.transpose(1, 2) for part in (q[mine][None].to(dtype), k, v))
            found = F.scaled_dot_product_attention(*heads_first, attn_mask=seen, scale=scale, enable_gqa=True)
            out[mine] = found[0].transpose(0, 1).where(seen.any(1)[:, None, None], 0.0)
        begin += new
    return out
