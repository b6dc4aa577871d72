"""A matrix in FP8: a code per element and a float32 scale per tile, which maps the tile's largest onto the format's.

The tile is the granularity: the whole tensor, a row (a weight's output channel, an activation's token), 128 × 128
(DeepSeek-V3's weights) or 1 × 128 (its activations, arXiv:2412.19437, section 3.3.2). A float format carries its own
scale, so the tile matters less than it does for integers: only what falls below the subnormals is lost.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.formats.fp8 import E4M3, Float8
from labcore.formats.groups import check_finite

TENSOR, ROW, BLOCK = (None, None), (1, None), (128, 128)  # tiles [rows, columns]; None: all of them


@dataclass(frozen=True)
class FP8Matrix:
    """codes: uint8 [rows, columns]; scale: float32 [tiles down, tiles across]."""

    codes: Tensor
    scale: Tensor
    tile: tuple[int, int]
    format: Float8

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        return self.format.decode(self.codes) * spread(self.scale, self.tile, self.codes.shape)

    @property
    def nbytes(self) -> int:
        return self.codes.numel() + 4 * self.scale.numel()

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.codes.numel()


def quantize(x: Tensor, tile: tuple[int | None, int | None] = ROW, format: Float8 = E4M3) -> FP8Matrix:
    """x [rows, columns] with the tile's largest magnitude on the format's largest number; tiles at the edges are cut.

    InputError for a tile size below 1, a tensor that is no matrix, or an element that is not finite.
    """
    if x.ndim != 2 or not x.numel():
        raise InputError(f"a tensor of shape {tuple(x.shape)}; FP8 tiles need a matrix")
    if any(size is not None and size < 1 for size in tile):
        raise InputError(f"tile={tile}: a tile has at least one row and one column; None means all of them")
    x = x.float()
    check_finite(x, "element")  # as float32: a larger float64 is infinite there
    rows, columns = (size or whole for size, whole in zip(tile, x.shape, strict=True))
    padded = F.pad(x, (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
    largest = padded.abs().unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).amax((1, 3))
    scale = largest / format.max
    scale = torch.where(scale > 0, scale, 1.0)  # a tile of zeros, or of less than a scale can say, rounds to zeros
    return FP8Matrix(format.encode(x / spread(scale, (rows, columns), x.shape)), scale, (rows, columns), format)


def spread(scale: Tensor, tile: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """The scale of every element, float32 [*shape]."""
    return scale.repeat_interleave(tile[0], 0)[: shape[0]].repeat_interleave(tile[1], 1)[:, : shape[1]]
