"""Integer codes under scales of groups, the content that GPTQ's and AWQ's checkpoints pack in different orders."""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError


@dataclass(frozen=True)
class GroupCodes:
    """w[o, i] ≈ scale[o, g] · (code[o, i] - zero[o, g]), where g is the group of column i.

    codes: uint8 [out, in], below 2^bits; scale, zero: float [out, groups], the zero whole; g_idx: int64 [in], the group
    of each column, None if columns lie in order, in groups of equal size. InputError if the parts do not fit together.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    g_idx: Tensor | None = None

    def __post_init__(self):
        if self.codes.ndim != 2 or self.codes.dtype != torch.uint8:
            raise InputError(f"codes {tuple(self.codes.shape)} of {self.codes.dtype}; they must be a matrix of uint8")
        out, columns = self.codes.shape
        groups = self.scale.shape[-1] if self.scale.ndim else 0
        if not groups or self.scale.shape != (out, groups) or self.zero.shape != self.scale.shape:
            raise InputError(
                f"scales {tuple(self.scale.shape)} and zeros {tuple(self.zero.shape)} for {out} rows; both must be "
                f"[{out}, groups] with one group or more"
            )
        broken = ~self.zero.isfinite() | (self.zero != self.zero.round())
        if broken.any():
            raise InputError(f"a zero is {self.zero[broken][0].item()}; a zero is one of the codes, so a whole number")
        if self.codes.numel() and int(self.codes.max()) >= 2**self.bits:
            raise InputError(f"a code is {int(self.codes.max())}; {self.bits} bits hold 0 to {2**self.bits - 1}")
        if self.g_idx is None and columns % groups:
            raise InputError(f"{columns} columns are not a whole number of {groups} groups; give g_idx")
        if self.g_idx is not None and (
            len(self.g_idx) != columns or not 0 <= self.g_idx.min() <= self.g_idx.max() < groups
        ):
            raise InputError(f"g_idx must name one of the {groups} groups for each of the {columns} columns")

    @property
    def group_of_column(self) -> Tensor:
        """int64 [in]."""
        return in_order(self.codes.shape[1], self.scale.shape[1]) if self.g_idx is None else self.g_idx

    @property
    def symmetric(self) -> bool:
        """Whether every zero is the middle code, 2^(bits-1)."""
        return bool((self.zero == 2 ** (self.bits - 1)).all())

    def dequantize(self) -> Tensor:
        """float32 [out, in]."""
        return dequantize(self.codes, self.scale.float(), self.zero.float(), self.group_of_column)


def in_order(columns: int, groups: int) -> Tensor:
    """The group of each column, int64 [columns], where neighbours share a group of columns / groups."""
    return torch.arange(columns) // (columns // groups)


def dequantize(codes: Tensor, scale: Tensor, zero: Tensor, group_of_column: Tensor) -> Tensor:
    """scale · (code - zero), [out, in] in the type of `scale`; the parts as in GroupCodes."""
    return scale[:, group_of_column] * (codes.to(scale.dtype) - zero[:, group_of_column])


def fp16_scales(scale: Tensor) -> Tensor:
    """The scales as a checkpoint keeps them; InputError for one that fp16 cannot hold."""
    half = scale.half()
    lost = ~half.isfinite() | (half == 0) & (scale != 0)
    if lost.any():
        raise InputError(f"a scale is {scale[lost][0].item():g}, which fp16 cannot store; normalize the weight first")
    return half
