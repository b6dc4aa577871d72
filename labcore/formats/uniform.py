"""Integers on an evenly spaced grid, one scale (and one zero) for each group of elements.

Asymmetric: x ≈ scale · code + zero. The grid runs from the group's minimum, kept as a float, to its maximum. This is
KIVI's convention and that of ggml's Q4_1; weight formats such as GPTQ's round the zero to a code instead.
Symmetric: x ≈ scale · (code - centre), no zero to store. Zero itself must be a grid point with as many levels below as
above, so their number is odd: 255 of the 256 codes of 8 bits, 15 of the 16 of 4 bits.
Source: KIVI, arXiv:2402.02750, section 3.1, and quant/new_pack.py; symmetric: LLM.int8(), arXiv:2208.07339, section 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats import groups
from labcore.formats.packing import packed_bytes


@dataclass(frozen=True)
class Uniform:
    """The format: bits of a code, whether the grid is symmetric, and how scale and zero are stored."""

    bits: int
    symmetric: bool = False
    parameter_dtype: torch.dtype = torch.float16

    def __post_init__(self):
        packed_bytes(1, self.bits)
        if self.symmetric and self.bits == 1:
            raise InputError("bits=1: a symmetric grid has at least the levels -1, 0 and 1; use 2 bits or more")

    @property
    def highest(self) -> int:
        """The largest code; the smallest is 0."""
        return 2**self.bits - (2 if self.symmetric else 1)

    @property
    def centre(self) -> int:
        """The code of 0 on a symmetric grid."""
        return self.highest // 2

    @property
    def parameters(self) -> tuple[torch.dtype, ...]:
        """What a group stores beside its codes: a scale, and on an asymmetric grid a zero."""
        return (self.parameter_dtype,) * (1 if self.symmetric else 2)

    def quantize(self, x: Tensor, axis: int, group: int) -> tuple[Tensor, ...]:
        """Codes uint8, shaped like x, and the parameters of its groups of `group` elements along `axis` (see groups).

        Codes are rounded, half to even, against the parameters as they are stored. The error is at most half a step,
        or what rounding the parameters cut off the ends of the grid. A group without spread has scale 0.
        Raises InputError for an element that is not finite, or a group whose parameters overflow their type.
        """
        x = groups.split(x.float(), axis, group)
        if self.symmetric:
            parameters = (self._stored(x.abs().amax(axis, keepdim=True) / self.centre),)
            codes = _steps(x, parameters[0]) + self.centre
        else:
            low, high = x.amin(axis, keepdim=True), x.amax(axis, keepdim=True)
            parameters = self._stored((high - low) / self.highest), self._stored(low)
            codes = _steps(x - parameters[1].float(), parameters[0])
        codes = codes.clamp(0, self.highest).to(torch.uint8)
        return groups.join(codes, axis), *(one.squeeze(axis) for one in parameters)

    def dequantize(self, codes: Tensor, *parameters: Tensor, axis: int, group: int) -> Tensor:
        """The grid points, float32, shaped like codes."""
        codes = groups.split(codes, axis, group).float()
        scale, *zero = (one.float().unsqueeze(axis) for one in parameters)
        x = (codes - self.centre) * scale if self.symmetric else codes * scale + zero[0]
        return groups.join(x, axis)

    def _stored(self, parameter: Tensor) -> Tensor:
        stored = parameter.to(self.parameter_dtype)
        if not stored.isfinite().all():
            bad = parameter[~stored.isfinite()][0].item()
            raise InputError(
                f"a group's scale or zero is {bad:g}, which {self.parameter_dtype} cannot store; "
                "keys and values must be finite and within its range"
            )
        return stored


def _steps(x: Tensor, scale: Tensor) -> Tensor:
    """x in whole steps of `scale`; 0 where both are 0."""
    return (x / scale.float()).nan_to_num(0.0).round()
