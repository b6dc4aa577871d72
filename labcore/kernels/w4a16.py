"""x Wᵀ with a weight of 4-bit codes and 16-bit inputs: at few tokens, a quarter of the bytes in a quarter of the time.

Three kernels, by the number of tokens. One: every weight is used once, so a tensor core has nothing to share, and the
kernel is plain sums (gemv). Up to a few hundred: the weight is the LEFT operand of the product, W xᵀ, for a Hopper
tensor core takes its left operand from registers, where the codes become numbers; a right operand would first have to
be written to shared memory in 16 bits. Beyond: the arithmetic is the limit, so the weight is dequantized once and
cuBLAS multiplies.

A nibble becomes a float without a conversion instruction: put into the last bits of a number whose exponent makes
them count units. 0x4300 | q, read as bf16, is 128 + q (0x6400 | q as fp16, 1024 + q); subtracting 128 + zero is exact.

Sources: Marlin (arXiv:2408.11743: repacking, split sums), gemlite (GEMV, groups that a tile does not cross),
arXiv:2402.00025 (split-K for few tokens).
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, has_mma
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.attention_decode import multiprocessors
from labcore.kernels.w4_weight import GROUPS, W4Weight

MANY_TOKENS = 384  # from here on a dequantized copy is written once and read by cuBLAS
SPECIAL_ONE = 0x3F800000  # the bits of 1.0 in float32


def w4a16_reference(x: Tensor, w: W4Weight, bias: Tensor | None = None) -> Tensor:
    """The specification, float32: x [..., K] times the dequantized weight."""
    return F.linear(x.float(), w.dequantize(), None if bias is None else bias.float())


# [book: w4a16-gemv]
@triton.jit
def _gemv_kernel(
    x_ptr, words_ptr, scale_ptr, zero_ptr, bias_ptr, y_ptr, n, groups, one,
    GROUP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Program `p`: BLOCK_N outputs of one token. A word is four bytes of a row: eight codes of one group.

    x is read as 64-bit words of four inputs: word j of a group multiplies x[4j … 4j+3] with its low nibbles and, half a
    group on, x[g/2 + 4j …] with its high ones. One shift brings both nibbles of a byte to the top of a float's
    mantissa, where they make 16 + high (in sixteenths) and 256 + low; what 16 and 256 added is subtracted as a sum over
    x alone. `one` is the bits of 1.0, an argument because (a & constant) | constant would be two instructions.
    """
    WORDS: tl.constexpr = GROUP // 8
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    word = tl.arange(0, WORDS)[None, None, :]
    row_words = words_ptr + row[:, None, None].to(tl.int64) * (groups * WORDS)
    total = tl.zeros([BLOCK_N, BLOCK_G, WORDS], tl.float32)
    for first in tl.range(0, groups, BLOCK_G, num_stages=STAGES):
        group = first + tl.arange(0, BLOCK_G)
        real = group[None, :, None] < groups
        words = tl.load(row_words + group[None, :, None] * WORDS + word, mask=real & (row[:, None, None] < n), other=0)
        at = x_ptr + group[None, :, None] * (2 * WORDS) + word
        x_low, x_high = tl.load(at, mask=real, other=0), tl.load(at + WORDS, mask=real, other=0)
        product = tl.zeros([BLOCK_N, BLOCK_G, WORDS], tl.float32)
        surplus, inputs = tl.zeros([1, BLOCK_G, WORDS], tl.float32), tl.zeros([1, BLOCK_G, WORDS], tl.float32)
        for byte in tl.static_range(4):
            low = (x_low >> (16 * byte)).to(tl.int16).to(y_ptr.dtype.element_ty, bitcast=True).to(tl.float32)
            high = (x_high >> (16 * byte)).to(tl.int16).to(y_ptr.dtype.element_ty, bitcast=True).to(tl.float32)
            moved = words << (15 - 8 * byte) if byte < 2 else words >> (8 * byte - 15)  # to bits 15 … 22
            product += ((moved & 0x780000) | one).to(tl.float32, bitcast=True) * (high * 16)
            product += ((moved & 0x078000) | one).to(tl.float32, bitcast=True) * (low * 256)
            surplus += high * 16 + low * 256
            inputs += high + low
        at = group[None, :] * n + row[:, None]
        known = (group[None, :] < groups) & (row[:, None] < n)
        scale = tl.load(scale_ptr + at, mask=known, other=0.0).to(tl.float32)[:, :, None]
        if zero_ptr is None:
            total += scale * (product - (surplus + 8.0 * inputs))
        else:
            zero = tl.load(zero_ptr + at, mask=known, other=0).to(tl.float32)[:, :, None]
            total += scale * (product - (surplus + zero * inputs))
    y = tl.sum(tl.sum(total, 2), 1)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + row, mask=row < n, other=0.0).to(tl.float32)
    tl.store(y_ptr + row, y.to(y_ptr.dtype.element_ty), mask=row < n)


# [/book]


# [book: w4a16-gemm]
@triton.jit
def whole(nibble, zero, DTYPE: tl.constexpr):
    """code - zero, exactly, as DTYPE: uint8 below 16 in, whole numbers of at most 5 bits out."""
    if DTYPE == tl.bfloat16:
        return (nibble.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True) - (zero + 128).to(tl.bfloat16)
    elif DTYPE == tl.float16:
        return (nibble.to(tl.int16) | 0x6400).to(tl.float16, bitcast=True) - (zero + 1024).to(tl.float16)
    else:
        return nibble.to(tl.float32) - zero


@triton.jit
def _gemm_kernel(
    x_ptr, codes_ptr, scale_ptr, zero_ptr, bias_ptr, out_ptr, tokens, n, groups, share,
    GROUP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SCALE_SUMS: tl.constexpr,
):  # fmt: skip
    """Program (tile of tokens, tile of outputs, split): W xᵀ over `share` groups of K, stored [split, token, output].
    Tiles of tokens come first: they run side by side and find the codes that they share in the L2 cache.

    A step is one group: two halves, two products. SCALE_SUMS: the group's sums, of whole numbers, are added up under
    its scale; otherwise every weight is scaled and rounded to the type of x before it is multiplied.
    """
    HALF: tl.constexpr = GROUP // 2
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(2) * share
    column = tl.arange(0, HALF)
    codes_at = codes_ptr + row[:, None].to(tl.int64) * (groups * HALF) + column[None, :]  # [BLOCK_N, HALF]
    x_at = x_ptr + token[None, :].to(tl.int64) * (groups * GROUP) + column[:, None]  # [HALF, BLOCK_M]
    real, seen = row < n, (token < tokens)[None, :]
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for group in range(first, tl.minimum(first + share, groups)):
        codes = tl.load(codes_at + group * HALF, mask=real[:, None], other=0)
        x_low = tl.load(x_at + group * GROUP, mask=seen, other=0.0)
        x_high = tl.load(x_at + group * GROUP + HALF, mask=seen, other=0.0)
        scale = tl.load(scale_ptr + group * n + row, mask=real, other=0.0).to(tl.float32)[:, None]
        if zero_ptr is None:
            zero = tl.full([1, 1], 8, tl.int16)
        else:
            zero = tl.load(zero_ptr + group * n + row, mask=real, other=0).to(tl.int16)[:, None]
        low, high = whole(codes & 15, zero, DTYPE), whole(codes >> 4, zero, DTYPE)
        if SCALE_SUMS:
            sums = tl.dot(low, x_low, input_precision="ieee")
            sums += tl.dot(high, x_high, input_precision="ieee")
            total += sums * scale
        else:
            low, high = (low.to(tl.float32) * scale).to(DTYPE), (high.to(tl.float32) * scale).to(DTYPE)
            total = tl.dot(low, x_low, total, input_precision="ieee")
            total = tl.dot(high, x_high, total, input_precision="ieee")
    if bias_ptr is not None:
        total += tl.load(bias_ptr + row, mask=real, other=0.0).to(tl.float32)[:, None]
    at = (tl.program_id(2) * tokens + token[None, :]).to(tl.int64) * n + row[:, None]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), mask=real[:, None] & seen)


@triton.jit
def _add_splits_kernel(parts_ptr, bias_ptr, y_ptr, size, n, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """y = Σ parts + bias, in the order of the splits: the same bits in every run, as atomic additions are not."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts_ptr + split * size + at, mask=at < size, other=0.0)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + at % n, mask=at < size, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, total.to(y_ptr.dtype.element_ty), mask=at < size)


# [/book]


# [book: w4-dequantize]
@triton.jit
def _dequantize_kernel(codes_ptr, scale_ptr, zero_ptr, out_ptr, n, groups, GROUP: tl.constexpr, BLOCK_N: tl.constexpr):
    """Program (tile of rows, group): the weight as x's type, each number rounded once."""
    HALF: tl.constexpr = GROUP // 2
    row, group = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1)
    column, real = tl.arange(0, HALF), row < n
    at = row[:, None].to(tl.int64) * groups + group  # of a row's group
    codes = tl.load(codes_ptr + at * HALF + column[None, :], mask=real[:, None], other=0)
    scale = tl.load(scale_ptr + group * n + row, mask=real, other=0.0).to(tl.float32)[:, None]
    if zero_ptr is None:
        zero = tl.full([1, 1], 8, tl.int16)
    else:
        zero = tl.load(zero_ptr + group * n + row, mask=real, other=0).to(tl.int16)[:, None]
    out = out_ptr + at * GROUP + column[None, :]
    dtype = out_ptr.dtype.element_ty
    tl.store(out, (whole(codes & 15, zero, tl.float32) * scale).to(dtype), mask=real[:, None])
    tl.store(out + HALF, (whole(codes >> 4, zero, tl.float32) * scale).to(dtype), mask=real[:, None])


# [/book]


def w4a16_linear(
    x: Tensor, w: W4Weight, bias: Tensor | None = None, *, backend: str = "auto", launch: dict | None = None
) -> Tensor:
    """x [..., K] times w [N, K] transposed, plus bias [N]: [..., N] in the type of x (fp16, bf16 or fp32).

    Sums are in float32. The result of a token does not depend on the others as long as their number takes the same
    path. No size depends on data and nothing waits for the device, so a CUDA graph can record it; the partial sums of a
    split, and beyond MANY_TOKENS the dequantized weight, are allocated by torch inside the call. launch: launch choices
    to use in place of the table's.
    """
    n, k = w.shape
    if x.shape[-1] != k or x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise InputError(f"x is {x.dtype} {tuple(x.shape)}: the weight needs floats [..., {k}]")
    if bias is not None and (bias.shape != (n,) or not bias.is_contiguous()):
        raise InputError(f"bias has shape {tuple(bias.shape)}: pass [{n}], contiguous")
    rows = x.reshape(-1, k)
    if w.columns is not None:
        rows = rows[:, w.columns]
    rows = rows.contiguous()
    one = len(rows) == 1 and x.dtype != torch.float32
    if choose(backend, x, mma=not one, what="w4a16_linear") == "torch":
        y = F.linear(rows, w.sorted_weight().to(x.dtype), None if bias is None else bias.to(x.dtype))
    elif len(rows) == 0:
        y = rows.new_empty(0, n)
    elif one:
        y = _gemv(rows, w, bias, launch)
    elif len(rows) >= MANY_TOKENS and launch is None:
        y = F.linear(rows, dequantized(w, x.dtype), None if bias is None else bias.to(x.dtype))
    else:
        y = _gemm(rows, w, bias, launch)
    return y.view(*x.shape[:-1], n)


def _gemv(x: Tensor, w: W4Weight, bias: Tensor | None, launch: dict | None) -> Tensor:
    n, k = w.shape
    launch = pick("w4_gemv", capability(x.device), group=w.group, few_rows=n <= FEW_ROWS) if launch is None else launch
    y = x.new_empty(1, n)
    _gemv_kernel[triton.cdiv(n, launch["BLOCK_N"]),](
        x.view(torch.int64), w.data.view(torch.int32), w.scale, w.zero, bias, y, n, k // w.group, SPECIAL_ONE,
        GROUP=w.group, **launch,
    )  # fmt: skip
    return y


FEW_ROWS = 16_384  # outputs: below, smaller tiles, so that every multiprocessor gets some


def _gemm(x: Tensor, w: W4Weight, bias: Tensor | None, launch: dict | None) -> Tensor:
    tokens, n, groups = len(x), w.shape[0], w.shape[1] // w.group
    cc = capability(x.device)
    size = tile_of_tokens(tokens)
    launch = dict(pick("w4_gemm", cc, tokens=size, wide=x.dtype == torch.float32) if launch is None else launch)
    tiles = triton.cdiv(tokens, launch["BLOCK_M"]), triton.cdiv(n, launch["BLOCK_N"])
    splits = launch.pop("splits", None) or choose_splits(tiles[0] * tiles[1], groups, _slots(x.device))
    share = triton.cdiv(groups, splits)
    splits = triton.cdiv(groups, share)  # no empty ones
    y = x.new_empty(tokens, n)
    out = y if splits == 1 else x.new_empty(splits, tokens, n, dtype=torch.float32)
    _gemm_kernel[(*tiles, splits)](
        x, w.data, w.scale, w.zero, bias if splits == 1 else None, out, tokens, n, groups, share,
        GROUP=w.group, **launch,
    )  # fmt: skip
    if splits > 1:
        block = pick("w4_add_splits", cc)
        _add_splits_kernel[triton.cdiv(y.numel(), block["BLOCK"]),](
            out, bias, y, y.numel(), n, SPLITS=splits, **block
        )  # fmt: skip
    return y


def tile_of_tokens(tokens: int) -> int:
    """The BLOCK_M that a number of tokens is padded to: a power of two from 16 to 256."""
    return min(max(16, triton.next_power_of_2(tokens)), 256)


def choose_splits(tiles: int, groups: int, slots: int) -> int:
    """Into how many shares of K to divide the groups so that tiles · shares fill the GPU's slots: at most 16, and none
    of fewer than four groups, whose partial sums would cost more than they bring."""
    return max(1, min(slots // tiles, groups // 4, 16))


def _slots(device: torch.device) -> int:
    """Programs that run side by side: two on each multiprocessor."""
    return 2 * multiprocessors(device)


def dequantized(w: W4Weight, dtype: torch.dtype, *, backend: str = "auto") -> Tensor:
    """The weight [N, K] in dtype, K in order of its groups, each number rounded once."""
    if choose(backend, w.data, what="dequantized") == "torch":
        return w.sorted_weight().to(dtype)
    n, k = w.shape
    out = torch.empty(n, k, dtype=dtype, device=w.data.device)
    launch = pick("w4_dequantize", capability(out.device))
    _dequantize_kernel[triton.cdiv(n, launch["BLOCK_N"]), k // w.group](
        w.data, w.scale, w.zero, out, n, k // w.group, GROUP=w.group, **launch
    )  # fmt: skip
    return out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What this module ships for a chip."""
    weight = {"scale_ptr": "*fp16", "n": "i32:16", "groups": "i32"}
    words = {"x_ptr": "*i64", "words_ptr": "*i32", "one": "i32", "y_ptr": "*bf16", **weight}
    codes = {"x_ptr": "*bf16", "codes_ptr": "*u8", "tokens": "i32", "share": "i32", **weight}
    without = {"zero_ptr": None, "bias_ptr": None}
    for number, (_, launch) in enumerate(rules("w4_gemv", cc)):
        for group in GROUPS:
            yield Variant.of(
                f"gemv g{group} {number}", _gemv_kernel, words, launch, ("cp.async",) if has_mma(cc) else (),
                GROUP=group, **without,
            )  # fmt: skip
    zeros, name = words | {"zero_ptr": "*u8", "bias_ptr": "*bf16"}, "gemv zeros bias"
    yield Variant.of(name, _gemv_kernel, zeros, rules("w4_gemv", cc)[0][1], GROUP=GROUPS[0])
    for _, launch in rules("w4_dequantize", cc):
        dequantize = {"codes_ptr": "*u8", "out_ptr": "*bf16", **weight}
        yield Variant.of("dequantize", _dequantize_kernel, dequantize, launch, GROUP=GROUPS[0], zero_ptr=None)
    if not has_mma(cc):
        return
    tensor_core = ("wgmma", "cp.async") if cc >= (9, 0) else ("mma.sync", "cp.async")
    for number, (where, launch) in enumerate(rules("w4_gemm", cc)):
        launch = {key: value for key, value in launch.items() if key != "splits"}
        wide = where.get("wide", False)
        types = codes | {"out_ptr": "*fp32"} | ({"x_ptr": "*fp32"} if wide else {})
        for group in GROUPS:
            yield Variant.of(
                f"gemm g{group} {number}", _gemm_kernel, types, launch, () if wide else tensor_core,
                GROUP=group, **without,
            )  # fmt: skip
        asymmetric = types | {"zero_ptr": "*u8"}
        yield Variant.of(
            f"gemm zeros {number}", _gemm_kernel, asymmetric, launch, GROUP=GROUPS[0], bias_ptr=None
        )  # fmt: skip
    for _, launch in rules("w4_add_splits", cc):
        sums = {"parts_ptr": "*fp32", "y_ptr": "*bf16", "size": "i32", "n": "i32:16"}
        yield Variant.of("add splits", _add_splits_kernel, sums, launch, SPLITS=4, bias_ptr=None)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying on a Hopper GPU, for "w4_gemv" or "w4_gemm" (its tokens decide which BLOCK_M fit)."""
    if kind == "w4_gemv":
        tiles = [(16, 8, 4), (16, 16, 8), (16, 4, 2), (8, 16, 4), (8, 8, 2), (32, 8, 8), (8, 32, 8), (4, 32, 4)]
        for rows, groups, warps in tiles:
            for stages in (2, 3, 4):
                yield {"BLOCK_N": rows, "BLOCK_G": groups, "STAGES": stages, "num_warps": warps, "num_stages": 1}
        return
    tiles = [  # outputs, tokens, warps, whether sums are scaled
        (64, 16, 4, 1), (128, 16, 4, 1), (128, 16, 8, 1), (64, 32, 4, 1), (128, 32, 8, 1), (256, 32, 8, 1),
        (64, 64, 4, 1), (128, 64, 8, 1), (64, 128, 4, 1), (64, 128, 4, 0), (128, 128, 8, 1), (128, 128, 8, 0),
        (256, 128, 8, 0), (128, 256, 8, 0),
    ]  # fmt: skip
    for rows, tokens, warps, scale_sums in tiles:
        for stages in (2, 3, 4) if tokens >= 128 else (3, 4, 5):
            for splits in (1, 2) if tokens <= 64 else (1,):
                yield {
                    "BLOCK_N": rows, "BLOCK_M": tokens, "SCALE_SUMS": scale_sums, "splits": splits,
                    "num_warps": warps, "num_stages": stages,
                }  # fmt: skip
