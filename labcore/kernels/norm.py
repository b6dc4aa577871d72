"""RMSNorm of rows, with the addition to the residual stream in the same pass over memory.

Bound by bandwidth, so what counts is bytes: apart, the addition moves 3 tensors and the norm 2; fused, 4 in all. At
decode it is bound by launches, and here is one instead of eager torch's seven or so.

Rounding follows Llama's code: the sum is rounded to the model's dtype, the statistics are float32, the normalized row
is rounded, then multiplied by the weight and rounded again. Sources: RMSNorm, arXiv:1910.07467; transformers,
models/llama/modeling_llama.py, LlamaRMSNorm; the fusion, vLLM's fused_add_rms_norm and Liger-Kernel's
fused_add_rms_norm.py.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose
from labcore.kernels._compile import Variant, half
from labcore.kernels._config import pick, rules

WIDEST = 16384  # columns that a program's registers hold
MANY_ROWS = 1024  # from here on rows fill a GPU, below it the latency of one row counts


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """The specification, in Llama's order of casts. `residual` becomes x + residual in place."""
    if residual is not None:
        x = residual.add_(x)
    wide = x.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * unit.to(x.dtype)


# [book: rms-norm]
@triton.jit
def _rms_norm_kernel(
    x_ptr, residual_ptr, weight_ptr, out_ptr, rows, x_stride, eps,
    WIDTH: tl.constexpr, ADD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program normalizes ROWS whole rows, held in registers: every byte is read and written once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=here, other=0.0)  # [ROWS, BLOCK]
    if ADD:
        residual = tl.load(residual_ptr + at, mask=here, other=0.0)
        x = (x.to(tl.float32) + residual.to(tl.float32)).to(x.dtype)  # the stream itself is kept in this dtype
        tl.store(residual_ptr + at, x, mask=here)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / WIDTH + eps)  # [ROWS]; masked columns added nothing
    unit = (wide * scale[:, None]).to(x.dtype)
    weight = tl.load(weight_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (unit.to(tl.float32) * weight[None, :]).to(x.dtype), mask=here)


# [/book]


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    residual: Tensor | None = None,
    *,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension of x [..., width]; like x.

    residual: like x, contiguous; becomes x + residual in place, and that sum is what is normalized (a decoder layer's
    "add, then norm" in one pass). x may be a view, a slice of columns, whose rows are contiguous and
    evenly spaced. out may be x itself.
    """
    _check(x, weight, residual, out)
    if choose(backend, x, what="rms_norm") == "torch":
        result = rms_norm_reference(x, weight, eps, residual)
        return result if out is None else out.copy_(result)
    rows, width = x.numel() // x.shape[-1], x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    if rows == 0:
        return out
    launch = pick("rms_norm", capability(x.device), width=width, many_rows=rows >= MANY_ROWS)
    grid = (triton.cdiv(rows, launch["ROWS"]),)
    _rms_norm_kernel[grid](
        x, residual, weight, out, rows, _row_stride(x), eps,
        WIDTH=width, ADD=residual is not None, BLOCK=triton.next_power_of_2(width), **launch,
    )  # fmt: skip
    return out


def _row_stride(x: Tensor) -> int | None:
    """Elements from one row of x [..., width] to the next; None if that differs from row to row."""
    leading = [(size, stride) for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True) if size > 1]
    if not leading:
        return x.shape[-1]
    even = all(stride == size * inner for (_, stride), (size, inner) in pairwise(leading))
    return leading[-1][1] if even else None


def _check(x: Tensor, weight: Tensor, residual: Tensor | None, out: Tensor | None) -> None:
    check_tensor("weight", weight, x.dtype, x.shape[-1:])
    if x.stride(-1) != 1 or _row_stride(x) is None:
        raise InputError(f"x has strides {x.stride()}: its rows must be contiguous and evenly spaced; x.contiguous()")
    if x.shape[-1] > WIDEST:
        raise InputError(f"rows of {x.shape[-1]}: at most {WIDEST} fit in registers; use rms_norm_reference")
    for name, other in (("residual", residual), ("out", out)):
        if other is not None:
            check_tensor(name, other, x.dtype, x.shape)


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    kind = f"*{half(cc)}"
    types = {"x_ptr": kind, "residual_ptr": kind, "weight_ptr": kind, "out_ptr": kind, "eps": "fp32"}
    types |= {"rows": "i32", "x_stride": "i32:16"}
    for where, launch in rules("rms_norm", cc):
        width = where["width"][-1]
        name = f"width {width}{', many rows' * ('many_rows' in where)}"
        size = {"WIDTH": width, "BLOCK": width}
        yield Variant.of(name, _rms_norm_kernel, types, launch, ADD=True, **size)
        plain, name = {key: value for key, value in types.items() if key != "residual_ptr"}, f"{name}, no residual"
        yield Variant.of(name, _rms_norm_kernel, plain, launch, residual_ptr=None, ADD=False, **size)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for rows of 4096."""
    for rows, warps in ((1, 2), (1, 4), (1, 8), (1, 16), (2, 4), (2, 8)):
        yield {"ROWS": rows, "num_warps": warps, "num_stages": 1}
