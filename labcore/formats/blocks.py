"""ggml block formats: how each tensor type lays out a block of weights, and how to read one back.

A row is cut into blocks of 32 or 256 weights; a block never crosses a row. Each format below is the struct as it lies
in the file, followed by the function that turns an array of such structs into float32 [blocks, weights per block].
`d` is always the fp16 scale of the block, `m` or `dmin` its fp16 offset, `qs` the packed codes.
Source: ggml/src/ggml-common.h (structs) and ggml-quants.c (dequantize_row_*); the operations follow the same order, so
the floats are bit-identical.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labcore.core.errors import DataError, InputError


@dataclass(frozen=True)
class BlockFormat:
    """One ggml tensor type: `size` weights are stored as one `layout` record of `layout.itemsize` bytes."""

    name: str
    id: int
    size: int
    layout: np.dtype
    decode: Callable[[np.ndarray], np.ndarray]

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.layout.itemsize / self.size

    def row_bytes(self, columns: int) -> int:
        """Bytes that one row of `columns` weights occupies; `columns` must be a multiple of the block size."""
        if columns % self.size:
            raise DataError(f"a row of {columns} weights is not a whole number of {self.name} blocks of {self.size}")
        return columns // self.size * self.layout.itemsize


FORMATS: dict[int, BlockFormat] = {}  # ggml type id -> format, filled by the decorator below

# Types that llama.cpp writes and this module does not read; named so that the error can name them.
UNREADABLE = {
    15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def block_format(type_id: int) -> BlockFormat:
    """The format of a ggml type id; DataError for one this module cannot read."""
    if type_id not in FORMATS:
        readable = ", ".join(f.name for f in FORMATS.values())
        raise DataError(f"tensor type {UNREADABLE.get(type_id, 'unknown')} (ggml id {type_id}); readable: {readable}")
    return FORMATS[type_id]


def named(name: str) -> BlockFormat:
    """The format called `name`, such as "Q4_K"; InputError for one this module does not know."""
    for format in FORMATS.values():
        if format.name == name:
            return format
    raise InputError(f"tensor type {name!r} is unknown; known: {', '.join(f.name for f in FORMATS.values())}")


def dequantize(raw: np.ndarray, format: BlockFormat) -> np.ndarray:
    """Float32 [..., columns] of raw uint8 [..., row bytes]."""
    blocks = np.ascontiguousarray(raw).view(format.layout)
    out = np.empty((blocks.size, format.size), dtype=np.float32)
    step = 2**15 // format.size  # weights at a time: the temporaries stay in the L2 cache, three times as fast
    for start in range(0, blocks.size, step):
        out[start : start + step] = format.decode(blocks.reshape(-1)[start : start + step]).reshape(-1, format.size)
    return out.reshape(*raw.shape[:-1], blocks.shape[-1] * format.size)


def _format(name: str, id: int, size: int, *fields: tuple):
    def register(decode):
        FORMATS[id] = BlockFormat(name, id, size, np.dtype(list(fields)), decode)
        return decode

    return register


def _f32(field: np.ndarray) -> np.ndarray:
    """One fp16 number per block as a float32 column [blocks, 1]."""
    return field.astype(np.float32)[:, None]


def _unpack(packed: np.ndarray, bits: int, run: int) -> np.ndarray:
    """Codes of `bits` bits, uint8 [blocks, codes], from bytes that interleave runs of consecutive weights.

    Bytes come in groups of `run`: the lowest bits of a group hold its first `run` weights, the next bits the next ones.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes = (packed.reshape(len(packed), -1, 1, run) >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(len(packed), -1)


def pack_codes(codes: np.ndarray, bits: int, run: int) -> np.ndarray:
    """The inverse of `_unpack`: bytes uint8 [blocks, bytes] from codes below 2^bits, uint8 [blocks, codes]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = codes.astype(np.uint8).reshape(len(codes), -1, 8 // bits, run) << shifts
    return np.bitwise_or.reduce(parts, axis=2).reshape(len(codes), -1)


def record(name: str, **fields: np.ndarray) -> np.ndarray:
    """An array of the structs of format `name`, filled field by field; each value is cast to the field's type."""
    format = named(name)
    structs = np.empty(len(next(iter(fields.values()))), format.layout)
    for field in format.layout.names:
        structs[field] = fields[field]
    return structs


# --- plain numbers -------------------------------------------------------------------------------------------------


@_format("F32", 0, 1, ("x", "<f4"))
def f32(b):
    return b["x"].astype(np.float32)


@_format("F16", 1, 1, ("x", "<f2"))
def f16(b):
    return b["x"].astype(np.float32)


@_format("BF16", 30, 1, ("x", "<u2"))
def bf16(b):
    return (b["x"].astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of a float32


# --- legacy types: 32 weights a block ------------------------------------------------------------------------------


@_format("Q4_0", 2, 32, ("d", "<f2"), ("qs", "u1", 16))
def q4_0(b):
    q = _unpack(b["qs"], bits=4, run=16).astype(np.int8) - 8
    return _f32(b["d"]) * q.astype(np.float32)


@_format("Q4_1", 3, 32, ("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16))
def q4_1(b):
    q = _unpack(b["qs"], bits=4, run=16)
    return _f32(b["d"]) * q.astype(np.float32) + _f32(b["m"])


@_format("Q5_0", 6, 32, ("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16))
def q5_0(b):
    q = _unpack(b["qs"], bits=4, run=16) | _unpack(b["qh"], bits=1, run=1) << 4
    return _f32(b["d"]) * (q.astype(np.int8) - 16).astype(np.float32)


@_format("Q5_1", 7, 32, ("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16))
def q5_1(b):
    q = _unpack(b["qs"], bits=4, run=16) | _unpack(b["qh"], bits=1, run=1) << 4
    return _f32(b["d"]) * q.astype(np.float32) + _f32(b["m"])


@_format("Q8_0", 8, 32, ("d", "<f2"), ("qs", "i1", 32))
def q8_0(b):
    return _f32(b["d"]) * b["qs"].astype(np.float32)


# --- k-quants: 256 weights a block, whose sub-blocks have small integer scales of their own --------------------------


def _scaled(q: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """scale·q (− offset) as [blocks, 256], from codes q [blocks, 256] and one scale and offset per sub-block."""
    w = scale[:, :, None] * q.reshape(*scale.shape, -1).astype(np.float32)
    return (w if offset is None else w - offset[:, :, None]).reshape(len(q), -1)


@_format("Q2_K", 10, 256, ("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2"))
def q2_k(b):
    scale = _f32(b["d"]) * (b["scales"] & 15).astype(np.float32)  # 16 sub-blocks of 16 weights
    offset = _f32(b["dmin"]) * (b["scales"] >> 4).astype(np.float32)
    return _scaled(_unpack(b["qs"], bits=2, run=32), scale, offset)


@_format("Q3_K", 11, 256, ("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2"))
def q3_k(b):
    low, high = _unpack(b["scales"][:, :8], bits=4, run=8), _unpack(b["scales"][:, 8:], bits=2, run=4)
    scales = (low | high << 4).astype(np.int8) - 32  # 16 six-bit scales, biased by 32
    scale = _f32(b["d"]) * scales.astype(np.float32)
    q = _unpack(b["qs"], bits=2, run=32) | _unpack(b["hmask"], bits=1, run=32) << 2
    return _scaled(q.astype(np.int8) - 4, scale)


def _scale_and_min(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight 6-bit scales and eight 6-bit mins, uint8 [blocks, 8] each, from the 12 bytes of Q4_K and Q5_K.

    Bytes 0-3 and 4-7 hold the first four scales and mins in their low six bits; bytes 8-11 hold the low nibbles of the
    last four of both, whose top two bits sit in the top two bits of bytes 0-7.
    """
    first_scales, first_mins, nibbles = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first_scales & 63, nibbles & 15 | first_scales >> 6 << 4], axis=1)
    mins = np.concatenate([first_mins & 63, nibbles >> 4 | first_mins >> 6 << 4], axis=1)
    return scales, mins


@_format("Q4_K", 12, 256, ("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128))
def q4_k(b):
    scales, mins = _scale_and_min(b["scales"])  # 8 sub-blocks of 32 weights
    scale, offset = _f32(b["d"]) * scales.astype(np.float32), _f32(b["dmin"]) * mins.astype(np.float32)
    return _scaled(_unpack(b["qs"], bits=4, run=32), scale, offset)


@_format("Q5_K", 13, 256, ("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128))
def q5_k(b):
    scales, mins = _scale_and_min(b["scales"])
    scale, offset = _f32(b["d"]) * scales.astype(np.float32), _f32(b["dmin"]) * mins.astype(np.float32)
    return _scaled(_unpack(b["qs"], bits=4, run=32) | _unpack(b["qh"], bits=1, run=32) << 4, scale, offset)


@_format("Q6_K", 14, 256, ("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2"))
def q6_k(b):
    scale = _f32(b["d"]) * b["scales"].astype(np.float32)  # 16 sub-blocks of 16 weights
    q = _unpack(b["ql"], bits=4, run=64) | _unpack(b["qh"], bits=2, run=32) << 4
    return _scaled(q.astype(np.int8) - 32, scale)
