"""Four-bit codebooks over flat blocks: NF4, FP4 and double quantization, as bitsandbytes stores them.

A tensor is flattened and cut into blocks of 64 that pay no heed to rows. Each block keeps its largest magnitude and one
of 16 levels in [-1, 1] for each element; two codes share a byte, the first in the high half. Double quantization stores
the blocks' magnitudes in 8 bits in turn: their mean, and a level of the "dynamic map" for what is left.
Sources: QLoRA, arXiv:2305.14314, section 3; the dynamic map: 8-bit Approximations, arXiv:1511.04561, and 8-bit
Optimizers, arXiv:2110.02861; bitsandbytes functional.py and backends/default/ops.py.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite

OUTERMOST = 0.9677083  # the quantile that becomes level 1: half-way between the centres of the two outermost bins
FP4_LEVELS = (0, 0.0625, 8, 12, 4, 6, 2, 3)  # magnitude of codes 0 to 7 in twelfths: two exponent bits, one of mantissa


@cache
def levels(kind: str) -> Tensor:
    """The level behind each code, float32 [16]; `kind` is "nf4" or "fp4". InputError for another."""
    if kind == "nf4":
        return _normal_float()
    if kind == "fp4":
        magnitude = torch.tensor(FP4_LEVELS, dtype=torch.float64) / 12
        return torch.cat((magnitude, -magnitude)).float()
    raise InputError(f"kind={kind!r}; the four-bit codebooks are 'nf4' and 'fp4'")


def _normal_float() -> Tensor:
    """Quantiles of the normal distribution, evenly spaced in probability: 7 below zero, zero itself, 8 above."""
    positive = torch.special.ndtri(torch.linspace(OUTERMOST, 0.5, 9)[:-1].double())
    negative = -torch.special.ndtri(torch.linspace(OUTERMOST, 0.5, 8)[:-1].double())
    values = torch.cat((negative, torch.zeros(1), positive)).float().sort().values
    return values / values.max()


@cache
def dynamic_map() -> Tensor:
    """The 256 levels that bitsandbytes stores magnitudes with, float32, ascending from -0.993 to 1.

    Seven decades, each cut into twice as many even steps as the one below it: fine near zero, half a percent near one.
    """
    sizes = []
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        sizes.append(10.0 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2))
    size = torch.cat(sizes)
    return torch.cat((-size, size, torch.tensor([0.0, 1.0]))).sort().values


@dataclass(frozen=True)
class DoubleQuantized:
    """Magnitudes of blocks in 8 bits: level[codes] · scale of their block of `block` + offset."""

    codes: Tensor  # uint8 [blocks]
    scale: Tensor  # float32 [ceil(blocks / block)]
    offset: Tensor  # float32 scalar, the mean
    block: int

    def dequantize(self) -> Tensor:
        """float32 [blocks]."""
        level = dynamic_map()[self.codes.int()]
        return level * self.scale.repeat_interleave(self.block)[: len(level)] + self.offset

    @property
    def nbytes(self) -> int:
        return len(self.codes) + 4 * len(self.scale) + 4


@dataclass(frozen=True)
class CodebookTensor:
    """A tensor in blocks of four-bit codes. packed: uint8 [ceil(elements / 2)]; absmax: float32 [blocks], or nested."""

    packed: Tensor
    absmax: Tensor | DoubleQuantized
    shape: torch.Size
    kind: str
    block: int

    def dequantize(self) -> Tensor:
        """float32 [*shape]."""
        codes = torch.stack((self.packed >> 4, self.packed & 15), dim=-1).flatten()[: self.shape.numel()]
        absmax = self.absmax.dequantize() if isinstance(self.absmax, DoubleQuantized) else self.absmax
        scale = absmax.repeat_interleave(self.block)[: len(codes)]
        return (levels(self.kind)[codes.int()] * scale).view(self.shape)

    @property
    def nbytes(self) -> int:
        nested = isinstance(self.absmax, DoubleQuantized)
        return len(self.packed) + (self.absmax.nbytes if nested else 4 * len(self.absmax))

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.shape.numel()


def quantize(x: Tensor, kind: str = "nf4", block: int = 64, *, double: bool = False) -> CodebookTensor:
    """The nearest level of each element, ties to the lower one; a block of zeros has magnitude 0.

    `double` stores the magnitudes in 8 bits. InputError for an empty tensor, an element that is not finite, or a block
    size below 1.
    """
    if block < 1 or not x.numel():
        raise InputError(f"block={block} for a tensor of {x.numel()} elements; both must be 1 or more")
    x = x.float()
    check_finite(x, "element")  # as float32: a larger float64 is infinite there
    blocks = _blocks(x.flatten(), block)
    absmax = blocks.abs().amax(1)
    table = levels(kind)
    order = table.argsort(stable=True)  # FP4's codes are not in the order of their levels
    midpoints = (table[order[:-1]] + table[order[1:]]) / 2
    scaled = (blocks * (1 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    codes = order[torch.bucketize(scaled, midpoints)].to(torch.uint8).flatten()
    codes = F.pad(codes, (0, len(codes) % 2), value=int(order[torch.bucketize(torch.zeros(()), midpoints)]))
    packed = (codes[::2] << 4 | codes[1::2])[: math.ceil(x.numel() / 2)]  # beyond the end: the code of 0
    return CodebookTensor(packed, double_quantize(absmax) if double else absmax, x.shape, kind, block)


def double_quantize(absmax: Tensor, block: int = 256) -> DoubleQuantized:
    """Magnitudes [blocks] in 8 bits: the nearest level of the dynamic map, ties to the lower one."""
    offset = absmax.mean()
    centred = _blocks(absmax - offset, block)
    scale = centred.abs().amax(1)
    x = (centred / scale[:, None]).nan_to_num(0.0)  # 0/0: magnitudes that are all the mean
    table = dynamic_map()
    below = (torch.searchsorted(table, x, right=True) - 1).clamp(0, len(table) - 2)
    above = (table[below + 1] - x) < (x - table[below])
    return DoubleQuantized((below + above).to(torch.uint8).flatten()[: len(absmax)], scale, offset, block)


def _blocks(x: Tensor, block: int) -> Tensor:
    """x [elements] as [blocks, block], the last one filled up with zeros."""
    count = math.ceil(len(x) / block)
    return F.pad(x, (0, count * block - len(x))).view(count, block)
