"""A 4-bit weight as the kernels of w4a16 read it, repacked once from whatever a checkpoint stores.

K lies along the row of data, four codes to a 16-bit word. Within a stretch of columns, one group or two groups of 32,
word j holds column j and those a quarter, a half and three quarters of the stretch further on, lowest bits first. So a
mask, or a shift, turns a tile of words into a tile of codes whose columns are neighbours: two in a 32-bit register, as
a tensor core wants them, and each quarter multiplies a contiguous piece of x. Nothing is shuffled on the way. GPTQ
packs along K in order and AWQ along N in another (gptq_checkpoint, awq_checkpoint); a kernel for each of them would
unpick that order for every token.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.formats.awq_checkpoint import unpack_awq
from labcore.formats.blocks import named
from labcore.formats.gptq_checkpoint import unpack_gptq
from labcore.formats.group_codes import GroupCodes, dequantize, fp16_scales, in_order
from labcore.formats.linear import int4_codes

GROUPS = (128, 64, 32)  # what the kernels know
TILE = 16  # rows that lie side by side
SHORTEST = 64  # columns of a stretch: a quarter of fewer is less than a tensor core takes
CENTRE = 8  # the zero of a symmetric grid


@dataclass(frozen=True)
class W4Weight:
    """w[n, k] = scale[k // group, n] · (code[n, k] - zero[k // group, n]), K in order of its groups.

    data: uint8 [⌈N/16⌉, K/stretch, 16, stretch/2], pairs of which are words: a stretch of 16 rows lies in one piece, at
    128 columns of a kilobyte, where of one row it has 64 bytes; rows beyond N are zero. grid: int32 [K/group, N], the
    bits of a group's fp16 scale below and its zero above, in one number because a GPU's asynchronous copies move four
    bytes or more. columns: int64 [K], the input that each column multiplies, None if they are in order (act-order moves
    them).
    """

    data: Tensor
    grid: Tensor
    group: int
    columns: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """N outputs, K inputs."""
        return self.grid.shape[1], self.group * len(self.grid)

    @property
    def stretch(self) -> int:
        """Columns whose codes share words."""
        return max(self.group, SHORTEST)

    @property
    def nbytes(self) -> int:
        """What a product reads of it."""
        parts = (self.data, self.grid, self.columns)
        return sum(part.nbytes for part in parts if part is not None)

    def to(self, device: torch.device | str) -> "W4Weight":
        """The same on another device."""
        moved = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **moved)

    @property
    def scale(self) -> Tensor:
        """fp16 [K/group, N]."""
        return self.grid.view(torch.float16)[:, ::2]  # little-endian: the lower half comes first

    @property
    def zero(self) -> Tensor:
        """uint8 [K/group, N]."""
        return (self.grid >> 16).to(torch.uint8)

    @property
    def codes(self) -> Tensor:
        """uint8 [N, K], K in order of the groups."""
        low, high = self.data.transpose(1, 2).unflatten(3, (-1, 2)).unbind(4)  # the bytes of a word
        return torch.stack((low & 15, low >> 4, high & 15, high >> 4), 3).flatten(2).flatten(0, 1)[: self.shape[0]]

    def sorted_weight(self) -> Tensor:
        """float32 [N, K], K in order of the groups: the specification of what a kernel multiplies with."""
        group = in_order(self.shape[1], len(self.grid)).to(self.grid.device)
        return dequantize(self.codes, self.scale.t().float(), self.zero.t().float(), group)

    def dequantize(self) -> Tensor:
        """float32 [N, K], K as in the checkpoint."""
        weight = self.sorted_weight()
        if self.columns is None:
            return weight
        return torch.empty_like(weight).index_copy_(1, self.columns, weight)


def repack(weight: GroupCodes) -> W4Weight:
    """Integer codes of up to four bits, from any method or file; scales are rounded to fp16, as files keep them.

    Act-order columns are sorted by group once, here; x is gathered to match. A group may be any multiple of 32 columns
    (a whole row, too): its scale is repeated for each 128, 64 or 32 of them.
    Raises InputError for more bits, groups that 32 does not divide or that differ in size, or zeros outside 0 … 16.
    """
    if why := obstacle(weight):
        raise InputError(why)
    size = weight.codes.shape[1] // weight.scale.shape[1]
    codes, columns = weight.codes, None
    if weight.g_idx is not None:
        columns = weight.g_idx.argsort(stable=True)
        codes = codes[:, columns]
    group = next(group for group in GROUPS if size % group == 0)
    quarters = codes.unflatten(1, (-1, 4, max(group, SHORTEST) // 4)).unbind(2)
    words = torch.stack((quarters[0] | quarters[1] << 4, quarters[2] | quarters[3] << 4), 3)
    scale, zero = (one.t().repeat_interleave(size // group, 0).contiguous() for one in (weight.scale, weight.zero))
    return W4Weight(
        data=tiled(words.flatten(2)),
        grid=grid_of(fp16_scales(scale), zero),
        group=group,
        columns=columns,
    )


def tiled(rows: Tensor) -> Tensor:
    """[N, stretches, bytes] as in `W4Weight.data`: tiles of TILE rows, the last one filled up with zeros."""
    return F.pad(rows, (0, 0, 0, 0, 0, -len(rows) % TILE)).unflatten(0, (-1, TILE)).transpose(1, 2).contiguous()


def grid_of(scale: Tensor, zero: Tensor) -> Tensor:
    """fp16 scales and zeros of 0 … 16 as the numbers of `W4Weight.grid`."""
    return scale.view(torch.int16).int() & 0xFFFF | zero.int() << 16


def obstacle(weight: GroupCodes) -> str | None:
    """Why `repack` refuses a weight; None if it does not."""
    k, groups = weight.codes.shape[1], weight.scale.shape[1]
    if weight.bits > 4:
        return f"codes of {weight.bits} bits: two of them must fit in a byte, so at most 4"
    if k % groups or k // groups % GROUPS[-1]:
        return f"{k} columns in {groups} groups: each must have a multiple of {GROUPS[-1]}"
    if k % SHORTEST:
        return f"{k} columns: the kernels take a multiple of {SHORTEST}"
    counts = weight.group_of_column.bincount(minlength=groups)
    if (counts != k // groups).any():
        return f"g_idx gives groups {int(counts.min())} to {int(counts.max())} columns: equal groups only"
    if weight.zero.min() < 0 or weight.zero.max() > 16:
        return f"zeros from {weight.zero.min():g} to {weight.zero.max():g}: 4-bit formats have 0 to 16"
    return None


def repack_gptq(parts: dict[str, Tensor], version: int = 2) -> W4Weight:
    """From qweight, qzeros, scales and g_idx of a 4-bit GPTQ checkpoint; version 1 stores zeros minus 1."""
    return repack(unpack_gptq(parts, 4, version))


def repack_awq(parts: dict[str, Tensor]) -> W4Weight:
    """From qweight, qzeros and scales of an AWQ checkpoint ("gemm" layout)."""
    return repack(unpack_awq(parts))


def repack_gguf_q4_0(raw: np.ndarray) -> W4Weight:
    """From raw uint8 [N, row bytes] of Q4_0 blocks: 32 columns with one fp16 scale, zero 8.

    Q4_0 alone of ggml's 4-bit types is a grid of whole steps around a code. Q4_1 and Q4_K subtract a minimum that is no
    multiple of the scale, and Q4_K's scale is a product that fp16 does not hold: labcore.formats serves those.
    """
    codes, scale, _ = (torch.from_numpy(part) for part in int4_codes(raw, named("Q4_0")))
    return repack(GroupCodes(codes, scale, torch.full_like(scale, CENTRE), 4))
