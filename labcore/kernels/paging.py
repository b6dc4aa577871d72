"""A paged cache as kernels see it: where a token lies, and what its tensors must look like.

A cache is [pages, page, n_kv_heads, head_dim]: keys, or values. Position p of a request lies in page
block_table[request, p // page], at offset p % page; its slot is page · page_size + offset, the same number that
`write_kv` stores to. Entries of the table past a request's length may be anything (-1, garbage) and are not read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor

NO_WINDOW = 2**30  # no context is longer, and position - NO_WINDOW still fits in 32 bits
UNBOUNDED = tl.constexpr(NO_WINDOW)  # the same for kernels


def gather(cache: Tensor, table: Tensor, length: int) -> Tensor:
    """The first `length` tokens [length, n_kv_heads, head_dim] of the request whose block table is `table`."""
    pages = -(-length // cache.shape[1])
    return cache[table[:pages].long()].flatten(0, 1)[:length]


# [book: slots]
@triton.jit
def slots_of(table, positions, PAGE: tl.constexpr):
    """The slots, int64, of the tokens at `positions` of a request whose block table begins at `table`.

    One entry is read per token, not per page, so a tile may begin anywhere and span pages of any size. 64 bits: a cache
    of 2³¹ elements is only 4 GB.
    """
    return tl.load(table + positions // PAGE).to(tl.int64) * PAGE + positions % PAGE


# [/book]


def check_cache(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    """Raise InputError unless these caches can serve queries q [tokens, n_heads, head_dim]."""
    if q.dim() != 3 or k_cache.dim() != 4:
        raise InputError(f"q {tuple(q.shape)}, cache {tuple(k_cache.shape)}: pass [tokens, heads, head_dim] and 4 dims")
    if k_cache.shape != v_cache.shape or not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise InputError(f"caches {tuple(k_cache.shape)} and {tuple(v_cache.shape)}: pass two contiguous ones, alike")
    _, n_heads, size = q.shape
    if n_heads % k_cache.shape[2] or size != k_cache.shape[3]:
        raise InputError(
            f"q has {n_heads} heads of {size}, the cache {k_cache.shape[2]} of {k_cache.shape[3]}: "
            "n_heads must be a multiple of n_kv_heads, and head_dim the same"
        )
    check_heads(size, q.dtype, k_cache.dtype, v_cache.dtype)


def check_requests(q: Tensor, block_table: Tensor, **per_request: Tensor) -> None:
    """Raise InputError unless block_table is int32 [requests, pages] and what else describes requests is int32 too."""
    if block_table.dim() != 2 or block_table.stride(1) != 1:
        raise InputError(f"block_table is {tuple(block_table.shape)}: pass [requests, pages], rows contiguous")
    for name, tensor in {"block_table": block_table, **per_request}.items():
        if tensor.dtype != torch.int32 or tensor.device != q.device:
            raise InputError(f"{name} is {tensor.dtype} on {tensor.device}: pass int32 on {q.device}")
        if name != "block_table" and (tensor.dim() != 1 or not tensor.is_contiguous()):
            raise InputError(f"{name} is {tuple(tensor.shape)}: pass a contiguous vector")


def check_one_token_each(q: Tensor, block_table: Tensor, seq_lens: Tensor) -> None:
    """Raise InputError unless these describe a decode step: a query, a table and a length for each request."""
    check_requests(q, block_table, seq_lens=seq_lens)
    if not len(q) == len(block_table) == len(seq_lens):
        raise InputError(
            f"{len(q)} queries, {len(block_table)} tables, {len(seq_lens)} lengths: one of each per request"
        )


def check_options(**options: int | None) -> None:
    """Raise InputError for an option that is given and not positive."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: pass a positive number, or None")


def scale_of(q: Tensor, scale: float | None) -> float:
    """What scores are multiplied by: `scale`, or 1 / sqrt(head_dim). Raises InputError unless it is positive."""
    if scale is None:
        return q.shape[-1] ** -0.5
    if not scale > 0:
        raise InputError(f"scale={scale}: pass a positive number, for the largest score must stay the largest")
    return scale


def check_heads(size: int, *dtypes: torch.dtype) -> None:
    """Raise InputError unless the kernels take heads of this size, and q, k and v have one dtype that they take."""
    if size & (size - 1) or not 16 <= size <= 256:
        raise InputError(f"head_dim={size}: the kernels take powers of two from 16 to 256; pad it with zeros")
    if set(dtypes) not in ({torch.float32}, {torch.float16}, {torch.bfloat16}):
        raise InputError(f"q, k, v are {', '.join(map(str, dtypes))}: one of fp32, fp16, bf16 for all three")


def output_like(q: Tensor, out: Tensor | None) -> Tensor:
    """`out`, or a new tensor of q's shape, dtype and device. Raises InputError if `out` is another or has gaps."""
    if out is None:
        return torch.empty(q.shape, dtype=q.dtype, device=q.device)
    check_tensor("out", out, q.dtype, q.shape)
    if out.device != q.device:
        raise InputError(f"out is on {out.device}: pass one on {q.device}")
    return out
