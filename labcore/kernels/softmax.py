"""Softmax of long rows that do not fit in registers: the online recurrence, tile by tile, and one more read to write.

The safe softmax reads a row three times (maximum, sum, result). Online, maximum and sum come from one read, so it is
two: the row's maximum may still grow, and the sum so far is then scaled down. Source: Milakov and Gimelshein,
arXiv:1805.02867, algorithm 3.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose
from labcore.kernels._compile import Variant, half
from labcore.kernels._config import pick, rules
from labcore.kernels.online_softmax import TO_BASE_2, online_softmax_step


def softmax_reference(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """The specification."""
    temperature = temperature[:, None] if isinstance(temperature, Tensor) else temperature
    return (logits.float() / temperature).softmax(-1)


# [book: softmax]
@triton.jit
def _softmax_kernel(logits_ptr, temperature_ptr, out_ptr, columns, stride, BLOCK: tl.constexpr):
    """Program `row` makes one row, tile by tile."""
    row = tl.program_id(0).to(tl.int64)
    scale_log2 = TO_BASE_2 / tl.load(temperature_ptr + row)
    row_max, row_sum = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        tile = tl.load(logits_ptr + row * stride + column, mask=column < columns, other=float("-inf")).to(tl.float32)
        _, _, row_max, row_sum = online_softmax_step(tile[None, :], scale_log2, row_max, row_sum)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        tile = tl.load(logits_ptr + row * stride + column, mask=column < columns, other=0.0).to(tl.float32)
        tl.store(
            out_ptr + row * columns + column, tl.exp2(tile * scale_log2 - row_max) / row_sum, mask=column < columns
        )


# [/book]


def softmax(logits: Tensor, temperature: Tensor | float = 1.0, *, backend: str = "auto") -> Tensor:
    """softmax(logits / temperature), float32 [rows, columns]. temperature: a number or float32 [rows], above 0."""
    check_logits(logits)
    temperature = per_row("temperature", temperature, logits, torch.float32)
    if choose(backend, logits, what="softmax") == "torch":
        return softmax_reference(logits, temperature)
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if len(logits):
        launch = pick("softmax", capability(logits.device))
        _softmax_kernel[len(logits),](logits, temperature, out, logits.shape[1], logits.stride(0), **launch)
    return out


def check_logits(logits: Tensor) -> None:
    """Raises InputError unless `logits` are rows of floating-point numbers, each contiguous and not empty."""
    if logits.dim() != 2 or not logits.shape[1] or logits.stride(1) != 1 or not logits.is_floating_point():
        raise InputError(
            f"logits are {logits.dtype} {tuple(logits.shape)}, strides {logits.stride()}: they must be "
            "floating-point [rows, vocab] with contiguous rows"
        )


def per_row(name: str, value: Tensor | float | int, logits: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter of each row of `logits`: the tensor [rows] given, or one number for all of them."""
    if not isinstance(value, Tensor):
        return torch.full((len(logits),), value, dtype=dtype, device=logits.device)
    if value.shape != logits.shape[:1] or value.dtype != dtype or value.device != logits.device:
        raise InputError(
            f"{name} is {value.dtype} {tuple(value.shape)} on {value.device}: "
            f"make it {dtype} [{len(logits)}] on {logits.device}, or one number"
        )
    return value


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    types = {"temperature_ptr": "*fp32", "out_ptr": "*fp32", "columns": "i32:16", "stride": "i32:16"}
    for _, launch in rules("softmax", cc):
        for kind in ("fp32", half(cc)):
            yield Variant.of(kind, _softmax_kernel, types | {"logits_ptr": f"*{kind}"}, launch)
