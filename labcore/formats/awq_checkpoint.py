"""AWQ's checkpoint layout for its GEMM kernel: three tensors in place of one 4-bit weight.

qweight: int32 [in, out/8], eight neighbouring outputs to a word; qzeros: int32 [groups, out/8], the same way; scales:
fp16 [groups, out]. Within a word the nibbles, lowest first, hold outputs 0, 2, 4, 6, 1, 3, 5, 7: the kernel converts
two nibbles at a time, 16 bits apart, and gets neighbours. Zeros are stored as they are.
Source: casper-hansen/AutoAWQ, awq/utils/packing_utils.py and modules/linear/gemm.py.
"""

import torch
from torch import Tensor

from labcore.core.errors import DataError, InputError
from labcore.formats.group_codes import GroupCodes, fp16_scales
from labcore.formats.packing import pack_words, unpack_words

PARTS = ("qweight", "qzeros", "scales")
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the output, of eight, in each nibble
PLACE = (0, 4, 1, 5, 2, 6, 3, 7)  # the nibble of each output


def pack_awq(weight: GroupCodes) -> dict[str, Tensor]:
    """The three tensors. InputError for other than 4 bits, act-order, zeros beyond a code, or outputs not in eights."""
    out = len(weight.codes)
    if weight.bits != 4 or weight.g_idx is not None or out % 8:
        raise InputError(
            f"AWQ checkpoints hold 4-bit codes in ordered groups, outputs in eights; this weight has {weight.bits} bits"
            f"{', act-order' if weight.g_idx is not None else ''} and {out} outputs"
        )
    if weight.zero.numel() and not 0 <= weight.zero.min() <= weight.zero.max() <= 15:
        raise InputError(f"a zero is {weight.zero.max().item():g}; AWQ checkpoints store 0 to 15")
    return {
        "qweight": pack_words(_permuted(weight.codes.T, ORDER), 4),
        "qzeros": pack_words(_permuted(weight.zero.to(torch.uint8).T, ORDER), 4),
        "scales": fp16_scales(weight.scale).T.contiguous(),
    }


def unpack_awq(parts: dict[str, Tensor]) -> GroupCodes:
    """The weight behind the three tensors; DataError if they do not belong together."""
    qweight, qzeros, scales = (parts[name] for name in PARTS)
    groups, out = scales.shape
    if not groups or qweight.shape[1] * 8 != out or qzeros.shape != (groups, out / 8) or qweight.shape[0] % groups:
        raise DataError(
            f"qweight {tuple(qweight.shape)} and qzeros {tuple(qzeros.shape)} do not fit scales {tuple(scales.shape)}"
        )
    codes = _permuted(unpack_words(qweight, 4), PLACE).T.contiguous()
    zero = _permuted(unpack_words(qzeros, 4), PLACE).T.float()
    return GroupCodes(codes, scales.T.float(), zero, 4)


def _permuted(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """Every run of eight along the last axis in another order."""
    return x.unflatten(-1, (-1, 8))[..., list(order)].flatten(-2).contiguous()
