"""Annex: prefill attention with specialized warps, FlashAttention-3's division of labour as far as Triton has it.

In `attention_prefill` all warps of a program do the same: wait for a block, multiply, exponentiate, multiply. Between
two products the tensor cores idle while exponentials are computed, unless another program's warps use them. Here one
group of warps only fetches blocks, and two groups of four compute, each on half of the rows and at its own pace, so
that one multiplies while the other exponentiates.

Triton's compiler does this for one form of program alone (3.6 and 3.7, on Hopper): one loop, no branch within, every
block fetched and stored through a descriptor, num_warps=4. Hence one loop with the mask always applied, and a grid with
a place for every tile of the longest sequence in every sequence. Another form is compiled without specialization, or
not at all; the compile test sees that this one has its twelve warps. Or it is compiled to something wrong: with blocks
of 64 keys and three or four stages, Triton 3.6 on an H200 left NaN in the output, which no check without a GPU saw.
So this is a candidate for a sweep, and no default. Sources: arXiv:2407.08608, section 3.1; Triton's tutorial 06.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._checks import describable, descriptor_memory
from labcore.kernels._compile import Variant
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import NO_WINDOW, UNBOUNDED

TILE = {"WS": 1, "BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 4, "num_stages": 2}  # a `config` of `attention_varlen`


# [book: prefill-ws]
@triton.jit(do_not_specialize=["n_kv_heads", "tokens"])
def _specialized_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, tokens, q_stride, kv_stride, n_kv_heads, scale_log2,
    HEAD_DIM: tl.constexpr, WINDOW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (member of the group, tile from the last on, (sequence, KV head)): BLOCK_M queries of one head."""
    n_heads = tl.num_programs(0) * n_kv_heads
    seq, kv_head = tl.program_id(2) // n_kv_heads, tl.program_id(2) % n_kv_heads
    head = kv_head * tl.num_programs(0) + tl.program_id(0)
    first = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_M
    q_start, k_start = tl.load(cu_q_ptr + seq).to(tl.int64), tl.load(cu_k_ptr + seq).to(tl.int64)
    q_len = tl.load(cu_q_ptr + seq + 1) - q_start.to(tl.int32)
    kv_len = tl.load(cu_k_ptr + seq + 1) - k_start.to(tl.int32)
    position = kv_len - q_len + first
    begin, end = 0, tl.where(first < q_len, tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0), 0)
    if WINDOW < UNBOUNDED:
        begin = tl.maximum(position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N

    first = tl.where(first < q_len, first, 1 << 30)  # a tile without queries reads zeros there and stores nothing
    q_ptr += q_start * q_stride + head * HEAD_DIM
    k_ptr += k_start * kv_stride + kv_head * HEAD_DIM
    v_ptr += k_start * kv_stride + kv_head * HEAD_DIM
    out_ptr += (q_start * n_heads + head) * HEAD_DIM
    q_size, kv_size = tl.maximum(q_len, 1), tl.maximum(kv_len, 1)  # no descriptor has a size of 0
    queries = tl.make_tensor_descriptor(q_ptr, [q_size, HEAD_DIM], [q_stride, 1], [BLOCK_M, HEAD_DIM])
    keys = tl.make_tensor_descriptor(k_ptr, [kv_size, HEAD_DIM], [kv_stride, 1], [BLOCK_N, HEAD_DIM])
    values = tl.make_tensor_descriptor(v_ptr, [kv_size, HEAD_DIM], [kv_stride, 1], [BLOCK_N, HEAD_DIM])
    outputs = tl.make_tensor_descriptor(out_ptr, [q_size, HEAD_DIM], [n_heads * HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])

    q = queries.load([first, 0])  # rows past the end are zeros, and are not stored
    positions = position + tl.arange(0, BLOCK_M)
    row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for start in tl.range(begin, end, BLOCK_N, warp_specialize=True):
        k = keys.load([start, 0])
        scores = tl.dot(q, k.T)
        key = start + tl.arange(0, BLOCK_N)[None, :]
        visible = key <= positions[:, None]
        if WINDOW < UNBOUNDED:
            visible &= key > positions[:, None] - WINDOW
        scores = tl.where(visible, scores, float("-inf"))
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)
        v = values.load([start, 0])
        acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None])
    out, lse = finish_softmax(acc, row_max, row_sum)
    if lse_ptr is not None:
        # not from `first`: Triton 3.6 shifts a descriptor's coordinate for half of the rows
        row = positions - (kv_len - q_len)
        tl.store(lse_ptr + head.to(tl.int64) * tokens + q_start + row, lse, mask=row < q_len)
    outputs.store([first, 0], out.to(out_ptr.dtype.element_ty))


# [/book]


def launch_specialized(q, k, v, out, lse, cu_q, cu_k, max_q, look_back, scale, config) -> None:
    """What `attention_varlen` does with a `config` that says WS: fp16 or bf16, causal, on Hopper; lse may be None."""
    if not specializable(q, k, v, causal=look_back is not None):
        raise InputError(
            f"warps are specialized for 2-byte floats, causal, 16-byte strides alike in k and v: config={config}"
        )
    descriptor_memory(q.device)
    grid = q.shape[1] // k.shape[1], -(-max_q // config["BLOCK_M"]), (len(cu_q) - 1) * k.shape[1]
    _specialized_kernel[grid](
        q, k, v, out, lse, cu_q, cu_k, len(q), q.stride(0), k.stride(0), k.shape[1], scale * LOG2_E,
        HEAD_DIM=q.shape[2], WINDOW=look_back, **{name: value for name, value in config.items() if name != "WS"},
    )  # fmt: skip


def specializable(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> bool:
    """Whether descriptors can be made of these tensors within the kernel, whose one form is causal."""
    alike = k.stride(0) == v.stride(0)
    return causal and q.element_size() == 2 and q.shape[2] >= 64 and alike and describable(q, k, v)


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """Hopper's, causal and within a window."""
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16")
    signature |= {"cu_q_ptr": "*i32", "cu_k_ptr": "*i32", "n_kv_heads": "i32", "scale_log2": "fp32"}
    signature |= {"lse_ptr": "*fp32", "tokens": "i32", "q_stride": "i32:16", "kv_stride": "i32:16"}
    if cc[0] == 9:
        launch = {name: value for name, value in TILE.items() if name != "WS"}
        expects = {"wgmma", "tma", "setmaxnreg"}  # the last only where warps are specialized
        for name, look_back in ("causal", NO_WINDOW), ("window", 4096):
            shape = {"HEAD_DIM": 128, "WINDOW": look_back}
            yield Variant.of(name, _specialized_kernel, signature, launch, expects, **shape)
