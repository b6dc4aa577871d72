"""x Wᵀ with a weight of 4-bit codes and 16-bit inputs: a quarter of the bytes, and what unpacking them costs.

Three kernels, by the number of tokens. One: every weight is used once, so a tensor core has nothing to share, and plain
sums do (gemv). Up to a few hundred: the weight is the LEFT operand of the product, W xᵀ, for a Hopper tensor core takes
its left operand from registers, where the codes become numbers; a right operand would first have to be written to
shared memory in 16 bits. Beyond: the arithmetic is the limit, so the weight is dequantized once and cuBLAS multiplies.

Between memory and product every weight costs instructions: four and a half in the first, two to four in the second
(Triton 3.6, sm_90), one to two of them on integer units, which on Hopper have half the rate of the others. Hence the
layout, in which one instruction unpacks two codes, and hence sums that are scaled instead of weights. And hence one
token, too, takes the second kernel on Hopper: its multiplications would stand in line with those instructions.

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
from labcore.kernels._compat import capability, choose, has_mma, multiprocessors
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.w4_weight import GROUPS, SHORTEST, TILE, W4Weight

MANY_TOKENS = 512  # from here on a dequantized copy is written once and read by cuBLAS
FEW_ROWS = 16_384  # outputs of few tokens: up to here smaller tiles, so that every multiprocessor gets some
ROWS = tl.constexpr(TILE)  # side by side in a weight
BITS_OF_ONE = 0x3F800000  # of 1.0 in float32


def w4a16_reference(x: Tensor, w: W4Weight, bias: Tensor | None = None) -> Tensor:
    """The specification, float32: x [..., K] times the dequantized weight."""
    return F.linear(x.float(), w.dequantize(), None if bias is None else bias.float())


# [book: w4a16-gemv]
@triton.jit
def scale_of(grid):
    """The scales, float32, of numbers of `W4Weight.grid`. [..] like `grid`."""
    return grid.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def first_word(row, stretches, WIDTH: tl.constexpr):
    """Where rows begin in `W4Weight.data`, in words of which a stretch of a row has WIDTH. int64 [..] like `row`."""
    return (row // ROWS).to(tl.int64) * (stretches * ROWS * WIDTH) + row % ROWS * WIDTH


@triton.jit
def _gemv_kernel(
    x_ptr, words_ptr, grid_ptr, bias_ptr, y_ptr, n, stretches, one,
    GROUP: tl.constexpr, STRETCH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Program `p`: BLOCK_N outputs of one token, BLOCK_S stretches at a time.

    Two neighbouring words of a row are read as one of 32 bits, and so are the two inputs that each of its four quarters
    multiplies. One shift brings both nibbles of a byte to the top of a float's mantissa, where they make 16 + high (in
    sixteenths) and 256 + low; what 16 and 256 added is subtracted as a sum over x alone. `one` is the bits of 1.0, an
    argument because (a & constant) | constant would be two instructions.
    """
    PAIRS: tl.constexpr = STRETCH // 8
    PARTS: tl.constexpr = STRETCH // GROUP  # groups in a stretch: the second of two has the odd bytes
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    pair = tl.arange(0, PAIRS)[None, None, :]
    row_words = words_ptr + first_word(row, stretches, PAIRS)[:, None, None]
    total = tl.zeros([BLOCK_N, BLOCK_S, PAIRS], tl.float32)
    for first in tl.range(0, stretches, BLOCK_S, num_stages=STAGES):
        stretch = first + tl.arange(0, BLOCK_S)
        real = stretch[None, :, None] < stretches
        at = row_words + stretch[None, :, None] * (ROWS * PAIRS) + pair
        words = tl.load(at, mask=real & (row[:, None, None] < n), other=0)
        at = x_ptr + stretch[None, :, None] * (4 * PAIRS) + pair
        x_0, x_1 = tl.load(at, mask=real, other=0), tl.load(at + PAIRS, mask=real, other=0)
        x_2, x_3 = tl.load(at + 2 * PAIRS, mask=real, other=0), tl.load(at + 3 * PAIRS, mask=real, other=0)
        at = grid_ptr + (stretch * PARTS)[None, :] * n + row[:, None]
        known = (stretch[None, :] < stretches) & (row < n)[:, None]
        grid_0, grid_1 = tl.load(at, mask=known, other=0), tl.load(at + (PARTS - 1) * n, mask=known, other=0)
        for part in tl.static_range(PARTS):
            product = tl.zeros([BLOCK_N, BLOCK_S, PAIRS], tl.float32)
            surplus, inputs = tl.zeros([1, BLOCK_S, PAIRS], tl.float32), tl.zeros([1, BLOCK_S, PAIRS], tl.float32)
            for byte in tl.static_range(part, 4, PARTS):
                low, high = (x_0, x_1) if byte % 2 == 0 else (x_2, x_3)
                low = (low >> (byte // 2 * 16)).to(tl.int16).to(y_ptr.dtype.element_ty, bitcast=True).to(tl.float32)
                high = (high >> (byte // 2 * 16)).to(tl.int16).to(y_ptr.dtype.element_ty, bitcast=True).to(tl.float32)
                moved = words << (15 - 8 * byte) if byte < 2 else words >> (8 * byte - 15)  # to bits 15 … 22
                product += ((moved & 0x780000) | one).to(tl.float32, bitcast=True) * (high * 16)
                product += ((moved & 0x078000) | one).to(tl.float32, bitcast=True) * (low * 256)
                surplus += high * 16 + low * 256
                inputs += high + low
            grid = grid_0 if part == 0 else grid_1
            zero = (grid >> 16).to(tl.float32)[:, :, None]
            total += scale_of(grid)[:, :, None] * (product - (surplus + zero * inputs))
    y = tl.sum(tl.sum(total, 2), 1)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + row, mask=row < n, other=0.0).to(tl.float32)
    tl.store(y_ptr + row, y.to(y_ptr.dtype.element_ty), mask=row < n)


# [/book]


# [book: w4a16-gemm]
_PTX = (
    "{ .reg .b32 t; "
    + " ".join(f"shr.u32 t, $4, {4 * plane}; lop3.b32 ${plane}, t, 0x000f000f, MAGIC, 0xea;" for plane in range(4))
    + " }"
)  # (t & mask) | magic for two codes at once: 0xea is the table of (a & b) | c
BF16_PLANES = tl.constexpr(_PTX.replace("MAGIC", "0x43004300"))
FP16_PLANES = tl.constexpr(_PTX.replace("MAGIC", "0x64006400"))


@triton.jit
def unpack(words, DTYPE: tl.constexpr, PTX: tl.constexpr):
    """The four quarters of words (int16), as DTYPE: code + 128 in bf16, code + 1024 in fp16, the code in fp32.

    PTX says the same in the GPU's words, two codes at a time: the compiler shifts 16-bit numbers one by one.
    """
    if PTX and DTYPE == tl.bfloat16:
        return tl.inline_asm_elementwise(
            BF16_PLANES, "=r,=r,=r,=r,r", [words], (tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16), True, 2
        )
    elif PTX:
        return tl.inline_asm_elementwise(
            FP16_PLANES, "=r,=r,=r,=r,r", [words], (tl.float16, tl.float16, tl.float16, tl.float16), True, 2
        )
    else:
        return (
            lifted(words & 15, DTYPE), lifted((words >> 4) & 15, DTYPE),
            lifted((words >> 8) & 15, DTYPE), lifted((words >> 12) & 15, DTYPE),
        )  # fmt: skip


@triton.jit
def lifted(code, DTYPE: tl.constexpr):
    """A code (int16, below 16) as the last bits of a number whose units they count."""
    if DTYPE == tl.bfloat16:
        return (code | 0x4300).to(tl.bfloat16, bitcast=True)
    elif DTYPE == tl.float16:
        return (code | 0x6400).to(tl.float16, bitcast=True)
    else:
        return code.to(tl.float32)


@triton.jit
def less_zero(lifted_codes, grid, DTYPE: tl.constexpr):
    """Codes minus their zero, of numbers of `W4Weight.grid`: -16 … 15, exact in every type. [rows, columns]"""
    return lifted_codes - lifted((grid >> 16).to(tl.int16), DTYPE)[:, None]


@triton.jit
def beside(left, right):
    """[rows, K] twice as [rows, 2K]: where registers hold it changes its name, and nothing moves."""
    return tl.join(left, right).permute(0, 2, 1).reshape(left.shape[0], 2 * left.shape[1])


@triton.jit(do_not_specialize=["tokens", "stretches", "share"])  # one program for any number of tokens
def _gemm_kernel(
    x_ptr, words_ptr, grid_ptr, bias_ptr, out_ptr, tokens, n, stretches, share,
    GROUP: tl.constexpr, STRETCH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    JOIN: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Program (tile of tokens, tile of outputs, split): W xᵀ over `share` stretches of K, into [split, token, output].

    Tiles of tokens come first: they run side by side and find the codes that they share in the L2 cache. JOIN: a group
    is one product, otherwise a quarter is. A group's sums, of whole numbers, are added up under its scale, so a product
    has ended before the next stretch is unpacked. (With scaled weights it could go on meanwhile, but ptxas before CUDA
    13.3, such as Triton 3.6 and 3.7 bring, gives its registers away too early, triton-lang/triton issue 9433: on an
    H200 results were wrong.) Rows and tokens that do not exist are read as the last one, and not stored: a mask would
    cost every copy some instructions.
    """
    QUARTER: tl.constexpr = STRETCH // 4
    WIDTH: tl.constexpr = GROUP if JOIN else QUARTER  # columns of a product
    PARTS: tl.constexpr = STRETCH // GROUP
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(2) * share
    last = tl.minimum(first + share, stretches)
    real = tl.minimum(row, n - 1)
    words_at = words_ptr + first_word(real, stretches, QUARTER)[:, None] + tl.arange(0, QUARTER)[None, :]
    x_at = x_ptr + tl.minimum(token, tokens - 1)[None, :].to(tl.int64) * (stretches * STRETCH)
    x_at += tl.arange(0, WIDTH)[:, None]
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    tl.assume(first < last)  # if the loop might not run, the compiler would wait for each product before the next
    for stretch in range(first, last):
        words = tl.load(words_at + stretch * (ROWS * QUARTER))
        grid_at = grid_ptr + stretch * PARTS * n + real
        grids = (tl.load(grid_at), tl.load(grid_at + (PARTS - 1) * n))  # of the first half and of the second
        w_0, w_1, w_2, w_3 = unpack(words, DTYPE, PTX)
        w_0, w_1 = less_zero(w_0, grids[0], DTYPE), less_zero(w_1, grids[0], DTYPE)
        w_2, w_3 = less_zero(w_2, grids[1], DTYPE), less_zero(w_3, grids[1], DTYPE)
        if not JOIN:
            pieces = (w_0, w_1, w_2, w_3)
        elif PARTS == 1:
            pieces = (beside(beside(w_0, w_1), beside(w_2, w_3)),)
        else:
            pieces = (beside(w_0, w_1), beside(w_2, w_3))
        sums = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
        for piece in tl.static_range(STRETCH // WIDTH):
            x = tl.load(x_at + stretch * STRETCH + piece * WIDTH)
            sums += tl.dot(pieces[piece], x, input_precision="ieee")
            if (piece + 1) * WIDTH % GROUP == 0:
                total += sums * scale_of(grids[piece * WIDTH // GROUP])[:, None]
                sums = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + real).to(tl.float32)[:, None]
    at = (tl.program_id(2) * tokens + token[None, :]).to(tl.int64) * n + row[:, None]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), mask=(row < n)[:, None] & (token < tokens)[None, :])


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
def _dequantize_kernel(
    words_ptr, grid_ptr, out_ptr, n, stretches,
    GROUP: tl.constexpr, STRETCH: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (tile of rows, stretch): the weight as x's type, each number rounded once."""
    QUARTER: tl.constexpr = STRETCH // 4
    row, stretch = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1)
    column, real = tl.arange(0, QUARTER), row < n
    words_at = words_ptr + first_word(row, stretches, QUARTER) + stretch * (ROWS * QUARTER)
    words = tl.load(words_at[:, None] + column[None, :], mask=real[:, None], other=0)
    quarters = unpack(words, tl.float32, False)
    for plane in tl.static_range(4):
        of_group = (stretch * STRETCH + plane * QUARTER) // GROUP * n + row
        grid = tl.load(grid_ptr + of_group, mask=real, other=0)
        weight = less_zero(quarters[plane], grid, tl.float32) * scale_of(grid)[:, None]
        at = (row[:, None].to(tl.int64) * stretches + stretch) * STRETCH + plane * QUARTER + column[None, :]
        tl.store(out_ptr + at, weight.to(out_ptr.dtype.element_ty), mask=real[:, None])


# [/book]


def w4a16_linear(
    x: Tensor,
    w: W4Weight,
    bias: Tensor | None = None,
    *,
    backend: str = "auto",
    vector: bool | None = None,
    launch: dict | None = None,
) -> Tensor:
    """x [..., K] times w [N, K] transposed, plus bias [N]: [..., N] in the type of x (fp16, bf16 or fp32).

    Sums are in float32. The result of a token does not depend on the others as long as their number takes the same
    path. No size depends on data and nothing waits for the device, so a CUDA graph can record it; the partial sums of a
    split, and from MANY_TOKENS on the dequantized weight, are allocated by torch inside the call. vector: whether one
    token that is not fp32 goes without tensor cores (default: where `sums_plainly`). launch: choices in place of the
    table's, of "w4_gemv" for a vector, else of "w4_gemm", whatever the number of tokens. Raises InputError for an x or
    a bias that does not fit, a launch of the other kind, or, where a kernel runs, a vector but for one 16-bit token.
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
    vector = one and sums_plainly(capability(x.device)) if vector is None else vector
    if launch is not None and vector != ("BLOCK_S" in launch):
        raise InputError(
            f"vector={vector} and launch={launch}: that is a launch of the other kernel; change one of them"
        )
    if choose(backend, x, mma=not vector, what="w4a16_linear") == "torch":
        y = F.linear(rows, w.sorted_weight().to(x.dtype), None if bias is None else bias.to(x.dtype))
    elif vector and not one:
        raise InputError(f"vector=True of x {tuple(rows.shape)} in {x.dtype}: it takes one token, in fp16 or bf16")
    elif len(rows) == 0:
        y = rows.new_empty(0, n)
    elif vector:
        y = _gemv(rows, w, bias, launch)
    elif len(rows) >= MANY_TOKENS and launch is None:
        y = F.linear(rows, dequantized(w, x.dtype), None if bias is None else bias.to(x.dtype))
    else:
        y = _gemm(rows, w, bias, launch)
    return y.view(*x.shape[:-1], n)


def sums_plainly(cc: tuple[int, int] | None) -> bool:
    """Whether one token goes without tensor cores; not on Hopper, which takes it faster as one of a tile of eight."""
    return cc is None or cc < (9, 0)


def _gemv(x: Tensor, w: W4Weight, bias: Tensor | None, launch: dict | None) -> Tensor:
    n, k = w.shape
    launch = pick("w4_gemv", capability(x.device), few_rows=n <= FEW_ROWS) if launch is None else launch
    if x.storage_offset() % 2:
        x = x.clone()  # pairs of its elements are read as one
    y = x.new_empty(1, n)
    _gemv_kernel[triton.cdiv(n, launch["BLOCK_N"]),](
        x.view(torch.int32), w.data.view(torch.int32), w.grid, bias, y, n, k // w.stretch, BITS_OF_ONE,
        GROUP=w.group, STRETCH=w.stretch, **launch,
    )  # fmt: skip
    return y


def _gemm(x: Tensor, w: W4Weight, bias: Tensor | None, launch: dict | None) -> Tensor:
    tokens, n, stretches = len(x), w.shape[0], w.shape[1] // w.stretch
    cc = capability(x.device)
    size = tile_of_tokens(tokens)
    launch = dict(
        pick("w4_gemm", cc, tokens=size, few_rows=n <= FEW_ROWS, wide=x.dtype == torch.float32)
        if launch is None
        else launch
    )
    tiles = triton.cdiv(tokens, launch["BLOCK_M"]), triton.cdiv(n, launch["BLOCK_N"])
    slots = multiprocessors(x.device) * launch.pop("resident", 2)
    splits = launch.pop("splits", None) or splits_of_k(tiles[0] * tiles[1], stretches, slots)
    share = triton.cdiv(stretches, splits)
    splits = triton.cdiv(stretches, share)  # no empty ones
    y = x.new_empty(tokens, n)
    out = y if splits == 1 else x.new_empty(splits, tokens, n, dtype=torch.float32)
    _gemm_kernel[(*tiles, splits)](
        x, w.data.view(torch.int16), w.grid, bias if splits == 1 else None, out, tokens, n, stretches, share,
        GROUP=w.group, STRETCH=w.stretch, **launch,
    )  # fmt: skip
    if splits > 1:
        block = pick("w4_add_splits", cc)
        _add_splits_kernel[triton.cdiv(y.numel(), block["BLOCK"]),](
            out, bias, y, y.numel(), n, SPLITS=splits, **block
        )  # fmt: skip
    return y


def tile_of_tokens(tokens: int) -> int:
    """The BLOCK_M that a number of tokens is padded to: a power of two from 8 to 256."""
    return min(max(8, triton.next_power_of_2(tokens)), 256)


def splits_of_k(tiles: int, stretches: int, slots: int) -> int:
    """Into how many shares of K to divide the stretches so that tiles · shares fill the GPU's slots: at most 16, and
    none of fewer than four stretches, whose partial sums would cost more than they bring."""
    return max(1, min(slots // tiles, stretches // 4, 16))


def dequantized(w: W4Weight, dtype: torch.dtype, *, backend: str = "auto") -> Tensor:
    """The weight [N, K] in dtype, K in order of its groups, each number rounded once."""
    if choose(backend, w.data, what="dequantized") == "torch":
        return w.sorted_weight().to(dtype)
    n, k = w.shape
    out = torch.empty(n, k, dtype=dtype, device=w.data.device)
    launch = pick("w4_dequantize", capability(out.device))
    _dequantize_kernel[triton.cdiv(n, launch["BLOCK_N"]), k // w.stretch](
        w.data.view(torch.int16), w.grid, out, n, k // w.stretch, GROUP=w.group, STRETCH=w.stretch, **launch
    )  # fmt: skip
    return out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What this module ships for a chip."""
    weight = {"grid_ptr": "*i32", "n": "i32:16", "stretches": "i32"}
    words = {"x_ptr": "*i32", "words_ptr": "*i32", "one": "i32", "y_ptr": "*bf16", **weight}
    codes = {"x_ptr": "*bf16", "words_ptr": "*i16", "tokens": "i32", "share": "i32", **weight}
    for number, (_, launch) in enumerate(rules("w4_gemv", cc)):
        for group in GROUPS:
            yield Variant.of(
                f"gemv g{group} {number}", _gemv_kernel, words, launch, ("cp.async",) if has_mma(cc) else (),
                GROUP=group, STRETCH=max(group, SHORTEST), bias_ptr=None,
            )  # fmt: skip
        with_bias, name = words | {"bias_ptr": "*bf16"}, f"gemv bias {number}"
        yield Variant.of(name, _gemv_kernel, with_bias, launch, GROUP=GROUPS[0], STRETCH=GROUPS[0])
    for _, launch in rules("w4_dequantize", cc):
        dequantize = {"words_ptr": "*i16", "out_ptr": "*bf16", **weight}
        yield Variant.of("dequantize", _dequantize_kernel, dequantize, launch, GROUP=GROUPS[0], STRETCH=GROUPS[0])
    if not has_mma(cc):
        return
    for number, (where, launch) in reversed([*enumerate(rules("w4_gemm", cc))]):  # first the tile for many tokens
        launch = {key: value for key, value in launch.items() if key not in ("splits", "resident")}
        wide = where.get("wide", False)
        types = codes | {"out_ptr": "*fp32"} | ({"x_ptr": "*fp32"} if wide else {})
        tensor_core = "wgmma" if cc >= (9, 0) and launch["BLOCK_M"] >= 16 else "mma.sync"
        for group in GROUPS:
            yield Variant.of(
                f"gemm g{group} {number}", _gemm_kernel, types, launch, () if wide else (tensor_core, "cp.async"),
                GROUP=group, STRETCH=max(group, SHORTEST), bias_ptr=None,
            )  # fmt: skip
    for _, launch in rules("w4_add_splits", cc):
        sums = {"parts_ptr": "*fp32", "y_ptr": "*bf16", "size": "i32", "n": "i32:16"}
        yield Variant.of("add splits", _add_splits_kernel, sums, launch, SPLITS=4, bias_ptr=None)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying on a Hopper GPU, for "w4_gemv" or "w4_gemm" (its tokens decide which BLOCK_M fit)."""
    if kind == "w4_gemv":
        tiles = [(16, 8, 4), (16, 16, 8), (16, 4, 2), (8, 16, 4), (8, 8, 2), (32, 8, 8), (8, 32, 8), (4, 32, 4)]
        for rows, stretches, warps in tiles:
            for stages in (2, 3, 4):
                yield {"BLOCK_N": rows, "BLOCK_S": stretches, "STAGES": stages, "num_warps": warps, "num_stages": 1}
        return
    few = [(64, 2), (64, 4), (128, 4), (32, 1), (32, 2), (16, 1)]  # outputs, warps
    tiles = [(rows, 8, warps, 0, {"resident": resident}) for rows, warps in few for resident in (2, 4, 8)]
    tiles += [  # outputs, tokens, warps, JOIN
        (64, 16, 4, 1, {"resident": 4}), (64, 16, 4, 1, {"splits": 2}), (64, 16, 2, 0, {"resident": 6}),
        (128, 16, 4, 0, {"resident": 4}), (128, 16, 4, 1, {"maxnreg": 128}), (128, 16, 4, 1, {"splits": 2}),
        (64, 32, 4, 1, {}), (128, 32, 4, 0, {}), (128, 32, 4, 1, {}), (128, 32, 4, 1, {"maxnreg": 168}),
        (64, 64, 4, 1, {}), (128, 64, 4, 0, {}), (128, 64, 4, 1, {}), (256, 64, 8, 1, {}), (64, 128, 4, 1, {}),
        (128, 128, 8, 1, {}),
    ]  # fmt: skip
    for rows, tokens, warps, join, more in tiles:
        for stages in (2, 3, 4) if tokens >= 64 else (3, 4, 5):
            yield {
                "BLOCK_N": rows, "BLOCK_M": tokens, "JOIN": join, "PTX": 1, **more,
                "num_warps": warps, "num_stages": stages,
            }  # fmt: skip
