"""A linear layer that computes from integer codes under scales of groups, through torch's CPU kernels.

torch knows w = scale · (code - 8) + centre for codes of four bits, with groups of 32 to 256, and w = scale · code for
codes of eight, with one scale a row. An integer zero fits both: scale · (code - zero) is scale · (code - 8) plus the
constant scale · (8 - zero); and for eight bits, group by group, the same constant times the sum of the group's inputs.
The kernels are vectorized for bf16 inputs only, so x is rounded to bf16 on its way in: right for a decode step, whose
time is the bytes of the weight. What has no kernel (odd shapes) computes from the dequantized weight, and says so in
`path`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.formats.group_codes import GroupCodes

INT4_GROUPS, INT4_OUTPUTS = (32, 64, 128, 256), 16  # what _weight_int4pack_mm_for_cpu accepts; outputs: a multiple of
INT8_STRIDE = 16  # columns that _weight_int8pack_mm reads at once (8 without AVX-512), unchecked past the end of a row


class GroupLinear(nn.Module):
    """y = x Ŵᵀ + b for x [..., in], in the type of x.

    path: "int4" (codes of up to 4 bits; scales and centres are rounded to bf16 too), "int8" (up to 8; scales in fp32),
    or "dequantized". Act-order weights are served with their columns, and x, sorted by group, if every group has as
    many; x is gathered once a call.
    """

    def __init__(self, weight: GroupCodes, bias: Tensor | None = None):
        super().__init__()
        self.register_buffer("bias", bias)
        self.register_buffer("columns", None)
        codes, self.path = weight.codes, _path(weight)
        if self.path == "dequantized":
            self.register_buffer("weight", weight.dequantize())
            return
        if weight.g_idx is not None:
            self.columns = weight.g_idx.argsort(stable=True)
            codes = codes[:, self.columns]
        scale, zero = weight.scale.float().T, weight.zero.float().T  # [groups, out]
        self.group = codes.shape[1] // len(scale)
        if self.path == "int4":
            pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
            self.register_buffer("codes", pack(codes.int().contiguous(), 1))
            self.register_buffer("scale_and_centre", torch.stack((scale, scale * (8 - zero)), -1).bfloat16())
        else:
            middle = 2 ** (weight.bits - 1)
            signed = (codes.int() - middle).to(torch.int8).unflatten(1, (-1, self.group)).transpose(0, 1)
            self.register_buffer("codes", signed.contiguous())  # [groups, out, group]
            self.register_buffer("scale", scale.contiguous())
            self.register_buffer("ones", torch.ones(len(codes), dtype=torch.bfloat16))
            self.register_buffer("centre", (scale * (middle - zero)).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.path == "dequantized":
            return F.linear(x, self.weight.to(x.dtype), bias)
        rows = x.reshape(-1, x.shape[-1])
        if self.columns is not None:
            rows = rows[:, self.columns]
        y = self._int4(rows.bfloat16().contiguous()) if self.path == "int4" else self._int8(rows)
        y = y.to(x.dtype).view(*x.shape[:-1], y.shape[-1])
        return y if bias is None else y + bias

    def _int4(self, x: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.codes, self.group, self.scale_and_centre)

    def _int8(self, x: Tensor) -> Tensor:
        y = x.float().unflatten(-1, (-1, self.group)).sum(-1) @ self.centre  # what the zeros add to each output
        for part, codes, scale in zip(x.bfloat16().split(self.group, 1), self.codes, self.scale, strict=True):
            y.addcmul_(torch._weight_int8pack_mm(part.contiguous(), codes, self.ones), scale)
        return y


def _path(weight: GroupCodes) -> str:
    out, columns = weight.codes.shape
    groups = weight.scale.shape[1]
    if columns % groups or (weight.g_idx is not None and weight.g_idx.bincount(minlength=groups).unique().numel() > 1):
        return "dequantized"
    if weight.bits <= 4 and columns // groups in INT4_GROUPS and out % INT4_OUTPUTS == 0:
        return "int4"
    return "dequantized" if columns // groups % INT8_STRIDE else "int8"
