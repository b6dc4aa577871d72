"""Codes of 1, 2, 4 or 8 bits, packed into bytes."""

import torch
from torch import Tensor

from labcore.core.errors import InputError

WIDTHS = (1, 2, 4, 8)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that a row of `count` codes of `bits` bits occupies; a last byte may be partly used."""
    if bits not in WIDTHS:
        raise InputError(f"bits={bits}: only codes of {', '.join(map(str, WIDTHS))} bits fill a byte")
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 [..., count], each below 2^bits, as uint8 [..., packed_bytes(count, bits)]: first code in the lowest bits.

    Source: the order of GPTQ's and KIVI's int32 words (KIVI, quant/new_pack.py), here cut into bytes.
    """
    size, per_byte = packed_bytes(codes.shape[-1], bits), 8 // bits
    padded = torch.nn.functional.pad(codes, (0, size * per_byte - codes.shape[-1]))
    packed = padded[..., ::per_byte].clone()
    for i in range(1, per_byte):
        packed |= padded[..., i::per_byte] << (bits * i)
    return packed


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes of each row, uint8 [..., count]: the inverse of `pack`."""
    if packed.shape[-1] != packed_bytes(count, bits):
        raise InputError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes a row; these rows have "
            f"{packed.shape[-1]}"
        )
    codes = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(codes, dim=-1).flatten(-2)[..., :count]
