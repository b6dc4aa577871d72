"""Annex: softmax with one maximum for all, FlashDecoding++'s asynchronous softmax, and what to do when it fails.

softmax(s) does not change when any φ is subtracted from all scores; the running maximum is merely the safe choice, and
a dear one: every block has to wait for its maximum and to rescale what was accumulated. With a φ fixed beforehand,

    l = Σ exp(s - φ),   acc = Σ exp(s - φ) · v,   o = acc / l

are plain sums that any number of programs can add to in any order. The price: exp(s - φ) overflows where scores lie far
above φ and loses its digits far below it. The sum itself tells: no weight is larger than l, and the largest is at least
l / n. So a tile whose sums leave a safe range is computed again, with the running maximum; in fp16 that range begins
higher the more keys there are, for the digits that are lost are those of single weights. How often it happens depends
on the model and on φ, which is why this is an annex: it is right for every input, and fast for some.

Source: FlashDecoding++, arXiv:2311.01282, section 3 (its range check is per score; there φ comes from statistics).
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.kernels._compat import choose, has_mma
from labcore.kernels._compile import Variant
from labcore.kernels.attention_prefill import (
    attend_blocks,
    attention_varlen_reference,
    check_varlen,
    load_block,
    sequence_of_tile,
)
from labcore.kernels.online_softmax import LOG2_E, finish_softmax
from labcore.kernels.paging import UNBOUNDED, output_like, scale_of

# Of a row's sum in base 2: at least so much for each key, and at most so much in all. fp16 weights end at 2^16 and are
# off by up to 2^-25 each below 2^-14; the others have float32's exponents.
SAFE = {torch.float16: (-14, 15), torch.bfloat16: (-100, 100), torch.float32: (-100, 100)}
TILE = {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}


# [book: unified-max]
@triton.jit
def unified_max_blocks(
    q, k_ptr, v_ptr, end, positions, kv_len, kv_stride, scale_log2, phi_log2,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Σ exp(s - φ) and Σ exp(s - φ) · v over the keys [0, end): no maximum, no rescaling."""
    row_sum, acc = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for start in range(0, end, BLOCK_N):
        left = kv_len - start
        k = load_block(k_ptr, start, left, kv_stride, BLOCK_N, HEAD_DIM, True, False)
        scores = tl.dot(q, k.T, input_precision="ieee")
        visible = start + tl.arange(0, BLOCK_N)[None, :] <= positions[:, None]
        weights = tl.where(visible, tl.exp2(scores * scale_log2 - phi_log2), 0.0)
        row_sum += tl.sum(weights, 1)
        v = load_block(v_ptr, start, left, kv_stride, BLOCK_N, HEAD_DIM, True, False)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
    return row_sum, acc


@triton.jit(do_not_specialize=["num_seqs", "group"])
def _unified_max_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, recomputed_ptr, cu_q_ptr, cu_k_ptr, num_seqs, group, q_stride, kv_stride,
    scale_log2, phi_log2, least, most,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (tile, head): BLOCK_M queries of one head, causal."""
    tile, head, n_heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    seq = sequence_of_tile(cu_q_ptr, tile, num_seqs, BLOCK_M)
    q_start, k_start = tl.load(cu_q_ptr + seq), tl.load(cu_k_ptr + seq)
    q_len, kv_len = tl.load(cu_q_ptr + seq + 1) - q_start, tl.load(cu_k_ptr + seq + 1) - k_start
    first = (tile - q_start // BLOCK_M - seq) * BLOCK_M
    if first >= q_len:
        return
    q_ptr += q_start.to(tl.int64) * q_stride + head * HEAD_DIM
    q = load_block(q_ptr, first, q_len - first, q_stride, BLOCK_M, HEAD_DIM, True, False)
    position = kv_len - q_len + first
    positions = position + tl.arange(0, BLOCK_M)
    end = tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0)
    k_ptr += k_start.to(tl.int64) * kv_stride + head // group * HEAD_DIM
    v_ptr += k_start.to(tl.int64) * kv_stride + head // group * HEAD_DIM

    row_sum, acc = unified_max_blocks(q, k_ptr, v_ptr, end, positions, kv_len, kv_stride, scale_log2, phi_log2,
                                      HEAD_DIM, BLOCK_M, BLOCK_N)  # fmt: skip
    row_max = tl.full([BLOCK_M], phi_log2, tl.float32)
    row = tl.arange(0, BLOCK_M)
    real = first + row < q_len
    safe = (row_sum >= least * tl.maximum(end, 1)) & (row_sum <= most)  # NaN is not, nor 0 of a query without keys
    if tl.sum((real & ~safe).to(tl.int32)) > 0:
        row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
        state = row_max, row_sum, tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
        row_max, row_sum, acc = attend_blocks(
            state, q, k_ptr, v_ptr, 0, end, positions, kv_len, kv_stride, scale_log2,
            HEAD_DIM, BLOCK_N, UNBOUNDED, True, False,
        )  # fmt: skip
        if recomputed_ptr is not None:
            tl.atomic_add(recomputed_ptr, 1)
    out, lse = finish_softmax(acc, row_max, row_sum)

    out_ptr += (q_start + first).to(tl.int64) * n_heads * HEAD_DIM + head * HEAD_DIM
    at = row[:, None] * (n_heads * HEAD_DIM) + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    if lse_ptr is not None:
        tokens = tl.load(cu_q_ptr + num_seqs).to(tl.int64)
        tl.store(lse_ptr + head * tokens + q_start + first + row, lse, mask=real)


# [/book]


def attention_unified_max(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
    phi: float = 0.0, scale: float | None = None, out: Tensor | None = None, return_lse: bool = False,
    recomputed: Tensor | None = None, backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Causal `attention_varlen` with weights exp(s - phi); arguments and answers as there, for every phi.

    phi: where the scaled scores are expected, natural logarithm. recomputed: int32 [1] on q's device, to which the
    number of tiles is added that had to be computed again.
    """
    check_varlen(q, k, v, cu_q, cu_k, True, None)
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, mma=True, what="attention_unified_max") == "torch":
        result, lse = attention_varlen_reference(q, k, v, cu_q, cu_k, scale=scale)
        out.copy_(result)
    else:
        lse = q.new_empty(q.shape[1], len(q), dtype=torch.float32) if return_lse else None
        k, v = (k, v) if k.stride(0) == v.stride(0) else (k.contiguous(), v.contiguous())
        least, most = (2.0**bound for bound in SAFE[q.dtype])
        if q.numel():
            _unified_max_kernel[len(q) // TILE["BLOCK_M"] + len(cu_q) - 1, q.shape[1]](
                q, k, v, out, lse, recomputed, cu_q, cu_k, len(cu_q) - 1, q.shape[1] // k.shape[1], q.stride(0),
                k.stride(0), scale * LOG2_E, phi * LOG2_E, least, most,
                HEAD_DIM=q.shape[2], **TILE,
            )  # fmt: skip
    return (out, lse) if return_lse else out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """bf16, head_dim 128."""
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16")
    signature |= dict.fromkeys(("scale_log2", "phi_log2", "least", "most"), "fp32")
    signature |= {"lse_ptr": "*fp32", "recomputed_ptr": "*i32", "cu_q_ptr": "*i32", "cu_k_ptr": "*i32"}
    signature |= {"num_seqs": "i32", "group": "i32", "q_stride": "i32:16", "kv_stride": "i32:16"}
    if has_mma(cc):
        expects = {"wgmma"} if cc >= (9, 0) else {"mma.sync"}
        yield Variant.of("D=128", _unified_max_kernel, signature, TILE, expects, HEAD_DIM=128)
