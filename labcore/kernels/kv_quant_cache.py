"""A KV cache of INT8, FP8 or INT4 codes with a scale per token and head: what it holds, and how tokens get into it.

The numbers are those of labcore.kv's INT8 and FP8_SCALED (its scales in fp16), and of Uniform(4) with one group a head.
INT4 holds channels d and d + head_dim/2 in a byte, so taking them apart leaves two contiguous halves. Sources: KIVI,
arXiv:2402.02750; the halves of a byte, lmdeploy, pagedattention.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.fp8 import E4M3, ScaledFloat8
from labcore.formats.uniform import Uniform
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose, has_fp8
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules

KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "int4": torch.uint8}
FORMATS = {"int8": Uniform(8, symmetric=True), "fp8": ScaledFloat8(E4M3, scaled=True), "int4": Uniform(4)}
LARGEST = 2.0**14  # a head with a larger element (or NaN) is stored as NaN, as in labcore.kv
TRITON_TYPES = {"int8": "*i8", "fp8": "*fp8e4nv", "int4": "*u8"}


@dataclass(frozen=True)
class QuantKV:
    """Keys and values of one layer, paged. Within a page each head has its keys, then its values.

    data: int8 or float8_e4m3fn [pages, n_kv_heads, 2, page, head_dim], or for INT4 uint8 with head_dim / 2 bytes.
    parameters: fp16 [pages, n_kv_heads, page, 2, n]: of a token its key's scale, for INT4 (n = 2) also its zero, and
    then its value's, so that one load of 4 or 8 bytes has them all. Heads before tokens: a program reads one head, and
    finds in a row what it wants of a page. With tokens first, that would be 64 bytes here and there of INT4, in rows of
    memory that are opened again for every other head.
    """

    data: Tensor
    parameters: Tensor

    @classmethod
    def empty(cls, kind: str, pages: int, page: int, n_kv_heads: int, head_dim: int, device="cpu") -> "QuantKV":
        """Room for so many pages; nothing is initialised. kind: "int8", "fp8" or "int4"."""
        if kind not in KINDS:
            raise InputError(f"kind={kind!r}: choose {', '.join(KINDS)}")
        width, n = (head_dim // 2, 2) if kind == "int4" else (head_dim, 1)
        data = torch.empty(pages, n_kv_heads, 2, page, width, dtype=KINDS[kind], device=device)
        return cls(data, torch.empty(pages, n_kv_heads, page, 2, n, dtype=torch.float16, device=device))

    @property
    def kind(self) -> str:
        return next(kind for kind, dtype in KINDS.items() if dtype == self.data.dtype)

    @property
    def page(self) -> int:
        return self.data.shape[3]

    @property
    def n_kv_heads(self) -> int:
        return self.data.shape[1]

    @property
    def head_dim(self) -> int:
        return self.data.shape[-1] * (2 if self.kind == "int4" else 1)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.parameters.nbytes

    def numbers(self) -> Tensor:
        """What the codes stand for, float32 [2, pages, page, n_kv_heads, head_dim]: keys, then values."""
        scale, *zero = (one.float()[..., None] for one in self.parameters.transpose(2, 3).unbind(4))
        if self.kind == "int4":
            x = torch.cat((self.data & 15, self.data >> 4), -1) * scale + zero[0]
        else:
            x = self.data.float() * scale
        return x.permute(2, 0, 3, 1, 4)


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
    page, offset = slots[stored] // cache.page, slots[stored] % cache.page
    for side, new in enumerate((k, v)):
        data, parameters = quantize_heads(new[stored], cache.kind)
        cache.data[page, :, side, offset] = data
        for i, one in enumerate(parameters):
            cache.parameters[page, :, offset, side, i] = one


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
    part, N = page * N_HEADS + head, 2 if INT4 else 1
    to, parameter_at = (part * 2 + side) * PAGE + offset, ((part * PAGE + offset) * 2 + side) * N
    broken = tl.sum((tl.abs(low) <= 16384.0).to(tl.int32) + (tl.abs(high) <= 16384.0).to(tl.int32), 1) < HEAD_DIM
    least = tl.minimum(tl.min(low, 1), tl.min(high, 1))
    most = tl.maximum(tl.max(low, 1), tl.max(high, 1))
    if INT4:
        step = tl.div_rn(most - least, 15.0)
        zero = least.to(tl.float16)
        low, high = low - zero.to(tl.float32)[:, None], high - zero.to(tl.float32)[:, None]
        zero = tl.where(broken, float("nan"), zero)
        tl.store(parameter_ptr + parameter_at + 1, zero.to(tl.float16), mask=here)
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


def write_kv_quant(k: Tensor, v: Tensor, cache: QuantKV, slots: Tensor, *, backend: str = "auto") -> None:
    """Quantize k and v [tokens, n_kv_heads, head_dim], rows evenly spaced, each token into its slot; -1: nowhere.

    slots int64 [tokens], page · page_size + offset. A head with NaN, infinity or more than 16384 is stored as NaN: it
    spoils the request it belongs to and no other. Raises InputError for k, v or slots that do not fit the cache.
    """
    heads = cache.n_kv_heads, cache.head_dim
    if tuple(k.shape[1:]) != heads or k.shape != v.shape or k.dtype != v.dtype:
        raise InputError(f"k {tuple(k.shape)}, v {tuple(v.shape)}: this cache takes [tokens, {heads[0]}, {heads[1]}]")
    check_tensor("slots", slots, torch.int64, k.shape[:1])
    if choose(backend, k, fp8=cache.kind == "fp8", what="write_kv_quant") == "torch":
        return write_kv_quant_reference(k, v, cache, slots)
    if k.stride() != v.stride() or k.stride()[1:] != (heads[1], 1):
        k, v = k.contiguous(), v.contiguous()
    if len(k):
        launch = pick("write_kv_quant", capability(k.device))
        _write_kv_quant_kernel[triton.cdiv(len(k) * heads[0], launch["ROWS"]), 2](
            k, v, cache.data, cache.parameters, slots, len(k), k.stride(0),
            N_HEADS=heads[0], HEAD_DIM=heads[1], PAGE=cache.page, **launch,
        )  # fmt: skip
    return None


def kinds_for(cc: tuple[int, int]) -> list[str]:
    """The kinds of cache that a chip's kernels can read and write."""
    return [kind for kind in KINDS if kind != "fp8" or has_fp8(cc)]


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is shipped for a chip: each kind of cache, Llama 3's heads."""
    for kind in kinds_for(cc):
        yield Variant.of(
            f"write {kind}", _write_kv_quant_kernel,
            {"k_ptr": "*bf16", "v_ptr": "*bf16", "data_ptr": TRITON_TYPES[kind], "parameter_ptr": "*fp16",
             "slots_ptr": "*i64", "tokens": "i32", "stride": "i32:16"},
            rules("write_kv_quant", cc)[0][1], N_HEADS=8, HEAD_DIM=128, PAGE=16,
        )  # fmt: skip


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices of "write_kv_quant" worth a try in a sweep of `labcore.kernels.tune`."""
    yield from ({"ROWS": rows, "num_warps": warps, "num_stages": 1} for rows in (4, 8, 16, 32) for warps in (2, 4))
