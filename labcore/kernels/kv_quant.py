"""Decode attention that reads keys and values as codes: INT8, FP8 or INT4, with a scale per token and head.

A decode step is as fast as its cache can be read, so half the bytes are worth nearly twice the speed, if turning codes
into numbers costs less than reading them did. Two things see to that. No element of a key or value is multiplied by its
scale: the scale of a key multiplies its score, that of a value its weight, and a zero point, the same for a whole
head, adds (Σ q) · zero to the score. And bytes become fp16 four at a time, by placing each behind the exponent of 1024:
a permutation of bytes and a subtraction in place of conversion instructions, whose units are few.

The numbers are those of labcore.kv's INT8 and FP8_SCALED, and of Uniform(4) with one group a head. INT4 holds channels
d and d + head_dim/2 in a byte. Sources: lmdeploy, pagedattention.py; the scales on scores and weights, vLLM's and
lmdeploy's FP8 caches; the exponent of 1024, FasterTransformer's interleaved_numeric_conversion, arXiv:2211.10017.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.fp8 import E4M3, ScaledFloat8
from labcore.formats.uniform import Uniform
from labcore.kernels._compat import capability, choose, has_mma, interpreting
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.attention_decode import (
    SHORTEST_SHARE,
    State,
    choose_splits,
    merge,
    multiprocessors,
    paged_decode_reference,
    room_for_states,
    share_of,
)
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import NO_WINDOW, check_requests

KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "int4": torch.uint8}
FORMATS = {"int8": Uniform(8, symmetric=True), "fp8": ScaledFloat8(E4M3, scaled=True), "int4": Uniform(4)}
LARGEST = 2.0**14  # a head with a larger element (or NaN) is stored as NaN, as in labcore.kv
PACKED = tl.constexpr(not interpreting())  # the interpreter knows no assembly


@dataclass(frozen=True)
class QuantKV:
    """Keys and values of one layer, paged. Within a page, all keys come first, then all values.

    data: int8 or float8_e4m3fn [pages, 2, page, n_kv_heads, head_dim], or for INT4 uint8 with head_dim / 2 bytes.
    parameters: fp16 [pages, 2, n, n_kv_heads, page]: the scales, and for INT4 (n = 2) the zeros. Heads before tokens,
    so that the 16 scales a kernel wants of a page are 32 bytes in a row, one sector of memory.
    """

    data: Tensor
    parameters: Tensor

    @classmethod
    def empty(cls, kind: str, pages: int, page: int, n_kv_heads: int, head_dim: int, device="cpu") -> "QuantKV":
        """Room for so many pages; nothing is initialised. kind: "int8", "fp8" or "int4"."""
        if kind not in KINDS:
            raise InputError(f"kind={kind!r}: choose {', '.join(KINDS)}")
        width, n = (head_dim // 2, 2) if kind == "int4" else (head_dim, 1)
        data = torch.empty(pages, 2, page, n_kv_heads, width, dtype=KINDS[kind], device=device)
        return cls(data, torch.empty(pages, 2, n, n_kv_heads, page, dtype=torch.float16, device=device))

    @property
    def kind(self) -> str:
        return next(kind for kind, dtype in KINDS.items() if dtype == self.data.dtype)

    @property
    def head_dim(self) -> int:
        return self.data.shape[-1] * (2 if self.kind == "int4" else 1)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.parameters.nbytes

    def numbers(self) -> Tensor:
        """What the codes stand for, float32 [2, pages, page, n_kv_heads, head_dim]: keys, then values."""
        scale, *zero = (one.transpose(-1, -2).float()[..., None] for one in self.parameters.unbind(2))
        if self.kind == "int4":
            x = torch.cat((self.data & 15, self.data >> 4), -1) * scale + zero[0]
        else:
            x = self.data.float() * scale
        return x.transpose(0, 1)


def quantize_heads(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The specification of what is stored: x [..., head_dim] -> data [..., head_dim or half], parameters [n, ...]."""
    broken = ~(x.abs() <= LARGEST).all(-1)
    format, size = FORMATS[kind], x.shape[-1]
    x = x.float().masked_fill(broken[..., None], 0)
    if kind == "fp8":  # stored against the scale as fp16 holds it
        scale = (x.abs().amax(-1) / E4M3.max).half()
        scaled = (x / scale.float()[..., None]).nan_to_num(0.0).clamp(-E4M3.max, E4M3.max)
        return scaled.to(torch.float8_e4m3fn), scale.masked_fill(broken, torch.nan)[None]
    codes, *parameters = format.quantize(x, -1, size)
    parameters = torch.stack([one.squeeze(-1).masked_fill(broken, torch.nan) for one in parameters])
    if kind == "int8":
        return (codes.int() - format.centre).to(torch.int8), parameters
    return codes[..., : size // 2] | codes[..., size // 2 :] << 4, parameters


def write_kv_quant_reference(k: Tensor, v: Tensor, cache: QuantKV, slots: Tensor) -> None:
    """The specification of `write_kv_quant`."""
    stored = slots >= 0
    page, offset = slots[stored] // cache.data.shape[2], slots[stored] % cache.data.shape[2]
    for side, new in enumerate((k, v)):
        data, parameters = quantize_heads(new[stored], cache.kind)
        cache.data[page, side, offset] = data
        for i, one in enumerate(parameters):
            cache.parameters[page, side, i, :, offset] = one


# [book: write-kv-quant]
@triton.jit
def _write_kv_quant_kernel(
    k_ptr, v_ptr, data_ptr, parameter_ptr, slots_ptr, tokens, stride,
    N_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Program (rows, side): ROWS (token, head) pairs of the keys or of the values, a pair a row of the tile."""
    INT4: tl.constexpr = data_ptr.dtype.element_ty == tl.uint8
    HALF: tl.constexpr = HEAD_DIM // 2
    side = tl.program_id(1)
    pair = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token, head = pair // N_HEADS, pair % N_HEADS
    slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)  # int64
    here = slot >= 0
    new_ptr = k_ptr if side == 0 else v_ptr
    d = tl.arange(0, HALF)
    at = (token.to(tl.int64) * stride + head * HEAD_DIM)[:, None] + d[None, :]
    low = tl.load(new_ptr + at, mask=here[:, None], other=0.0).to(tl.float32)  # the lower half of the channels
    high = tl.load(new_ptr + at + HALF, mask=here[:, None], other=0.0).to(tl.float32)

    page, offset = slot // PAGE, slot % PAGE
    to = ((page * 2 + side) * PAGE + offset) * N_HEADS + head
    N: tl.constexpr = 2 if INT4 else 1
    parameter_at = ((page * 2 + side) * N * N_HEADS + head) * PAGE + offset
    broken = tl.sum((tl.abs(low) <= 16384.0).to(tl.int32) + (tl.abs(high) <= 16384.0).to(tl.int32), 1) < HEAD_DIM
    least = tl.minimum(tl.min(low, 1), tl.min(high, 1))
    most = tl.maximum(tl.max(low, 1), tl.max(high, 1))
    if INT4:
        step = tl.div_rn(most - least, 15.0)
        zero = least.to(tl.float16)
        low, high = low - zero.to(tl.float32)[:, None], high - zero.to(tl.float32)[:, None]
        zero = tl.where(broken, float("nan"), zero)
        tl.store(parameter_ptr + parameter_at + N_HEADS * PAGE, zero.to(tl.float16), mask=here)
    else:
        LIMIT: tl.constexpr = 127.0 if data_ptr.dtype.element_ty == tl.int8 else 448.0
        step = tl.div_rn(tl.maximum(most, -least), tl.full([ROWS], LIMIT, tl.float32))
    step = step.to(tl.float16)
    tl.store(parameter_ptr + parameter_at, tl.where(broken, float("nan"), step).to(tl.float16), mask=here)
    step = step.to(tl.float32)
    low, high = in_steps(low, step, broken), in_steps(high, step, broken)
    if INT4:
        low, high = round_to_even(tl.clamp(low, 0.0, 15.0)), round_to_even(tl.clamp(high, 0.0, 15.0))
        code = low.to(tl.int32) | (high.to(tl.int32) << 4)
        tl.store(data_ptr + to[:, None] * HALF + d[None, :], code.to(tl.uint8), mask=here[:, None])
    else:
        low, high = tl.clamp(low, -LIMIT, LIMIT), tl.clamp(high, -LIMIT, LIMIT)
        if data_ptr.dtype.element_ty == tl.int8:
            low, high = round_to_even(low).to(tl.int32), round_to_even(high).to(tl.int32)
        to = data_ptr + to[:, None] * HEAD_DIM + d[None, :]
        tl.store(to, low.to(data_ptr.dtype.element_ty), mask=here[:, None])
        tl.store(to + HALF, high.to(data_ptr.dtype.element_ty), mask=here[:, None])


@triton.jit
def in_steps(x, step, broken):
    """x [rows, columns] in steps of its row; a row that cannot be stored counts as zeros. Zeros are 0 even of 0."""
    steps = tl.div_rn(x, step[:, None] + tl.zeros_like(x))
    return tl.where((x == 0) | broken[:, None], 0.0, steps)


@triton.jit
def round_to_even(x):
    """The nearest integer, for |x| < 2²²: 1.5 · 2²³ leaves no bits below the units."""
    return (x + 12582912.0) - 12582912.0


# [/book]


# [book: codes-to-half]
@triton.jit
def planes(pair, CODE: tl.constexpr, KIND: tl.constexpr):
    """Two bytes of codes an element, int16, as numbers: (first, second) bytes, of INT4 (low, low, high, high) nibbles.

    So a product over the channels is a sum of products, one a plane. Sixteen bits is the least that the chip can
    transpose between shared memory and tensor cores; with single bytes every value took a read of its own. 0x6400 | c
    is the fp16 number 1024 + c, ulps up there being ones; INT4 comes as code - 8.
    """
    if PACKED and KIND == tl.float16:
        if CODE == tl.uint8:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 w, x, y, z;
                mov.b32 x, 0x64086408;  // 1032, twice
                mov.b32 y, 0x2C002C00;  // 1/16
                mov.b32 z, 0xD480D480;  // -72
                shr.u32 w, $4, 8;
                lop3.b32 $0, $4, 0x000F000F, 0x64006400, 0xEA;  // (a & b) | c
                lop3.b32 $1, w, 0x000F000F, 0x64006400, 0xEA;
                lop3.b32 $2, $4, 0x00F000F0, 0x64006400, 0xEA;
                lop3.b32 $3, w, 0x00F000F0, 0x64006400, 0xEA;
                sub.rn.f16x2 $0, $0, x;
                sub.rn.f16x2 $1, $1, x;
                fma.rn.f16x2 $2, $2, y, z;
                fma.rn.f16x2 $3, $3, y, z;
                }""",
                "=&r,=&r,=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
                is_pure=True, pack=2,
            )  # fmt: skip
        elif CODE == tl.int8:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 v, w, x;
                mov.b32 x, 0x64806480;  // 1152, twice
                xor.b32 v, $2, 0x80808080;
                shr.u32 w, v, 8;
                lop3.b32 $0, v, 0x00FF00FF, 0x64006400, 0xEA;
                lop3.b32 $1, w, 0x00FF00FF, 0x64006400, 0xEA;
                sub.rn.f16x2 $0, $0, x;
                sub.rn.f16x2 $1, $1, x;
                }""",
                "=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
            )  # fmt: skip
        else:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 w;
                .reg .b16 first, second;
                prmt.b32 w, $2, 0, 0x3120;
                mov.b32 {first, second}, w;
                cvt.rn.f16x2.e4m3x2 $0, first;
                cvt.rn.f16x2.e4m3x2 $1, second;
                }""",
                "=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
            )  # fmt: skip
    else:
        first, second = (pair & 255).to(tl.uint8), ((pair >> 8) & 255).to(tl.uint8)
        if CODE == tl.uint8:
            numbers = (
                ((first & 15).to(tl.int32) - 8).to(KIND), ((second & 15).to(tl.int32) - 8).to(KIND),
                ((first >> 4).to(tl.int32) - 8).to(KIND), ((second >> 4).to(tl.int32) - 8).to(KIND),
            )  # fmt: skip
        else:
            numbers = (first.to(CODE, bitcast=True).to(KIND), second.to(CODE, bitcast=True).to(KIND))
    return numbers


@triton.jit
def sum_of_products(q, keys):
    """The sum over planes of q · keysᵀ: scores [rows, tokens]."""
    scores = tl.dot(q[0], tl.trans(keys[0]), input_precision="ieee")
    scores += tl.dot(q[1], tl.trans(keys[1]), input_precision="ieee")
    if len(keys) == 4:
        scores += tl.dot(q[2], tl.trans(keys[2]), input_precision="ieee")
        scores += tl.dot(q[3], tl.trans(keys[3]), input_precision="ieee")
    return scores


@triton.jit
def add_products(acc, decay, weights, values):
    """decay · acc + weights · values, plane by plane."""
    first = tl.dot(weights, values[0], acc[0] * decay, input_precision="ieee")
    second = tl.dot(weights, values[1], acc[1] * decay, input_precision="ieee")
    if len(values) == 2:
        result = (first, second)
    else:
        third = tl.dot(weights, values[2], acc[2] * decay, input_precision="ieee")
        result = (first, second, third, tl.dot(weights, values[3], acc[3] * decay, input_precision="ieee"))
    return result


# [/book]


# [book: decode-quant]
@triton.jit
def _decode_quant_kernel(
    q_ptr, data_ptr, parameter_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, q_stride, table_stride,
    window, scale_log2,
    GROUP: tl.constexpr, N_KV: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Program (kv_head, request, split), as in `_decode_kernel`; every matrix as planes of its channels."""
    kv_head, request, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_splits = tl.num_programs(2)
    CODE: tl.constexpr = data_ptr.dtype.element_ty
    INT4: tl.constexpr = data_ptr.dtype.element_ty == tl.uint8
    KIND: tl.constexpr = tl.float32 if q_ptr.dtype.element_ty == tl.float32 else tl.float16
    HALF: tl.constexpr = HEAD_DIM // 2
    WIDTH: tl.constexpr = HALF if INT4 else HEAD_DIM  # bytes of a head
    N: tl.constexpr = 2 if INT4 else 1  # parameters of a head
    LIFT: tl.constexpr = 16.0 if INT4 else 256.0  # lifts weights · scale out of fp16's subnormals, below its largest
    ROWS: tl.constexpr = max(16, triton.next_power_of_2(GROUP))
    row, pair = tl.arange(0, ROWS), tl.arange(0, WIDTH // 2)
    real = row < GROUP
    head = kv_head * GROUP + row
    q_at = q_ptr + request * q_stride + head[:, None] * HEAD_DIM
    whole = tl.load(q_at + tl.arange(0, HEAD_DIM)[None, :], mask=real[:, None], other=0.0).to(tl.float32)
    size = tl.max(tl.abs(whole), 1)
    size = tl.where(size > 0, size, 1.0)  # queries are divided by it: bf16 has more range than fp16
    q_sum = tl.sum((whole / size[:, None]).to(KIND).to(tl.float32), 1)
    q_at += 2 * pair[None, :]
    q = (query_plane(q_at, size, real, KIND), query_plane(q_at + 1, size, real, KIND))
    if INT4:
        q += (query_plane(q_at + HALF, size, real, KIND), query_plane(q_at + HALF + 1, size, real, KIND))

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, BLOCK_T, BLOCK_T)
    row_max, row_sum = tl.full([ROWS], float("-inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    pair_ptr = data_ptr.to(tl.pointer_type(tl.int16))
    nothing = tl.zeros([ROWS, WIDTH // 2], tl.float32)
    acc = (nothing, nothing, nothing, nothing) if INT4 else (nothing, nothing)
    acc_zero = tl.zeros([ROWS, BLOCK_T], tl.float32)  # summed over the tokens of a tile at the very end
    table = table_ptr + request * table_stride
    parameter_ptr += kv_head * PAGE
    # scales are too small for asynchronous copies: what a tile needs was asked for while the one before was computed
    now = parameters_of(parameter_ptr, pages_of(table, begin, end, PAGE, BLOCK_T), begin, end, N, N_KV, PAGE)
    ahead = pages_of(table, begin + BLOCK_T, end, PAGE, BLOCK_T)
    for start in range(begin, end, BLOCK_T):
        coming = parameters_of(parameter_ptr, ahead, start + BLOCK_T, end, N, N_KV, PAGE)
        ahead = pages_of(table, start + 2 * BLOCK_T, end, PAGE, BLOCK_T)
        position = start + tl.arange(0, BLOCK_T)
        known = tl.minimum(position, end - 1)  # past the end the last key again: unowned slots may hold NaN
        page, offset = tl.load(table + known // PAGE).to(tl.int64), known % PAGE
        k_at = pair_ptr + page * (PAGE * N_KV * WIDTH) + (offset * N_KV + kv_head) * (WIDTH // 2)
        k_at = k_at[:, None] + pair[None, :]  # [BLOCK_T, WIDTH / 2]
        scores = sum_of_products(q, planes(tl.load(k_at), CODE, KIND))  # [ROWS, BLOCK_T]
        scale, zero = scale_and_zero(now[0], now[1], INT4)
        scores = (scores * scale[None, :] + q_sum[:, None] * zero[None, :]) * size[:, None]
        scores = tl.where((position < end)[None, :], scores, float("-inf"))
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)

        values = planes(tl.load(k_at + PAGE * N_KV * (WIDTH // 2)), CODE, KIND)  # behind the keys of their page
        scale, zero = scale_and_zero(now[2], now[3], INT4)
        if INT4:
            acc_zero = acc_zero * decay[:, None] + weights * zero[None, :]
        weights = (weights * (scale * LIFT)[None, :]).to(KIND)
        acc = add_products(acc, decay[:, None], weights, values)
        now = coming

    zero = tl.sum(acc_zero, 1)[:, None]
    out = (request * num_splits + split).to(tl.int64) * N_KV * GROUP + head
    stored = (real & ((begin < end) | (split == 0)))[:, None]
    o_at = o_ptr + out[:, None] * HEAD_DIM + 2 * pair[None, :]
    for i in tl.static_range(4 if INT4 else 2):
        o, lse = finish_softmax(acc[i] / LIFT + zero, row_max, row_sum)
        tl.store(o_at + i % 2 + i // 2 * HALF, o.to(o_ptr.dtype.element_ty), mask=stored)
    tl.store(lse_ptr + out, lse, mask=real)


@triton.jit
def query_plane(q_at, size, real, KIND: tl.constexpr):
    """Every other channel of the queries, of magnitude 1 at most."""
    return (tl.load(q_at, mask=real[:, None], other=0.0).to(tl.float32) / size[:, None]).to(KIND)


@triton.jit
def pages_of(table, start, end, PAGE: tl.constexpr, BLOCK_T: tl.constexpr):
    """Pages int32 of the tile of tokens from `start` on; past the end, the last token's. None are read of no tokens."""
    known = tl.maximum(tl.minimum(start + tl.arange(0, BLOCK_T), end - 1), 0)
    return tl.load(table + known // PAGE, mask=known < end, other=0)


@triton.jit
def parameters_of(at, page, start, end, N: tl.constexpr, N_KV: tl.constexpr, PAGE: tl.constexpr):
    """(scale, zero) of the keys and (scale, zero) of the values, fp16, of the tile from `start` on, on these pages."""
    known = tl.maximum(tl.minimum(start + tl.arange(0, page.shape[0]), end - 1), 0)
    at += page.to(tl.int64) * (2 * N * N_KV * PAGE) + known % PAGE
    some = known < end
    k_scale = tl.load(at, mask=some, other=0.0)
    v_scale = tl.load(at + N * N_KV * PAGE, mask=some, other=0.0)
    k_zero, v_zero = k_scale, v_scale  # unused but for INT4
    if N == 2:
        k_zero = tl.load(at + N_KV * PAGE, mask=some, other=0.0)
        v_zero = tl.load(at + 3 * N_KV * PAGE, mask=some, other=0.0)
    return k_scale, k_zero, v_scale, v_zero


@triton.jit
def scale_and_zero(scale, zero, INT4: tl.constexpr):
    """fp32 scale and zero of tokens: a number is code · scale + zero, INT4's codes less 8."""
    scale, zero = scale.to(tl.float32), zero.to(tl.float32)
    zero = zero + 8 * scale if INT4 else tl.zeros_like(scale)
    return scale, zero


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
    N: tl.constexpr = 2 if INT4 else 1
    d, kv_head = tl.arange(0, HALF), head // GROUP
    q_at = q_ptr + request * q_stride + head * HEAD_DIM + d
    q_low, q_high = tl.load(q_at).to(tl.float32), tl.load(q_at + HALF).to(tl.float32)
    q_sum = tl.sum(q_low, 0) + tl.sum(q_high, 0)

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, BLOCK_T, BLOCK_T)
    row_max, row_sum = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    acc_low, acc_high = tl.zeros([1, HALF], tl.float32), tl.zeros([1, HALF], tl.float32)
    for start in range(begin, end, BLOCK_T):
        position = start + tl.arange(0, BLOCK_T)
        known = tl.minimum(position, end - 1)
        page, offset = tl.load(table_ptr + request * table_stride + known // PAGE).to(tl.int64), known % PAGE
        code = data_ptr + page * (2 * PAGE * N_KV * WIDTH) + (offset * N_KV + kv_head) * WIDTH
        now = parameters_of(parameter_ptr + kv_head * PAGE, page, start, end, N, N_KV, PAGE)
        k_low, k_high = halves(code[:, None] + d[None, :], HALF)
        k_scale, k_zero = scale_and_zero(now[0], now[1], INT4)
        scores = tl.sum(k_low * q_low[None, :] + k_high * q_high[None, :], 1) * k_scale + q_sum * k_zero
        scores = tl.where(position < end, scores, float("-inf"))[None, :]
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)

        v_low, v_high = halves((code + PAGE * N_KV * WIDTH)[:, None] + d[None, :], HALF)
        v_scale, v_zero = scale_and_zero(now[2], now[3], INT4)
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


def write_kv_quant(k: Tensor, v: Tensor, cache: QuantKV, slots: Tensor, *, backend: str = "auto") -> None:
    """Quantize k and v [tokens, n_kv_heads, head_dim], rows evenly spaced, each token into its slot; -1: nowhere.

    slots int64 [tokens], page · page_size + offset. A head with NaN, infinity or more than 16384 is stored as NaN: it
    spoils the request it belongs to and no other.
    """
    heads = cache.data.shape[3], cache.head_dim
    if tuple(k.shape[1:]) != heads or k.shape != v.shape or k.dtype != v.dtype:
        raise InputError(f"k {tuple(k.shape)}, v {tuple(v.shape)}: this cache takes [tokens, {heads[0]}, {heads[1]}]")
    if slots.shape != k.shape[:1] or slots.dtype != torch.int64 or not slots.is_contiguous():
        raise InputError(f"slots is {slots.dtype} {tuple(slots.shape)}: pass int64 [{len(k)}], one slot per token")
    if choose(backend, k, fp8=cache.kind == "fp8", what="write_kv_quant") == "torch":
        return write_kv_quant_reference(k, v, cache, slots)
    if k.stride() != v.stride() or k.stride()[1:] != (heads[1], 1):
        k, v = k.contiguous(), v.contiguous()
    if len(k):
        launch = pick("write_kv_quant", capability(k.device))
        _write_kv_quant_kernel[triton.cdiv(len(k) * heads[0], launch["ROWS"]), 2](
            k, v, cache.data, cache.parameters, slots, len(k), k.stride(0),
            N_HEADS=heads[0], HEAD_DIM=heads[1], PAGE=cache.data.shape[2], **launch,
        )  # fmt: skip
    return None


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
    """`paged_decode` over a quantized cache: the same arguments, splits and results.

    The arithmetic is fp16 with float32 sums (float32 for a float32 q), so what separates the answer from full
    precision's is the cache's own error.
    """
    _check(q, cache)
    check_requests(q, block_table, seq_lens=seq_lens)
    if not len(q) == len(block_table) == len(seq_lens):
        raise InputError(
            f"{len(q)} queries, {len(block_table)} tables, {len(seq_lens)} lengths: one of each per request"
        )
    requests, n_heads, size = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    if choose(backend, q, fp8=cache.kind == "fp8", what=f"paged_decode_quant of {cache.kind}") == "torch":
        o, lse = paged_decode_reference(q.float(), *cache.numbers(), block_table, seq_lens, window=window, scale=scale)
        return (out.copy_(o), lse) if return_lse else out.copy_(o)

    cc, page, n_kv_heads = capability(q.device), *cache.data.shape[2:4]
    if vector is None:
        vector = cc is not None and not (has_mma(cc) and q.dtype != torch.float32)
    kind = "decode_quant_vector" if vector else "decode_quant"
    launch = pick(kind, cc, head_dim=size, codes=cache.kind) if launch is None else launch
    if num_splits is None:
        longest = min(max_seq_len or block_table.shape[1] * page, window or NO_WINDOW)
        num_splits = choose_splits(requests * n_kv_heads, longest, multiprocessors(q.device), least=SHORTEST_SHARE)
    q = q if q.stride()[1:] == (size, 1) else q.contiguous()
    if num_splits > 1:
        o, lse = room_for_states(workspace, q, num_splits)
    else:
        o, lse = out, torch.empty(requests, n_heads, dtype=torch.float32, device=q.device)
    if requests:
        kernel = _decode_quant_vector_kernel if vector else _decode_quant_kernel
        kernel[n_heads if vector else n_kv_heads, requests, num_splits](
            q, cache.data, cache.parameters, block_table, seq_lens, o, lse, q.stride(0), block_table.stride(0),
            window or NO_WINDOW, (scale or size**-0.5) * LOG2_E,
            GROUP=n_heads // n_kv_heads, N_KV=n_kv_heads, HEAD_DIM=size, PAGE=page, **launch,
        )  # fmt: skip
    if num_splits > 1:
        out, lse = merge(o, lse, out, n_heads)
    return (out, lse) if return_lse else out


def _check(q: Tensor, cache: QuantKV) -> None:
    if q.dim() != 3 or q.shape[1] % cache.data.shape[3] or q.shape[2] != cache.head_dim:
        raise InputError(
            f"q is {tuple(q.shape)}, the cache has {cache.data.shape[3]} heads of {cache.head_dim}: pass "
            "[requests, n_heads, head_dim], n_heads a multiple"
        )
    least = 64 if cache.kind == "int4" else 32  # a plane has the 16 channels that a tensor core sums over
    if q.shape[2] & (q.shape[2] - 1) or not least <= q.shape[2] <= 256:
        raise InputError(f"head_dim={q.shape[2]} in {cache.kind}: the kernels take powers of two from {least} to 256")
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"q is {q.dtype}: pass fp32, fp16 or bf16")


TRITON_TYPES = {"int8": "*i8", "fp8": "*fp8e4nv", "int4": "*u8"}


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is shipped for a chip: each kind of cache, for the head sizes and shapes of Llama-3 and Qwen3."""
    kinds = [kind for kind in KINDS if kind != "fp8" or cc >= (8, 9)]
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
                for size in sorted(where.get("head_dim", {128})):
                    yield Variant.of(
                        f"{'vector ' if vector else ''}{kind} head_dim {size}", kernel,
                        signature | {"data_ptr": TRITON_TYPES[kind], "q_ptr": "*fp32" if vector else "*bf16"}, launch,
                        () if vector else ("mma.sync", "cp.async"), GROUP=4, N_KV=8, HEAD_DIM=size, PAGE=16,
                    )  # fmt: skip
    for kind in kinds:
        yield Variant.of(
            f"write {kind}", _write_kv_quant_kernel,
            {"k_ptr": "*bf16", "v_ptr": "*bf16", "data_ptr": TRITON_TYPES[kind], "parameter_ptr": "*fp16",
             "slots_ptr": "*i64", "tokens": "i32", "stride": "i32:16"},
            rules("write_kv_quant", cc)[0][1], N_HEADS=8, HEAD_DIM=128, PAGE=16,
        )  # fmt: skip


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth a try in a sweep of `labcore.kernels.tune`."""
    if kind == "write_kv_quant":
        yield from ({"ROWS": rows, "num_warps": warps, "num_stages": 1} for rows in (4, 8, 16, 32) for warps in (2, 4))
        return
    for tokens, warps, stages in itertools.product((32, 64, 128), (2, 4, 8), (5, 7)):
        if 8 <= tokens // warps <= 32:  # a warp's share of a tile
            yield {"BLOCK_T": tokens, "num_warps": warps, "num_stages": stages}
