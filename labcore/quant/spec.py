"""What a weight is rounded to: the grid (QuantSpec) and the codes on it (QuantizedWeight).

A weight is [out, in]; the elements of a row that stand next to each other along `in` share a scale in groups.
w ≈ scale · (code - zero), codes 0 … 2^bits - 1, and the zero is one of the codes: an integer, so that 0 is a grid
point. That is the convention of GPTQ, AWQ, torchao and their checkpoints. KIVI's cache and ggml's Q4_1 keep the group's
minimum as a float instead: see labcore.formats.uniform.
"""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.group_codes import GroupCodes, dequantize, fp16_scales, in_order
from labcore.formats.groups import check_finite
from labcore.formats.packing import WIDTHS, packed_bytes


@dataclass(frozen=True)
class QuantSpec:
    """A grid. group: elements along `in` that share a scale; None: the whole row (one scale per output channel).

    symmetric: the zero is the middle code, 2^(bits-1), and is not stored.
    """

    bits: int
    group: int | None = None
    symmetric: bool = False

    def __post_init__(self):
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits={self.bits}: codes have 2 to 8 bits")
        if self.group is not None and self.group < 1:
            raise InputError(f"group={self.group}: a group has at least one element; None means the whole row")

    @property
    def highest(self) -> int:
        """The largest code; the smallest is 0."""
        return 2**self.bits - 1

    @property
    def centre(self) -> int:
        """The zero of a symmetric grid."""
        return 2 ** (self.bits - 1)

    def group_size(self, columns: int) -> int:
        """Elements per group of a row of `columns`; InputError, naming the groups that fit, if they do not divide."""
        size = self.group or columns
        if columns % size:
            fitting = [n for n in range(8, columns) if columns % n == 0]
            near = sorted(sorted(fitting, key=lambda n: abs(math.log(n / size)))[:6])
            raise InputError(
                f"group={size} does not divide rows of {columns} weights; groups that do: "
                f"{', '.join(map(str, [*near, columns]))}"
            )
        return size


@dataclass(frozen=True)
class QuantizedWeight:
    """codes: uint8 [out, in]; scale, zero: float [out, groups], the zero whole numbers.

    g_idx: int64 [in], the group of every column, where groups were formed in another order than the columns'
    (act-order); None: column // group size.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    spec: QuantSpec
    g_idx: Tensor | None = None

    def dequantize(self) -> Tensor:
        """[out, in], in the type of `scale`."""
        group = in_order(self.codes.shape[1], self.scale.shape[1]) if self.g_idx is None else self.g_idx
        return dequantize(self.codes, self.scale, self.zero, group)

    def group_codes(self) -> GroupCodes:
        """The same for labcore.formats: to serve it from its codes (GroupLinear), or to write it into a checkpoint."""
        return GroupCodes(self.codes, self.scale, self.zero, self.spec.bits, self.g_idx)

    def stored(self) -> "QuantizedWeight":
        """The weight as a file keeps it: scales rounded to fp16. InputError if one does not fit into fp16."""
        return replace(self, scale=fp16_scales(self.scale).float(), zero=self.zero.float())

    @property
    def nbytes(self) -> int:
        """Bytes of storage: packed codes, fp16 scales, packed zeros unless they are all the centre, int32 g_idx."""
        out, columns = self.codes.shape
        total = out * code_bytes(columns, self.spec.bits) + 2 * self.scale.numel()
        if not self.spec.symmetric:
            total += out * code_bytes(self.zero.shape[1], self.spec.bits)
        return total + (0 if self.g_idx is None else 4 * columns)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.codes.numel()


def bit_planes(bits: int) -> list[tuple[int, int]]:
    """(shift, width) of the pieces a code is cut into so that each fills bytes: 3 bits are 2 low ones and 1 high one.

    ggml stores Q3_K, Q5_K and Q6_K that way.
    """
    planes, shift = [], 0
    for width in sorted(WIDTHS, reverse=True):
        while bits - shift >= width:
            planes.append((shift, width))
            shift += width
    return planes


def code_bytes(count: int, bits: int) -> int:
    """Bytes of `count` packed codes."""
    return sum(packed_bytes(count, width) for _, width in bit_planes(bits))


def check_weight(w: Tensor) -> None:
    """InputError unless w is a matrix of finite numbers."""
    if w.ndim != 2 or not w.numel():
        raise InputError(f"a weight of shape {tuple(w.shape)}; it must be a matrix [out, in]")
    check_finite(w, "weight")
