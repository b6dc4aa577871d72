"""Products of 8-bit matrices: e4m3 or int8 codes under a scale a row of each operand, or, for e4m3, a scale a block.

Eight bits halve the bytes and double the rate of the tensor cores. The scales do not enter the product: where a and b
have one scale a row, y = (a bᵀ) · sa sbᵀ, applied once to the finished sums. With a scale for every 128 columns each
stretch of 128 is its own product, scaled as it is added; that costs arithmetic and buys accuracy twice: scales that
follow the data, and sums in true float32. Hopper's tensor cores add e4m3 products with fewer bits than float32 has, so
an error grows with the depth of an unbroken sum (DeepSeek-V3, arXiv:2412.19437, section 3.3.2). int8 sums are exact.

Sources: Triton tutorial 09 (persistent matmul, TMA descriptors) and 03 (order of tiles); DeepGEMM (promotion).
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from labcore.core.errors import InputError
from labcore.formats import scaled_fp8
from labcore.formats.uniform import Uniform
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose, has_fp8, has_mma, multiprocessors
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules

KINDS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
BLOCK = 128  # columns, and rows of b, that share a scale in the block format
FEW_ROWS = 64  # up to here one row of tiles holds all of a, and reading b is what takes time
ALIGNED = 16  # bytes: what a TMA descriptor asks of a row's length


# [book: quantize-rows]
def quantize_rows_reference(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The specification: codes like x and scale fp32 [rows, 1], which maps a row's largest onto 448 or 127."""
    if kind == "fp8":
        stored = scaled_fp8.quantize(x)
        return stored.codes.view(torch.float8_e4m3fn), stored.scale
    codes, scale = Uniform(8, symmetric=True, parameter_dtype=torch.float32).quantize(x, -1, x.shape[1])
    return (codes.short() - 127).to(torch.int8), torch.where(scale > 0, scale, 1.0)


@triton.jit
def _quantize_rows_kernel(x_ptr, codes_ptr, scale_ptr, width, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    """Program `row`: once over the row for its largest, once more, from the cache, for the codes."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros([BLOCK], tl.float32)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(x))
    peak = tl.max(largest, 0)
    scale = tl.where(peak > 0, tl.div_rn(peak, LARGEST), 1.0)
    tl.store(scale_ptr + row, scale)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        steps = tl.div_rn(x, tl.zeros([BLOCK], tl.float32) + scale)
        if codes_ptr.dtype.element_ty == tl.int8:
            steps = (steps + 12582912.0) - 12582912.0  # 1.5 · 2^23: sums there are whole, rounded half to even
        tl.store(codes_ptr + row * width + column, steps.to(codes_ptr.dtype.element_ty), mask=column < width)


# [/book]


def quantize_rows(x: Tensor, kind: str, *, backend: str = "auto", launch: dict | None = None) -> tuple[Tensor, Tensor]:
    """x [rows, columns], finite, as codes of `kind`, "fp8" (e4m3) or "int8", with one scale a row, fp32 [rows, 1]."""
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}: choose 'fp8' or 'int8'")
    if x.ndim != 2 or not x.numel() or not x.is_floating_point():
        raise InputError(f"x is {x.dtype} {tuple(x.shape)}: pass a matrix of floats with one element or more")
    if choose(backend, x, fp8=kind == "fp8", what=f"quantize_rows to {kind}") == "torch":
        return quantize_rows_reference(x, kind)
    x = x.contiguous()
    codes, scale = torch.empty_like(x, dtype=KINDS[kind]), x.new_empty(len(x), 1, dtype=torch.float32)
    launch = pick("quantize_rows", capability(x.device)) if launch is None else launch
    largest = scaled_fp8.E4M3.max if kind == "fp8" else 127.0
    _quantize_rows_kernel[len(x),](x, codes, scale, x.shape[1], LARGEST=largest, **launch)
    return codes, scale


# [book: matmul8]
def matmul8_reference(a: Tensor, b: Tensor, sa: Tensor, sb: Tensor, block: int | None = None) -> Tensor:
    """The specification, float64 [M, N]: sums of 8-bit products are exact there; arguments as in fp8_matmul."""
    a, b, sa, sb = (part.double() for part in (a, b, sa, sb))
    if block is None:
        return (a @ b.t()) * sa.reshape(-1, 1) * sb.reshape(1, -1)
    sa, sb = (part.repeat_interleave(block, 1)[:, : a.shape[1]] for part in (sa, sb))
    return (a * sa) @ (b * sb.repeat_interleave(block, 0)[: len(b)]).t()


@triton.jit
def place_of(tile, tiles_m, tiles_n, BAND: tl.constexpr):
    """Row and column of a tile. Tiles go down a band of BAND rows before the next column: those that run at the same
    time share rows of a and of b, which then come from the L2 cache."""
    band = tile // (BAND * tiles_n)
    height = tl.minimum(tiles_m - band * BAND, BAND)
    inside = tile - band * BAND * tiles_n
    return band * BAND + inside % height, inside // height


@triton.jit
def load_tile(
    source, first_row, first_column, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr
):
    """[ROWS, COLUMNS] of a row-major [rows, columns], zeros beyond its ends: by a descriptor (TMA), or by addresses."""
    if TMA:
        return source.load([first_row, first_column])
    else:
        row, column = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
        at = source + row[:, None].to(tl.int64) * columns + column[None, :]
        return tl.load(at, mask=(row < rows)[:, None] & (column < columns)[None, :], other=0.0)


@triton.jit
def _matmul8_kernel(
    a, b, sa_ptr, sb_ptr, out_ptr, n_rows, n_columns, depth,
    SCALED: tl.constexpr, BLOCKED: tl.constexpr, ACC: tl.constexpr, TMA: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    """out[m, n] = Σ_k a[m, k] b[n, k], scaled; a and b are descriptors (TMA), or pointers.

    Each program takes every num_programs-th tile: with as many programs as tiles that is one each, with as many as fit
    on the GPU the launch is persistent, and the loads of a tile start while the one before is being stored.
    """
    tiles_m, tiles_n = tl.cdiv(n_rows, BLOCK_M), tl.cdiv(n_columns, BLOCK_N)
    steps = tl.cdiv(depth, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0)):
        tile_m, tile_n = place_of(tile, tiles_m, tiles_n, BAND)
        row, column = tile_m * BLOCK_M + tl.arange(0, BLOCK_M), tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
        total = tl.zeros([BLOCK_M, BLOCK_N], ACC)
        for step in range(steps):
            left = load_tile(a, tile_m * BLOCK_M, step * BLOCK_K, n_rows, depth, BLOCK_M, BLOCK_K, TMA)
            right = load_tile(b, tile_n * BLOCK_N, step * BLOCK_K, n_columns, depth, BLOCK_N, BLOCK_K, TMA).T
            if BLOCKED:  # BLOCK_K is the block: a product of its own, added up in float32
                part = tl.dot(left, right)
                scale_a = tl.load(sa_ptr + row * steps + step, mask=row < n_rows, other=0.0)
                scale_b = tl.load(sb_ptr + (column // BLOCK_K) * steps + step, mask=column < n_columns, other=0.0)
                total += part * scale_a[:, None] * scale_b[None, :]
            else:
                total = tl.dot(left, right, total, out_dtype=ACC)
        if SCALED:
            scale_a = tl.load(sa_ptr + row, mask=row < n_rows, other=0.0)
            scale_b = tl.load(sb_ptr + column, mask=column < n_columns, other=0.0)
            total = total.to(tl.float32) * scale_a[:, None] * scale_b[None, :]
        at = out_ptr + row[:, None].to(tl.int64) * n_columns + column[None, :]
        here = (row < n_rows)[:, None] & (column < n_columns)[None, :]
        tl.store(at, total.to(out_ptr.dtype.element_ty), mask=here)


# [/book]


def fp8_matmul(
    a: Tensor,
    b: Tensor,
    sa: Tensor,
    sb: Tensor,
    *,
    block: int | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    backend: str = "auto",
    launch: dict | None = None,
) -> Tensor:
    """a [M, K] times b [N, K] transposed, both e4m3: [M, N] in out_dtype.

    block=None: sa fp32 [M, 1], sb [N, 1], applied to the sums; the tensor core adds up all of K, with its own rounding.
    block=128: sa [M, ⌈K/128⌉], sb [⌈N/128⌉, ⌈K/128⌉]; sums are promoted to float32 every 128 columns.
    launch: launch choices to use in place of the table's.
    """
    if block not in (None, BLOCK):
        raise InputError(f"block={block}: scales cover a row (None) or blocks of {BLOCK}")
    _check(a, b, torch.float8_e4m3fn)
    (m, k), n = a.shape, len(b)
    across = 1 if block is None else -(-k // block)
    expected = ("sa", sa, (m, across)), ("sb", sb, (n if block is None else -(-n // block), across))
    for name, scale, shape in expected:
        check_tensor(name, scale, torch.float32, shape)
    if choose(backend, a, mma=True, fp8=True, what="fp8_matmul") == "torch":
        return matmul8_reference(a, b, sa, sb, block).to(out_dtype)
    out = a.new_empty(m, n, dtype=out_dtype)
    kind = "fp8_matmul" if block is None else "fp8_blocks"
    return _multiply(kind, a, b, sa, sb, out, launch)


def int8_matmul(
    a: Tensor,
    b: Tensor,
    sa: Tensor | None = None,
    sb: Tensor | None = None,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    backend: str = "auto",
    launch: dict | None = None,
) -> Tensor:
    """a [M, K] times b [N, K] transposed, both int8; sa fp32 [M, 1] and sb [N, 1] are applied to the exact int32 sums.

    Returns [M, N] in out_dtype; without scales the sums themselves, int32. Exact for K up to 2^31 / 127².
    """
    _check(a, b, torch.int8)
    if (sa is None) != (sb is None):
        raise InputError("one of sa and sb is None: pass both scales, or neither for the int32 sums")
    for name, scale, rows in (("sa", sa, len(a)), ("sb", sb, len(b))):
        if scale is not None:
            check_tensor(name, scale, torch.float32, (rows, 1))
    if choose(backend, a, mma=True, what="int8_matmul") == "torch":
        if sa is None:
            return (a.double() @ b.double().t()).int()
        return matmul8_reference(a, b, sa, sb).to(out_dtype)
    out = a.new_empty(len(a), len(b), dtype=torch.int32 if sa is None else out_dtype)
    return _multiply("int8_matmul", a, b, sa, sb, out, launch)


def _multiply(kind: str, a: Tensor, b: Tensor, sa, sb, out: Tensor, launch: dict | None) -> Tensor:
    """Launch the kernel: persistent where the table says how many programs a multiprocessor takes."""
    m, n = out.shape
    if not out.numel():
        return out
    a, b = (_padded(part) for part in (a, b))
    choice = dict(pick(kind, capability(a.device), few_rows=m <= FEW_ROWS) if launch is None else launch)
    per_multiprocessor = choice.pop("persistent", 0)
    tile_m, tile_n, tile_k = choice["BLOCK_M"], choice["BLOCK_N"], choice["BLOCK_K"]
    programs = triton.cdiv(m, tile_m) * triton.cdiv(n, tile_n)
    if per_multiprocessor:
        programs = min(programs, per_multiprocessor * multiprocessors(a.device))
    sources = (a, b)
    if choice["TMA"]:
        sources = (TensorDescriptor.from_tensor(part, [rows, tile_k]) for part, rows in ((a, tile_m), (b, tile_n)))
    _matmul8_kernel[programs,](
        *sources, sa, sb, out, m, n, a.shape[1], SCALED=sa is not None and kind != "fp8_blocks",
        BLOCKED=kind == "fp8_blocks", ACC=tl.int32 if kind == "int8_matmul" else tl.float32, **choice,
    )  # fmt: skip
    return out


def _padded(x: Tensor) -> Tensor:
    """x [rows, columns], contiguous, columns a multiple of 16: a descriptor's rows begin at multiples of 16 bytes."""
    missing = -x.shape[1] % ALIGNED
    if not missing:
        return x.contiguous()
    padded = x.new_zeros(len(x), x.shape[1] + missing, dtype=torch.uint8).view(x.dtype)  # code 0 is 0 in both formats
    padded[:, : x.shape[1]] = x
    return padded


def _check(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    if a.dtype != dtype or b.dtype != dtype:
        raise InputError(f"a is {a.dtype} and b {b.dtype}: both must be {dtype}; see quantize_rows")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise InputError(f"a {tuple(a.shape)} and b {tuple(b.shape)}: pass [M, K] and [N, K], K the same and not 0")


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What this module ships for a chip."""
    floats = {"x_ptr": "*bf16", "scale_ptr": "*fp32", "width": "i32:16"}
    kinds = [("int8", "*i8", 127.0)] + ([("fp8", "*fp8e4nv", scaled_fp8.E4M3.max)] if has_fp8(cc) else [])
    for kind, code, largest in kinds:
        for _, launch in rules("quantize_rows", cc):
            signature = floats | {"codes_ptr": code}
            yield Variant.of(f"quantize_rows {kind}", _quantize_rows_kernel, signature, launch, LARGEST=largest)
    if not has_mma(cc):
        return
    for kind in ("fp8_matmul", "fp8_blocks", "int8_matmul") if has_fp8(cc) else ("int8_matmul",):
        for number, (_, launch) in enumerate(rules(kind, cc)):
            yield _variant(f"{kind} {number}", kind, launch, cc)


def _variant(name: str, kind: str, launch: dict, cc: tuple[int, int]) -> Variant:
    code = "i8" if kind == "int8_matmul" else "fp8e4nv"
    launch = {key: value for key, value in launch.items() if key != "persistent"}
    tiles = {"a": launch["BLOCK_M"], "b": launch["BLOCK_N"]}
    signature = {
        part: f"tensordesc<{code}[{rows},{launch['BLOCK_K']}]>" if launch["TMA"] else f"*{code}"
        for part, rows in tiles.items()
    }
    signature |= {"sa_ptr": "*fp32", "sb_ptr": "*fp32", "out_ptr": "*bf16"}
    signature |= {"n_rows": "i32", "n_columns": "i32:16", "depth": "i32:16"}
    expects = ("wgmma", "tma") if launch["TMA"] else ("mma.sync", "cp.async")
    blocked = kind == "fp8_blocks"
    acc = tl.int32 if kind == "int8_matmul" else tl.float32
    return Variant.of(
        name, _matmul8_kernel, signature, launch, expects, SCALED=not blocked, BLOCKED=blocked, ACC=acc
    )  # fmt: skip


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying on a Hopper GPU for "fp8_matmul", "fp8_blocks" or "int8_matmul"."""
    if kind == "quantize_rows":
        for block, warps in ((1024, 4), (2048, 4), (4096, 8)):
            yield {"BLOCK": block, "num_warps": warps, "num_stages": 1}
        return
    tiles = [(128, 256, 8, 3), (128, 256, 8, 4), (128, 128, 4, 4), (128, 128, 8, 4), (256, 128, 8, 3)]
    few = [(64, 64, 4, 4), (64, 64, 4, 6), (64, 128, 4, 4), (64, 128, 4, 6), (64, 256, 4, 4), (64, 256, 8, 4)]
    for tile_m, tile_n, warps, stages in tiles + few:
        for persistent in (0, 1) if tile_m > FEW_ROWS else (0,):
            for band in (8, 16) if tile_m > FEW_ROWS else (1,):
                yield {
                    "BLOCK_M": tile_m, "BLOCK_N": tile_n, "BLOCK_K": 128, "BAND": band, "TMA": 1,
                    "persistent": persistent, "num_warps": warps, "num_stages": stages,
                }  # fmt: skip
