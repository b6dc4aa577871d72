"""A linear layer that computes from ggml blocks as they are stored, in compiled code.

`specification` says in plain torch what a layer computes; `BlockLinear` computes it from 4- or 8-bit panels (linear.h).
Both may fold in what stands before the product in a decoder, RMSNorm or SwiGLU.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.core.errors import DataError, InputError
from labcore.formats.blocks import BlockFormat, dequantize
from labcore.formats.linear import FEW_ROWS, pack_bf16, packed_linear
from labcore.kernels.cpu.library import Linear, library

PANEL = 8  # output rows that lie side by side
Q4_PANEL = np.dtype([("scale", "<f2", PANEL), ("minimum", "<f2", PANEL), ("codes", "<u2", (4, PANEL, 2))])
Q8_PANEL = np.dtype([("scale", "<f2", PANEL), ("codes", "i1", (16, PANEL, 2))])


def specification(
    x: Tensor, weight: Tensor, *, norm: Tensor | None = None, eps: float = 0.0, gated: bool = False
) -> Tensor:
    """f(x) Wᵀ, with f RMSNorm (`norm`), SwiGLU (`gated`: x is [rows, 2 · columns]) or nothing.

    x: [rows, columns]; weight: [outputs, columns]; returns [rows, outputs].
    """
    return F.linear(prepared(x, norm, eps, gated), weight)


def prepared(x: Tensor, norm: Tensor | None, eps: float, gated: bool) -> Tensor:
    """What the weight is multiplied with: f(x) of `specification`."""
    if gated:
        gate, up = x.chunk(2, dim=-1)
        x = F.silu(gate) * up
    return x if norm is None else F.rms_norm(x, norm.shape, norm, eps)


def pack_panels(raw: np.ndarray, format: BlockFormat) -> np.ndarray:
    """Raw rows of Q4_0, Q4_1 or Q8_0 blocks as panels [outputs/8, blocks]: the same codes and scales, reordered.

    raw: uint8 [outputs, bytes per row]. Q4_0's centre of 8 becomes a minimum of -8 scales, exactly.
    Raises DataError for another format, or outputs that are not a multiple of 8.
    """
    if format.name not in ("Q4_0", "Q4_1", "Q8_0"):
        raise DataError(f"a weight is stored as {format.name}; the compiled kernel reads Q4_0, Q4_1 and Q8_0")
    blocks = np.ascontiguousarray(raw).view(format.layout)
    if len(blocks) % PANEL:
        raise DataError(f"a weight has {len(blocks)} rows; the compiled kernel needs a multiple of {PANEL}")
    side_by_side = lambda field: field.reshape(-1, PANEL, *field.shape[1:])  # noqa: E731  [panel, row, block, ...]
    layout = Q8_PANEL if format.name == "Q8_0" else Q4_PANEL
    panels = np.empty((len(blocks) // PANEL, blocks.shape[1]), dtype=layout)
    panels["scale"] = side_by_side(blocks["d"]).swapaxes(1, 2)
    if format.name == "Q8_0":
        codes = side_by_side(blocks["qs"].reshape(*blocks.shape, 16, 2))
        panels["codes"] = codes.transpose(0, 2, 3, 1, 4)
        return panels
    minimum = blocks["m"] if format.name == "Q4_1" else -8 * blocks["d"]
    panels["minimum"] = side_by_side(minimum).swapaxes(1, 2)
    codes = np.concatenate((blocks["qs"] & 15, blocks["qs"] >> 4), axis=-1)  # columns 0…31 of every block
    codes = side_by_side(codes.reshape(*blocks.shape, 4, 4, 2)).astype("<u2")  # [panel, row, block, chunk, n, h]
    packed = codes[..., 0, :] | codes[..., 1, :] << 4 | codes[..., 2, :] << 8 | codes[..., 3, :] << 12
    panels["codes"] = packed.transpose(0, 2, 3, 1, 4)
    return panels


class BlockLinear(nn.Module):
    """`specification` with a weight stored as Q4_0, Q4_1 or Q8_0 blocks.

    Weights keep the file's codes and scales; activations are rounded to 16-bit integers, one scale for 32 of them. On a
    CPU with bf16 instructions more than FEW_ROWS rows are multiplied in torch, with a packed bf16 copy of the weight.
    raw: uint8 [outputs, bytes per row]; norm: fp32 [columns]. Raises InputError where the kernels cannot run,
    DataError for a format they do not read.
    """

    def __init__(
        self, raw: np.ndarray, format: BlockFormat, *, norm: Tensor | None = None, eps: float = 0.0, gated: bool = False
    ):
        super().__init__()
        self._run = library().block_linear
        panels = pack_panels(raw, format)
        self.columns, self.outputs = panels.shape[1] * format.size, PANEL * len(panels)
        self.width = self.columns * (2 if gated else 1)
        self.register_buffer("panels", torch.from_numpy(panels.view(np.uint8)))
        self.register_buffer("norm", None if norm is None else norm.float().contiguous())
        bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.packed = (
            pack_bf16(torch.from_numpy(dequantize(raw, format)).bfloat16()) if bf16 else None
        )  # no second buffer
        norm_at = None if self.norm is None else self.norm.data_ptr()
        bits = 8 if format.name == "Q8_0" else 4
        self.struct = Linear(self.panels.data_ptr(), norm_at, eps, gated, bits, self.columns, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: fp32 [rows, width]; returns fp32 [rows, outputs]."""
        if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != self.width:
            raise InputError(f"x is {x.dtype} {tuple(x.shape)}; this layer takes float32 [rows, {self.width}]")
        rows = x.shape[0]
        if self.packed is not None and rows > FEW_ROWS:
            ready = prepared(x, self.norm, self.struct.eps, bool(self.struct.gated))
            return packed_linear(ready.bfloat16(), self.packed).float()
        x, y = x.contiguous(), torch.empty(rows, self.outputs)
        self._run(self.struct, x.data_ptr(), y.data_ptr(), rows, torch.get_num_threads())
        return y
