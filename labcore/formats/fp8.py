"""Floats of eight bits: a sign, an exponent and a mantissa, and nothing about the tensor they came from.

E4M3 trades range for precision, E5M2 the other way round. A float format carries its own scale: a step is an eighth (or
a quarter) of the value's power of two, at any magnitude between the smallest normal number and the largest.
Source: Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433, table 1; OCP 8-bit Floating Point
Specification 1.0. E4M3 is the variant without infinities, torch.float8_e4m3fn.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats import groups

NAN = 0x7F


@dataclass(frozen=True)
class Float8:
    """Codes are sign · 128 + exponent field · 2^mantissa_bits + mantissa; exponent field 0 holds the subnormals.

    `highest` is the code of the largest finite number; what rounds beyond it is `overflow`: infinity, or NaN.
    """

    name: str
    mantissa_bits: int
    bias: int
    highest: int
    overflow: int

    @property
    def max(self) -> float:
        return self.values()[self.highest].item()

    def values(self) -> Tensor:
        """float32 [256]: the number behind every code."""
        return _values(self)

    def encode(self, x: Tensor, saturate: bool = True) -> Tensor:
        """Codes uint8, shaped like x, of the nearest numbers, ties to an even mantissa.

        x is read as float32. What lies beyond the largest finite number, infinity included, becomes that number if
        `saturate`, else `overflow`. NaN stays NaN.
        """
        x = x.float()
        size = x.abs().clamp(max=4 * self.max)  # far enough out to overflow, small enough to compute with
        exponent = torch.frexp(size.clamp(min=2.0 ** (1 - self.bias))).exponent - 1  # the power of two at or below x
        steps = torch.ldexp(size, self.mantissa_bits - exponent).round()  # in units of the last mantissa bit
        # Neighbouring numbers have neighbouring codes, across a power of two as within one: a carry needs no care.
        code = ((exponent + self.bias - 1) << self.mantissa_bits) + steps.nan_to_num(0).int()
        code = code.clamp(max=self.highest if saturate else self.overflow)
        code = torch.where(x.isnan(), NAN, code) + 128 * x.signbit()
        return code.to(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """float32, shaped like codes."""
        return self.values().to(codes.device).index_select(0, codes.int().flatten()).view(codes.shape)


@cache
def _values(format: Float8) -> Tensor:
    codes = torch.arange(128)
    field, mantissa = codes >> format.mantissa_bits, codes & (2**format.mantissa_bits - 1)
    normal = torch.ldexp(1 + mantissa / 2**format.mantissa_bits, field - format.bias)
    subnormal = torch.ldexp(mantissa / 2**format.mantissa_bits, torch.tensor(1 - format.bias))
    size = torch.where(field > 0, normal, subnormal)
    size[format.highest + 1 :] = torch.nan
    if format.overflow != NAN:
        size[format.overflow] = torch.inf
    return torch.cat((size, -size))


E4M3 = Float8("e4m3", mantissa_bits=3, bias=7, highest=0x7E, overflow=NAN)
E5M2 = Float8("e5m2", mantissa_bits=2, bias=15, highest=0x7B, overflow=0x7C)


@dataclass(frozen=True)
class ScaledFloat8:
    """A group format like Uniform: x ≈ scale · number, the scale (float32) mapping a group's largest onto `float8.max`.

    `scaled=False` stores the numbers as they are and saturates, which is what engines do with a scale of 1.
    """

    float8: Float8 = E4M3
    scaled: bool = False

    bits = 8

    @property
    def parameters(self) -> tuple[torch.dtype, ...]:
        """What a group stores beside its codes."""
        return (torch.float32,) if self.scaled else ()

    def quantize(self, x: Tensor, axis: int, group: int) -> tuple[Tensor, ...]:
        """Codes uint8, shaped like x, and the scales of its groups along `axis`. InputError if x is not finite."""
        x = groups.split(x.float(), axis, group)
        if not x.isfinite().all():
            raise InputError(f"an element is {x[~x.isfinite()][0].item()}; keys and values must be finite")
        if not self.scaled:
            return (groups.join(self.float8.encode(x), axis),)
        scale = x.abs().amax(axis, keepdim=True) / self.float8.max
        codes = self.float8.encode((x / scale).nan_to_num(0.0))  # 0/0: a group of zeros
        return groups.join(codes, axis), scale.squeeze(axis)

    def dequantize(self, codes: Tensor, *parameters: Tensor, axis: int, group: int) -> Tensor:
        """float32, shaped like codes."""
        x = self.float8.decode(codes)
        for scale in parameters:
            x = groups.join(groups.split(x, axis, group) * scale.unsqueeze(axis), axis)
        return x
