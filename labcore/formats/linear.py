"""Linear layers that compute from a GGUF file's own blocks on a CPU, instead of from dequantized floats.

A decode step reads every weight once, so its time is the bytes of the weights over the memory bandwidth: 4-bit blocks
are read as 4-bit blocks. A prefill pass shares one reading among many rows and is limited by arithmetic: there packed
bf16 is faster. Both layers take bf16 activations; weights keep their codes, scales are rounded to bf16 where said.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.core.errors import DataError
from labcore.formats.blocks import BlockFormat, dequantize

FEW_ROWS = 8  # the int4 kernel works in blocks of 4 rows; measured, two of them still beat the bf16 product


class Int4BlockLinear(nn.Module):
    """y = x Wᵀ with W [out, in] stored as Q4_0 or Q4_1: blocks of 32 codes with one scale (and one minimum).

    Up to FEW_ROWS rows run through torch's int4 kernel on the 4-bit codes, with scale and centre rounded to bf16;
    more rows through oneDNN on a packed bf16 copy of W. x: bf16 [rows, in]; y: bf16 [rows, out].
    Raises DataError for another block format.
    """

    def __init__(self, raw: np.ndarray, format: BlockFormat):
        super().__init__()
        codes, scale, centre = int4_codes(raw, format)
        self.block = format.size
        pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        scale_and_centre = torch.stack((torch.from_numpy(scale.T.copy()), torch.from_numpy(centre.T.copy())), dim=-1)
        self.register_buffer("codes", pack(torch.from_numpy(codes).int(), 1))
        self.register_buffer("scale_and_centre", scale_and_centre.bfloat16())  # [in/32, out, 2]
        # the same weight a second time, so not a buffer: what a pass reads is counted over the buffers
        self.packed = pack_bf16(torch.from_numpy(dequantize(raw, format)).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        if len(x) <= FEW_ROWS:
            return torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.codes, self.block, self.scale_and_centre)
        return packed_linear(x, self.packed)


class Q8BlockHead(nn.Module):
    """Logits x Wᵀ with W [vocab, hidden] stored as Q8_0: blocks of 32 int8 codes with one fp16 scale.

    torch's int8 kernel knows one scale a row, Q8_0 has one a block: a column of blocks is an int8 matrix with one scale
    a row, so W is multiplied column by column and the scales, kept exact, are applied in fp32 between them. Many rows
    use the tied embedding table in bf16. x: bf16 [rows, hidden]; logits: fp32 [rows, vocab].
    """

    def __init__(self, raw: np.ndarray, format: BlockFormat, table: Tensor):
        super().__init__()
        if format.name != "Q8_0":
            raise DataError(f"the head is stored as {format.name}; the 8-bit head reads Q8_0")
        blocks = np.ascontiguousarray(raw).view(format.layout)  # [vocab, hidden/32]
        codes = torch.from_numpy(np.ascontiguousarray(blocks["qs"].swapaxes(0, 1)))
        self.register_buffer("codes", codes)  # int8 [hidden/32, vocab, 32]
        self.register_buffer("scale", torch.from_numpy(blocks["d"].T.astype(np.float32)))  # [hidden/32, vocab]
        self.register_buffer("ones", torch.ones(len(blocks), dtype=torch.bfloat16))
        self.table = table  # bf16 [vocab, hidden], shared with the embedding

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > FEW_ROWS:
            return F.linear(x, self.table).float()
        logits = torch.zeros(len(x), self.scale.shape[1])
        for column, codes, scale in zip(x.split(self.codes.shape[2], dim=1), self.codes, self.scale, strict=True):
            logits.addcmul_(torch._weight_int8pack_mm(column.contiguous(), codes, self.ones), scale)
        return logits


def int4_codes(raw: np.ndarray, format: BlockFormat) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes uint8 0…15 [out, in], and fp32 scale and centre [out, in/32], with w = scale · (code - 8) + centre."""
    if format.name not in ("Q4_0", "Q4_1"):
        raise DataError(f"a weight is stored as {format.name}; the int4 kernel reads Q4_0 and Q4_1")
    blocks = np.ascontiguousarray(raw).view(format.layout)
    low, high = blocks["qs"] & 15, blocks["qs"] >> 4  # the first 16 weights of a block lie in the low halves
    codes = np.concatenate((low, high), axis=-1).reshape(len(blocks), -1)
    scale = blocks["d"].astype(np.float32)
    centre = blocks["m"].astype(np.float32) + 8 * scale if format.name == "Q4_1" else np.zeros_like(scale)
    return codes, scale, centre


def pack_bf16(weight: Tensor) -> Tensor:
    """bf16 [out, in] in oneDNN's blocked layout; plain where oneDNN has none for this CPU."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def packed_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ for a weight from `pack_bf16`."""
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
