"""Codes of 1, 2, 4 or 8 bits, packed into bytes; codes of any width up to 8, packed into 32-bit words."""

import math

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


def word_count(count: int, bits: int) -> int:
    """32-bit words that `count` codes of `bits` bits fill; InputError, naming what fits, if they do not fill them."""
    if not 1 <= bits <= 8:
        raise InputError(f"bits={bits}: a packed code has 1 to 8 bits")
    if count * bits % 32:
        multiple = 32 // math.gcd(32, bits)
        raise InputError(f"{count} codes of {bits} bits do not fill 32-bit words; a multiple of {multiple} does")
    return count * bits // 32


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """uint8 [..., count], each below 2^bits, as int32 [..., word_count]: one stream of bits, lowest first.

    So 32 codes of 3 bits fill three words, and two of them straddle a boundary: the layout of GPTQ's checkpoints.
    """
    word_count(codes.shape[-1], bits)
    stream = codes[..., None] >> torch.arange(bits, dtype=torch.uint8) & 1
    return pack(stream.flatten(-2), 1).view(torch.int32)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """The inverse of `pack_words`: uint8 [..., count] from int32 [..., words]."""
    stream = unpack(words.contiguous().view(torch.uint8), 1, 32 * words.shape[-1])
    if stream.shape[-1] % bits:
        raise InputError(f"{words.shape[-1]} words do not hold a whole number of codes of {bits} bits")
    return (stream.unflatten(-1, (-1, bits)) << torch.arange(bits, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)
