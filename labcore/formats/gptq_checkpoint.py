"""GPTQ's checkpoint layout: four tensors in place of one weight.

qweight: int32 [in · bits/32, out], codes packed along `in`; qzeros: int32 [groups, out · bits/32], zeros packed along
`out`; scales: fp16 [groups, out]; g_idx: int32 [in], the group of each input. Both packings are one stream of bits,
lowest first. Version 1 stores zero - 1, a slip of the first release that every reader has undone since; version 2
("gptq_v2") stores the zero. Adding 1 twice, or never, shifts every weight by a step: read the version from the file.
Source: ModelCloud/GPTQModel, nn_modules/qlinear (pack_original) and utils/model.py (convert_gptq_v1_to_v2_format).
"""

import torch
from torch import Tensor

from labcore.core.errors import DataError, InputError
from labcore.formats.group_codes import GroupCodes, fp16_scales, in_order
from labcore.formats.packing import pack_words, unpack_words

PARTS = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)


def pack_gptq(weight: GroupCodes, version: int = 2) -> dict[str, Tensor]:
    """The four tensors. InputError for bits or shapes the layout has no place for, or a zero that version 1 lacks."""
    _check(weight.bits, version)
    zero = weight.zero.to(torch.int64)
    if version == 1:
        zero = zero - 1  # so version 1 has 1 … 2^bits for a zero, and version 2 has 0 … 2^bits - 1
    if zero.numel() and not 0 <= zero.min() <= zero.max() < 2**weight.bits:
        bad = weight.zero[(zero < 0) | (zero >= 2**weight.bits)][0].item()
        raise InputError(
            f"a zero is {bad:g}, which {weight.bits}-bit GPTQ version {version} cannot store; use the other"
        )
    return {
        "qweight": pack_words(weight.codes, weight.bits).T.contiguous(),
        "qzeros": pack_words(zero.to(torch.uint8).T.contiguous(), weight.bits),
        "scales": fp16_scales(weight.scale).T.contiguous(),
        "g_idx": weight.group_of_column.int(),
    }


def unpack_gptq(parts: dict[str, Tensor], bits: int, version: int = 2) -> GroupCodes:
    """The weight behind the four tensors; DataError if they do not belong together."""
    _check(bits, version)
    qweight, qzeros, scales, g_idx = (parts[name] for name in PARTS)
    groups, out = scales.shape
    columns = len(g_idx)
    if not groups or qweight.shape != (columns * bits / 32, out) or qzeros.shape != (groups, out * bits / 32):
        raise DataError(
            f"qweight {tuple(qweight.shape)} and qzeros {tuple(qzeros.shape)} do not fit {columns} inputs, {out} "
            f"outputs and {groups} groups of {bits}-bit codes"
        )
    codes = unpack_words(qweight.T.contiguous(), bits)
    zero = unpack_words(qzeros, bits).T.float() + (1 if version == 1 else 0)
    g_idx = g_idx.long()
    ordered = columns % groups == 0 and g_idx.equal(in_order(columns, groups))
    try:
        return GroupCodes(codes, scales.T.float(), zero, bits, None if ordered else g_idx)
    except InputError as error:
        raise DataError(str(error)) from None


def _check(bits: int, version: int) -> None:
    if bits not in BITS:
        raise InputError(f"bits={bits}: GPTQ checkpoints hold codes of {', '.join(map(str, BITS))} bits")
    if version not in (1, 2):
        raise InputError(f"version={version}: GPTQ checkpoints are of version 1 (zeros minus 1) or 2")
