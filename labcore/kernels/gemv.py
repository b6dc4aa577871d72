"""One token through a linear layer, with what stands before and behind it: RMSNorm, SwiGLU, the residual addition.

A product of a matrix and one row is as fast as the matrix is read, and at batch 1 that is nearly all a model does. The
rest of a layer costs launches: between two products a GPU drains and fills again. So the neighbours ride along:

    norm      y = W (x·g) / rms(x): the division waits for the end, so the sum of squares grows beside the products
    SwiGLU    a program has a row of the gate and the same row of the up matrix
    residual  added to what is stored

On Hopper a product also begins before the kernel ahead of it has ended ("programmatic dependent launch"): its weights
depend on nothing, so they fill the gap. There is a limit to that. With persistent programs, which take several blocks
each, and attention that let the next kernel begin at once, the products by themselves took the same time in sum, but a
whole step of an 8B model read at 0.66 of the H200's bandwidth instead of 0.77. (Presumably early programs crowd where
there happens to be room, and equal shares then end at unequal times.) Here a program has one block, the hardware hands
them out, and attention lets the next kernel begin when it has nothing left but to store.

Sums are float32 throughout and rounded once, where the layer by itself rounds the normalized row, the product and the
sum. Sources: gemlite's GEMV (tl.sum, no tensor cores); RMSNorm, arXiv:1910.07467; programmatic dependent launch, CUDA
C++ Programming Guide.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose
from labcore.kernels._compile import Variant, early_instructions, half
from labcore.kernels._config import pick, rules

LONG = 8192  # inputs: from here on narrow tiles, of which a program reads many, are faster than few wide ones
SHORT = 4096  # with fewer inputs than this, more rows, or a program has nothing to do before it ends


def gemv_reference(
    x: Tensor, weight: Tensor, norm: Tensor | None = None, eps: float = 0.0, gated: bool = False, residual=None
) -> Tensor:
    """The specification, float32: x [1, K], weight [N, K] -> [1, N], or [1, N / 2] if gated."""
    wide = x.float()
    if norm is not None:
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * norm.float()
    y = F.linear(wide, weight.float())
    if gated:
        gate, up = y.chunk(2, -1)
        y = F.silu(gate) * up
    return y if residual is None else y + residual.float()


# [book: gemv]
@triton.jit(do_not_specialize=("n",))
def _gemv_kernel(
    x_ptr, weight_ptr, norm_ptr, residual_ptr, y_ptr, n, eps,
    K: tl.constexpr, GATED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Program p makes BLOCK_N outputs: as many rows of the weight, or of gate and of up each, past x.

    A tile of weights is asked for while the one before it is used. EARLY: the launch does not wait for the kernel
    before it; this kernel does, once its first weights, which nobody computes, are on their way.
    """
    if EARLY:
        gdc_launch_dependents()
    row, column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    at = weight_ptr + tl.minimum(row, n - 1).to(tl.int64)[:, None] * K + column[None, :]
    up_at = at + n.to(tl.int64) * K
    weight = tl.load(at, mask=(column < K)[None, :], other=0.0)
    up = tl.load(up_at, mask=(column < K)[None, :], other=0.0) if GATED else weight
    if EARLY:
        gdc_wait()
    total, total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32), tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for first in range(0, K, BLOCK_K):
        inside, more = first + column < K, (first + BLOCK_K + column < K)[None, :]
        next_weight = tl.load(at + first + BLOCK_K, mask=more, other=0.0)
        next_up = tl.load(up_at + first + BLOCK_K, mask=more, other=0.0) if GATED else next_weight
        x = tl.load(x_ptr + first + column, mask=inside, other=0.0).to(tl.float32)
        if norm_ptr is not None:
            squares += x * x
            x *= tl.load(norm_ptr + first + column, mask=inside, other=0.0).to(tl.float32)
        total += weight.to(tl.float32) * x[None, :]
        if GATED:
            total_up += up.to(tl.float32) * x[None, :]
        weight, up = next_weight, next_up
    scale = 1.0
    if norm_ptr is not None:
        scale = tl.rsqrt(tl.sum(squares, 0) / K + eps)
    y = tl.sum(total, 1) * scale
    if GATED:
        y = y * tl.sigmoid(y) * (tl.sum(total_up, 1) * scale)
    if residual_ptr is not None:
        y += tl.load(residual_ptr + row, mask=row < n, other=0.0).to(tl.float32)
    tl.store(y_ptr + row, y.to(y_ptr.dtype.element_ty), mask=row < n)


# [/book]


def gemv(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
    launch: dict | None = None,
) -> Tensor:
    """weight · x for one token: x [1, K], weight [N, K], both contiguous and of one dtype; returns y [1, N].

    norm: weight [K] of an RMSNorm with `eps` that x goes through first. gated: weight is [gate; up], and y [1, N / 2]
    is silu(gate · x) · (up · x). residual: like y, added; out may be the residual itself. launch: launch choices to
    use in place of the table's. Raises InputError for another shape or dtype, or a tensor with gaps.
    """
    n = len(weight) // 2 if gated else len(weight)
    _check(x, weight, norm, residual, out, n, gated)
    if choose(backend, x, what="gemv") == "torch":
        y = gemv_reference(x, weight, norm, eps, gated, residual).to(x.dtype)
        return y if out is None else out.copy_(y)
    k = x.shape[1]
    if launch is None:
        launch = pick("gemv", capability(x.device), gated=gated, long=k >= LONG, short=k < SHORT)
    out = torch.empty(1, n, dtype=x.dtype, device=x.device) if out is None else out
    early = {"launch_pdl": True} if launch["EARLY"] else {}
    _gemv_kernel[triton.cdiv(n, launch["BLOCK_N"]),](
        x, weight, norm, residual, out, n, eps, K=k, GATED=gated, **launch, **early
    )  # fmt: skip
    return out


def _check(x: Tensor, weight: Tensor, norm, residual, out, n: int, gated: bool) -> None:
    if x.dim() != 2 or len(x) != 1 or weight.dim() != 2 or weight.shape[1] != x.shape[1] or (gated and len(weight) % 2):
        raise InputError(f"x {tuple(x.shape)}, weight {tuple(weight.shape)}: pass [1, K] and [N, K], N even if gated")
    shapes = {"x": (x, x.shape), "weight": (weight, weight.shape), "norm": (norm, x.shape[1:])}
    shapes |= {"residual": (residual, (1, n)), "out": (out, (1, n))}
    for name, (tensor, shape) in shapes.items():
        if tensor is not None:
            check_tensor(name, tensor, x.dtype, shape)


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    kind = f"*{half(cc)}"
    types = dict.fromkeys(("x_ptr", "weight_ptr", "norm_ptr", "y_ptr"), kind) | {"n": "i32", "eps": "fp32"}
    for where, launch in rules("gemv", cc):
        gated, short = where.get("gated", False), where.get("short", False)
        name = ", ".join(key if wanted else f"not {key}" for key, wanted in where.items()) or "any"
        waits, k = early_instructions(cc) if launch["EARLY"] else (), 1024 if short else 4096
        yield Variant.of(name, _gemv_kernel, types, launch, waits, residual_ptr=None, K=k, GATED=gated)
        if not gated:  # no model adds to gate and up
            plain = {key: value for key, value in types.items() if key != "norm_ptr"} | {"residual_ptr": kind}
            k = 3072 if short else 14336
            yield Variant.of(f"{name}, residual", _gemv_kernel, plain, launch, waits, norm_ptr=None, K=k, GATED=gated)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying on a Hopper GPU."""
    tiles = [
        (2, 2048, 8), (4, 1024, 4), (8, 512, 4), (4, 512, 4), (4, 512, 2), (4, 2048, 8), (8, 1024, 8), (16, 256, 4),
        (1, 2048, 8), (2, 1024, 4), (8, 256, 2), (1, 4096, 8), (4, 1024, 8),
    ]  # fmt: skip
    for early in (1, 0):
        for rows, columns, warps in tiles:
            yield {"BLOCK_N": rows, "BLOCK_K": columns, "EARLY": early, "num_warps": warps, "num_stages": 1}
