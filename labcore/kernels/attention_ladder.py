"""The way to `attention_prefill` in two steps, to be read side by side with it: v0, the literal loop, and v1, tiles.

v0 is the recurrence and nothing else: a program has one query of one head and takes the keys one by one, so every key
and value is read from memory by every query. v1 takes tiles of queries and keys: a key is read once for BLOCK_M
queries, and both products are matrix products, which tensor cores compute. v2 is what ships: what it adds to v1 are
bits of work left out (the mask where all is visible, a multiplication per score) and the order in which things happen.
Same arguments, same answers; only the time differs, by the ratios that `labcore bench --device cuda` records.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._compat import choose, has_mma
from labcore.kernels._compile import Variant
from labcore.kernels.attention_prefill import attention_varlen_reference, check_varlen, load_block, sequence_of_tile
from labcore.kernels.paging import NO_WINDOW, output_like, scale_of


# [book: attention-v0]
@triton.jit(do_not_specialize=["num_seqs"])
def literal_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, num_seqs, q_stride, kv_stride, scale, group,
    HEAD_DIM: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Program (query, head, sequence): one query of one head, one key after the other."""
    row, head, seq = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_heads = tl.num_programs(1)
    q_start, k_start = tl.load(cu_q_ptr + seq), tl.load(cu_k_ptr + seq)
    q_len, kv_len = tl.load(cu_q_ptr + seq + 1) - q_start, tl.load(cu_k_ptr + seq + 1) - k_start
    if row >= q_len:
        return
    d = tl.arange(0, HEAD_DIM)
    q = tl.load(q_ptr + (q_start + row).to(tl.int64) * q_stride + head * HEAD_DIM + d).to(tl.float32)
    position = kv_len - q_len + row  # among the keys: the last query sees the last key
    begin, end = 0, kv_len  # keys that the query sees
    if WINDOW is not None:
        end = position + 1
        begin = tl.maximum(position - WINDOW + 1, 0)

    row_max, row_sum = float("-inf"), 0.0
    acc = tl.zeros([HEAD_DIM], tl.float32)
    for key in range(begin, end):
        at = (k_start + key).to(tl.int64) * kv_stride + head // group * HEAD_DIM + d
        k = tl.load(k_ptr + at).to(tl.float32)
        score = tl.sum(q * k) * scale
        new_max = tl.maximum(row_max, score)
        weight, decay = tl.exp(score - new_max), tl.exp(row_max - new_max)
        row_sum = row_sum * decay + weight
        row_max = new_max
        v = tl.load(v_ptr + at).to(tl.float32)
        acc = acc * decay + weight * v
    some = tl.where(row_sum > 0, row_sum, 1.0)  # a query that sees no key gives 0 / 1, and -inf + log 1
    out, lse = acc / some, row_max + tl.log(some)

    out_ptr += (q_start + row).to(tl.int64) * n_heads * HEAD_DIM + head * HEAD_DIM
    tl.store(out_ptr + d, out.to(out_ptr.dtype.element_ty))
    if lse_ptr is not None:
        tokens = tl.load(cu_q_ptr + num_seqs).to(tl.int64)
        tl.store(lse_ptr + head * tokens + q_start + row, lse)


# [/book]


# [book: attention-v1]
@triton.jit(do_not_specialize=["num_seqs"])
def tiled_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, num_seqs, q_stride, kv_stride, scale, group,
    HEAD_DIM: tl.constexpr, WINDOW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (tile, head): BLOCK_M queries of one head, BLOCK_N keys at a time, every block masked."""
    tile, head, n_heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    seq = sequence_of_tile(cu_q_ptr, tile, num_seqs, BLOCK_M)
    q_start, k_start = tl.load(cu_q_ptr + seq), tl.load(cu_k_ptr + seq)
    q_len, kv_len = tl.load(cu_q_ptr + seq + 1) - q_start, tl.load(cu_k_ptr + seq + 1) - k_start
    first = (tile - q_start // BLOCK_M - seq) * BLOCK_M
    if first >= q_len:
        return
    q_ptr += q_start.to(tl.int64) * q_stride + head * HEAD_DIM
    q = load_block(q_ptr, first, q_len - first, q_stride, BLOCK_M, HEAD_DIM, True, False)
    position = kv_len - q_len + first  # of the first query, among the keys
    positions = position + tl.arange(0, BLOCK_M)
    begin, end = 0, kv_len  # keys that any query of the tile sees
    if WINDOW is not None:
        end = tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0)
        begin = tl.maximum(position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N

    row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    kv_head = head // group
    k_ptr += k_start.to(tl.int64) * kv_stride + kv_head * HEAD_DIM
    v_ptr += k_start.to(tl.int64) * kv_stride + kv_head * HEAD_DIM
    for start in range(begin, end, BLOCK_N):
        left = kv_len - start
        k = load_block(k_ptr, start, left, kv_stride, BLOCK_N, HEAD_DIM, True, False)
        scores = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
        key = start + tl.arange(0, BLOCK_N)[None, :]
        visible = key < kv_len
        if WINDOW is not None:
            visible &= (key <= positions[:, None]) & (key > positions[:, None] - WINDOW)
        scores = tl.where(visible, scores * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # no key so far: -inf - (-inf) would be NaN
        weights, decay = tl.exp(scores - shift[:, None]), tl.exp(row_max - shift)
        row_sum = row_sum * decay + tl.sum(weights, 1)
        row_max = new_max
        v = load_block(v_ptr, start, left, kv_stride, BLOCK_N, HEAD_DIM, True, False)
        acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
    some = tl.where(row_sum > 0, row_sum, 1.0)
    out, lse = acc / some[:, None], row_max + tl.log(some)

    row = tl.arange(0, BLOCK_M)
    real = positions < kv_len  # the last query's is kv_len - 1
    out_ptr += (q_start + first).to(tl.int64) * n_heads * HEAD_DIM + head * HEAD_DIM
    at = row[:, None] * (n_heads * HEAD_DIM) + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    if lse_ptr is not None:
        tokens = tl.load(cu_q_ptr + num_seqs).to(tl.int64)
        tl.store(lse_ptr + head * tokens + q_start + first + row, lse, mask=real)


# [/book]


def attention_v0(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options):
    """`attention_varlen` by the literal loop: causal, window, scale, out, return_lse and backend as there."""
    return _climb(literal_kernel, {"num_warps": 1}, (max_q, q.shape[1], len(cu_q) - 1), q, k, v, cu_q, cu_k, **options)


def attention_v1(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options):
    """`attention_varlen` by tiles, every block masked."""
    launch = tile_of(q.shape[2])
    grid = len(q) // launch["BLOCK_M"] + len(cu_q) - 1, q.shape[1]
    return _climb(tiled_kernel, launch, grid, q, k, v, cu_q, cu_k, **options)


def tile_of(head_dim: int) -> dict[str, int]:
    """The tile of v1, the same on every chip: what fits everywhere. A choice per chip is a part of v2."""
    warps = 8 if head_dim == 64 else 4  # with four, head_dim 64 spills on an L4
    return {"BLOCK_M": 64 if head_dim <= 128 else 32, "BLOCK_N": 32, "num_warps": warps, "num_stages": 2}


def _climb(
    kernel, launch, grid, q, k, v, cu_q, cu_k, *,
    causal=True, window=None, scale=None, out=None, return_lse=False, backend="auto",
):  # fmt: skip
    check_varlen(q, k, v, cu_q, cu_k, causal, window)
    if k.stride(0) != v.stride(0):
        raise InputError(f"k and v have strides {k.stride()} and {v.stride()}: the ladder takes equal ones")
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, mma=True, what="the ladder of attention kernels") == "torch":
        result, lse = attention_varlen_reference(q, k, v, cu_q, cu_k, causal=causal, window=window, scale=scale)
        out.copy_(result)
    else:
        lse = q.new_empty(q.shape[1], len(q), dtype=torch.float32) if return_lse else None
        if q.numel():
            kernel[grid](
                q, k, v, out, lse, cu_q, cu_k, len(cu_q) - 1, q.stride(0), k.stride(0), scale, q.shape[1] // k.shape[1],
                HEAD_DIM=q.shape[2], WINDOW=(window or NO_WINDOW) if causal else None, **launch,
            )  # fmt: skip
    return (out, lse) if return_lse else out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """Both steps in bf16; v1 for every head_dim that models have."""
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16")
    signature |= {"lse_ptr": "*fp32", "cu_q_ptr": "*i32", "cu_k_ptr": "*i32", "num_seqs": "i32", "group": "i32"}
    signature |= {"q_stride": "i32:16", "kv_stride": "i32:16", "scale": "fp32"}
    if has_mma(cc):
        yield Variant.of("v0", literal_kernel, signature, {"num_warps": 1}, HEAD_DIM=128, WINDOW=NO_WINDOW)
        for size in 128, 64, 256:
            expects = {"wgmma"} if cc >= (9, 0) and size <= 128 else {"mma.sync"}
            shape = {"HEAD_DIM": size, "WINDOW": NO_WINDOW}
            yield Variant.of(f"v1, D={size}", tiled_kernel, signature, tile_of(size), expects, **shape)
