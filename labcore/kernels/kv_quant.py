"""Decode attention that reads keys and values as codes: INT8, FP8 or INT4, with a scale per token and head.

A decode step is as fast as its cache can be read, so half the bytes are worth nearly twice the speed, if turning codes
into numbers costs less than reading them did. So no element of a key or value is multiplied by its scale: the scale of
a key multiplies its score, that of a value its weight, and a zero point, the same for a whole head, adds zero · Σ q to
the score. The conversion that is left is in kv_quant_planes; the cache and how tokens get into it, in kv_quant_cache.

Sources: lmdeploy, pagedattention.py; the scales on scores and weights, vLLM's and lmdeploy's FP8 caches.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, has_mma, multiprocessors
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.attention_decode import paged_decode_reference
from labcore.kernels.kv_quant_cache import TRITON_TYPES, QuantKV, kinds_for, write_kv_quant
from labcore.kernels.kv_quant_planes import add_products, planes, sum_of_products
from labcore.kernels.merge_states import State, merge
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import NO_WINDOW, check_one_token_each, check_options, output_like, scale_of
from labcore.kernels.splits import choose_splits, room_for_states, share_of

__all__ = ["QuantKV", "paged_decode_quant", "write_kv_quant"]


# [book: decode-quant]
@triton.jit
def _decode_quant_kernel(
    q_ptr, data_ptr, parameter_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, q_stride, table_stride,
    window, scale_log2,
    GROUP: tl.constexpr, N_KV: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Program (kv_head, request, split), as in `_decode_kernel`; every matrix as planes of its channels.

    Both products have the codes on their left, where a tensor core takes 16 rows: Sᵀ = K qᵀ and Oᵀ = Vᵀ Pᵀ. On its
    right, where 8 columns are enough, are the queries, of which a KV head has few. So heads are columns here.
    """
    kv_head, request, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_splits = tl.num_programs(2)
    CODE: tl.constexpr = data_ptr.dtype.element_ty
    INT4: tl.constexpr = data_ptr.dtype.element_ty == tl.uint8
    KIND: tl.constexpr = tl.float32 if q_ptr.dtype.element_ty == tl.float32 else tl.float16
    HALF: tl.constexpr = HEAD_DIM // 2
    WIDTH: tl.constexpr = HALF if INT4 else HEAD_DIM  # bytes of a head
    LIFT: tl.constexpr = 16.0 if INT4 else 256.0  # lifts weights · scale out of fp16's subnormals, below its largest
    COLUMNS: tl.constexpr = max(8, triton.next_power_of_2(GROUP))
    column, pair = tl.arange(0, COLUMNS), tl.arange(0, WIDTH // 2)
    real = column < GROUP
    head = kv_head * GROUP + column
    q_at = q_ptr + request * q_stride + head[None, :] * HEAD_DIM
    whole = tl.load(q_at + tl.arange(0, HEAD_DIM)[:, None], mask=real[None, :], other=0.0).to(tl.float32)
    size = tl.max(tl.abs(whole), 0)
    size = tl.where(size > 0, size, 1.0)  # queries are divided by it: bf16 has more range than fp16
    q_sum = tl.sum((whole / size[None, :]).to(KIND).to(tl.float32), 0)
    q_at += 2 * pair[:, None]
    q = (query_plane(q_at, size, real, KIND), query_plane(q_at + 1, size, real, KIND))
    if INT4:
        q += (query_plane(q_at + HALF, size, real, KIND), query_plane(q_at + HALF + 1, size, real, KIND))

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, BLOCK_T, BLOCK_T)
    top = tl.full([COLUMNS], float("-inf"), tl.float32)
    pair_ptr = data_ptr.to(tl.pointer_type(tl.int16)) + kv_head * (PAGE * WIDTH)
    nothing = tl.zeros([WIDTH // 2, COLUMNS], tl.float32)
    acc = (nothing, nothing, nothing, nothing) if INT4 else (nothing, nothing)
    sums = tl.zeros([BLOCK_T, COLUMNS], tl.float32)  # added up over the tokens of a tile at the very end
    zeros = sums
    word_ptr = parameter_ptr.to(tl.pointer_type(tl.int64 if INT4 else tl.int32)) + kv_head * PAGE  # a token's
    table = table_ptr + request * table_stride
    for start in range(begin, end, BLOCK_T):
        position = start + tl.arange(0, BLOCK_T)
        known = tl.minimum(position, end - 1)  # past the end the last key again: unowned slots may hold NaN
        page, offset = tl.load(table + known // PAGE).to(tl.int64), known % PAGE
        k_at = pair_ptr + (page * (2 * N_KV * PAGE) + offset) * (WIDTH // 2)
        v_at = k_at + PAGE * (WIDTH // 2)  # behind the page's keys
        scores = sum_of_products(planes(tl.load(k_at[:, None] + pair[None, :]), CODE, KIND), q)  # [BLOCK_T, COLUMNS]
        k_scale, k_zero, v_scale, v_zero = scales_and_zeros(tl.load(word_ptr + page * (N_KV * PAGE) + offset), INT4)
        scores = scores * k_scale[:, None] + q_sum[None, :] * k_zero[:, None]
        scores = tl.where((position < end)[:, None], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 0) * (size * scale_log2))
        weights = tl.exp2(scores * (size * scale_log2)[None, :] - new_top[None, :])
        decay = tl.exp2(top - new_top)
        top = new_top

        values = planes(tl.load(v_at[None, :] + pair[:, None]), CODE, KIND)
        sums = sums * decay[None, :] + weights
        if INT4:
            zeros = zeros * decay[None, :] + weights * v_zero[:, None]
        weights = (weights * (v_scale * LIFT)[:, None]).to(KIND)
        acc = add_products(acc, decay[None, :], values, weights)

    zero = tl.sum(zeros, 0)[:, None]
    out = (request * num_splits + split).to(tl.int64) * N_KV * GROUP + head
    stored = (real & ((begin < end) | (split == 0)))[:, None]
    o_at = o_ptr + out[:, None] * HEAD_DIM + 2 * pair[None, :]
    for i in tl.static_range(4 if INT4 else 2):
        o, lse = finish_softmax(tl.trans(acc[i]) / LIFT + zero, top, tl.sum(sums, 0))
        tl.store(o_at + i % 2 + i // 2 * HALF, o.to(o_ptr.dtype.element_ty), mask=stored)
    tl.store(lse_ptr + out, lse, mask=real)


@triton.jit
def query_plane(q_at, size, real, KIND: tl.constexpr):
    """Every other channel of the queries, of magnitude 1 at most."""
    return (tl.load(q_at, mask=real[None, :], other=0.0).to(tl.float32) / size[None, :]).to(KIND)


@triton.jit
def scales_and_zeros(word, INT4: tl.constexpr):
    """fp32 scale and zero of keys, then of values, from a token's fp16 parameters in one integer: int64 of INT4, int32.

    A number is code · scale + zero, where INT4's codes come less 8.
    """
    if INT4:
        k_scale, v_scale = half_of(word), half_of(word >> 32)
        k_zero, v_zero = half_of(word >> 16) + 8 * k_scale, half_of(word >> 48) + 8 * v_scale
    else:
        k_scale, v_scale = half_of(word), half_of(word >> 16)
        k_zero, v_zero = tl.zeros_like(k_scale), tl.zeros_like(v_scale)
    return k_scale, k_zero, v_scale, v_zero


@triton.jit
def half_of(word):
    """The last 16 bits as fp16, in fp32."""
    return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


# [/book]


# [book: decode-quant-vector]
@triton.jit
def halves(code_ptr, HALF: tl.constexpr):
    """The codes at code_ptr [tokens, HALF] of the lower and the upper channels, as float32 numbers; INT4's less 8."""
    if code_ptr.dtype.element_ty == tl.uint8:
        byte = tl.load(code_ptr)
        low, high = (byte & 15).to(tl.float32) - 8, (byte >> 4).to(tl.float32) - 8
    else:
        low, high = tl.load(code_ptr).to(tl.float32), tl.load(code_ptr + HALF).to(tl.float32)
    return low, high


@triton.jit
def _decode_quant_vector_kernel(
    q_ptr, data_ptr, parameter_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, q_stride, table_stride,
    window, scale_log2,
    GROUP: tl.constexpr, N_KV: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The same without tensor cores, for float32 and for a T4: program (head, request, split), one query head each."""
    head, request, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_splits = tl.num_programs(2)
    INT4: tl.constexpr = data_ptr.dtype.element_ty == tl.uint8
    HALF: tl.constexpr = HEAD_DIM // 2
    WIDTH: tl.constexpr = HALF if INT4 else HEAD_DIM
    d, kv_head = tl.arange(0, HALF), head // GROUP
    q_at = q_ptr + request * q_stride + head * HEAD_DIM + d
    q_low, q_high = tl.load(q_at).to(tl.float32), tl.load(q_at + HALF).to(tl.float32)
    q_sum = tl.sum(q_low, 0) + tl.sum(q_high, 0)

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, BLOCK_T, BLOCK_T)
    row_max, row_sum = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    acc_low, acc_high = tl.zeros([1, HALF], tl.float32), tl.zeros([1, HALF], tl.float32)
    word_ptr = parameter_ptr.to(tl.pointer_type(tl.int64 if INT4 else tl.int32))
    for start in range(begin, end, BLOCK_T):
        position = start + tl.arange(0, BLOCK_T)
        known = tl.minimum(position, end - 1)
        page, offset = tl.load(table_ptr + request * table_stride + known // PAGE).to(tl.int64), known % PAGE
        code = data_ptr + page * (2 * N_KV * PAGE * WIDTH) + (kv_head * 2 * PAGE + offset) * WIDTH
        word = tl.load(word_ptr + (page * N_KV + kv_head) * PAGE + offset)
        k_low, k_high = halves(code[:, None] + d[None, :], HALF)
        k_scale, k_zero, v_scale, v_zero = scales_and_zeros(word, INT4)
        scores = tl.sum(k_low * q_low[None, :] + k_high * q_high[None, :], 1) * k_scale + q_sum * k_zero
        scores = tl.where(position < end, scores, float("-inf"))[None, :]
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)

        v_low, v_high = halves((code + PAGE * WIDTH)[:, None] + d[None, :], HALF)
        zero = tl.sum(weights * v_zero[None, :], 1)
        weights = tl.trans(weights * v_scale[None, :])
        acc_low = acc_low * decay[:, None] + tl.sum(weights * v_low, 0)[None, :] + zero[:, None]
        acc_high = acc_high * decay[:, None] + tl.sum(weights * v_high, 0)[None, :] + zero[:, None]

    o_low, lse = finish_softmax(acc_low, row_max, row_sum)
    o_high, _ = finish_softmax(acc_high, row_max, row_sum)
    out = (request * num_splits + split).to(tl.int64) * N_KV * GROUP + head + tl.arange(0, 1)
    stored = (begin < end) | (split == 0)
    o_at = o_ptr + out[:, None] * HEAD_DIM + d[None, :]
    tl.store(o_at, o_low.to(o_ptr.dtype.element_ty), mask=stored)
    tl.store(o_at + HALF, o_high.to(o_ptr.dtype.element_ty), mask=stored)
    tl.store(lse_ptr + out, lse)


# [/book]


def paged_decode_quant(
    q: Tensor,
    cache: QuantKV,
    block_table: Tensor,
    seq_lens: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    num_splits: int | None = None,
    max_seq_len: int | None = None,
    workspace: Tensor | None = None,
    out: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
    vector: bool | None = None,
    launch: dict | None = None,
) -> Tensor | State:
    """`paged_decode` over a quantized cache: the same arguments, without `chunk`, and the same results.

    Products are fp16 with float32 sums (float32 for a float32 q), so what separates the answer from full precision's is
    mostly the cache's own error. launch may also have `resident`, programs a multiprocessor, for `choose_splits`.
    Raises InputError for a q, table or lengths that do not fit the cache, or a head_dim that the kernels do not take.
    """
    _check(q, cache)
    check_one_token_each(q, block_table, seq_lens)
    check_options(window=window, num_splits=num_splits, max_seq_len=max_seq_len)
    requests, n_heads, size = q.shape
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, fp8=cache.kind == "fp8", what=f"paged_decode_quant of {cache.kind}") == "torch":
        o, lse = paged_decode_reference(q.float(), *cache.numbers(), block_table, seq_lens, window=window, scale=scale)
        return (out.copy_(o), lse) if return_lse else out.copy_(o)

    cc, page, n_kv_heads = capability(q.device), cache.page, cache.n_kv_heads
    if vector is None:
        vector = cc is not None and not (has_mma(cc) and q.dtype != torch.float32)
    kind = "decode_quant_vector" if vector else "decode_quant"
    launch = pick(kind, cc, head_dim=size, codes=cache.kind) if launch is None else dict(launch)
    resident = launch.pop("resident", 4)
    if num_splits is None:
        longest = min(max_seq_len or block_table.shape[1] * page, window or NO_WINDOW)
        programs = requests * n_kv_heads
        num_splits = choose_splits(programs, longest, multiprocessors(q.device), per_multiprocessor=resident)
    q = q if q.stride()[1:] == (size, 1) else q.contiguous()
    o, lse = room_for_states(workspace, out, num_splits)
    if requests:
        kernel = _decode_quant_vector_kernel if vector else _decode_quant_kernel
        kernel[n_heads if vector else n_kv_heads, requests, num_splits](
            q, cache.data, cache.parameters, block_table, seq_lens, o, lse, q.stride(0), block_table.stride(0),
            window or NO_WINDOW, scale * LOG2_E,
            GROUP=n_heads // n_kv_heads, N_KV=n_kv_heads, HEAD_DIM=size, PAGE=page, **launch,
        )  # fmt: skip
    if num_splits > 1:
        out, lse = merge(o, lse, out, n_heads)
    return (out, lse) if return_lse else out


def _check(q: Tensor, cache: QuantKV) -> None:
    if q.dim() != 3 or q.shape[1] % cache.n_kv_heads or q.shape[2] != cache.head_dim:
        raise InputError(
            f"q is {tuple(q.shape)}, the cache has {cache.n_kv_heads} heads of {cache.head_dim}: pass "
            "[requests, n_heads, head_dim], n_heads a multiple"
        )
    least = 64 if cache.kind == "int4" else 32  # a plane has the 16 channels that a tensor core sums over
    if q.shape[2] & (q.shape[2] - 1) or not least <= q.shape[2] <= 256:
        raise InputError(f"head_dim={q.shape[2]} in {cache.kind}: the kernels take powers of two from {least} to 256")
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"q is {q.dtype}: pass fp32, fp16 or bf16")


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is shipped for a chip: each kind of cache, for the head sizes and shapes of Llama-3 and Qwen3."""
    kinds = kinds_for(cc)
    signature = {
        "q_ptr": "*bf16", "parameter_ptr": "*fp16", "table_ptr": "*i32", "seq_lens_ptr": "*i32", "o_ptr": "*fp32",
        "lse_ptr": "*fp32", "q_stride": "i32:16", "table_stride": "i32", "window": "i32:16",
        "scale_log2": "fp32",
    }  # fmt: skip
    for vector, kernel in ((False, _decode_quant_kernel), (True, _decode_quant_vector_kernel)):
        if not (vector or has_mma(cc)):
            continue
        for kind in kinds:
            for where, launch in rules("decode_quant_vector" if vector else "decode_quant", cc):
                if kind not in where.get("codes", kinds):
                    continue
                launch = {key: value for key, value in launch.items() if key != "resident"}
                for size in sorted(where.get("head_dim", {128})):
                    yield Variant.of(
                        f"{'vector ' if vector else ''}{kind} head_dim {size}", kernel,
                        signature | {"data_ptr": TRITON_TYPES[kind], "q_ptr": "*fp32" if vector else "*bf16"}, launch,
                        () if vector else ("mma.sync", "cp.async"), GROUP=4, N_KV=8, HEAD_DIM=size, PAGE=16,
                    )  # fmt: skip


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices of "decode_quant" at head_dim 128 that are worth a try in a sweep of `labcore.kernels.tune`."""
    for (tokens, warps), stages in itertools.product(((32, 1), (32, 2), (64, 2)), (5, 7)):
        for resident in (4, 6, 8, 12):
            yield {"BLOCK_T": tokens, "resident": resident, "num_warps": warps, "num_stages": stages}
