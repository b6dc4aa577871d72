"""Writing a GGUF file: header, typed metadata, tensor table, aligned data, whole or not at all.

What `GGUFFile` reads from a file written here is what was given; a file that gguf-py wrote comes back byte for byte.
`requantize` is llama-quantize in a page: each tensor dequantized, rounded to another format, everything else kept.
Source of the layout: ggml/docs/gguf.md, version 3, little-endian.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labcore.core.errors import InputError
from labcore.core.files import atomic_file
from labcore.formats.block_encode import fitting, quantize
from labcore.formats.blocks import BlockFormat, dequantize
from labcore.formats.gguf import ARRAY, MAX_DIMENSIONS, SCALARS, STRING, GGUFFile, TensorInfo

ALIGNMENT = 32
LONGEST_NAME = 63  # bytes; ggml keeps a tensor's name in 64, the last of which is zero
UINT32, INT32, FLOAT32, BOOL, UINT64, INT64 = 4, 5, 6, 7, 10, 11

Value = bool | int | float | str | list | np.ndarray


@dataclass(frozen=True)
class Tensor:
    """raw: uint8 [..., bytes per row], the blocks of one tensor whose rows are `format.row_bytes(columns)` long."""

    raw: np.ndarray
    format: BlockFormat

    @classmethod
    def encode(cls, x: np.ndarray, name: str = "F32") -> "Tensor":
        """float32 [..., columns] in the format `name`, or the one llama.cpp falls back to (see `fitting`)."""
        format = fitting(name, x.shape[-1])
        return cls(quantize(x, format), format)

    @property
    def shape(self) -> tuple[int, ...]:
        """Weights, row-major."""
        blocks, rest = divmod(self.raw.shape[-1], self.format.layout.itemsize)
        if rest or self.raw.dtype != np.uint8:
            raise InputError(
                f"rows of {self.raw.shape[-1]} {self.raw.dtype} are not a whole number of {self.format.name} blocks of "
                f"{self.format.layout.itemsize} uint8"
            )
        return (*self.raw.shape[:-1], blocks * self.format.size)


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, Tensor],
    types: Mapping[str, int] | None = None,
) -> Path:
    """Write a GGUF file, version 3, and return its path; tensors in the order given, each at a multiple of 32 bytes.

    A Python int is stored as uint32, or as the first of int32, uint64, int64 that holds it; a float as float32; a list
    of ints or floats as an array of int32 or float32; a numpy array as its own type. `types` (key -> value type id, as
    GGUFFile.types) says otherwise. The key general.alignment changes the 32.
    InputError, before a byte is written, for what the format cannot hold, and for a folder that cannot be written to.
    """
    types, alignment = types or {}, metadata.get("general.alignment", ALIGNMENT)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise InputError(f"general.alignment is {alignment!r}; it must be a multiple of 8")
    header = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        type_id = types.get(key, value_type(value, key))
        header += [_string(key), struct.pack("<I", type_id), _value(value, type_id, key)]
    offset = 0
    for name, tensor in tensors.items():
        header.append(_table_entry(name, tensor, offset))
        offset += _padded(tensor.raw.nbytes, alignment)
    head = b"".join(header)
    try:
        with atomic_file(path) as file:
            file.write(head.ljust(_padded(len(head), alignment), b"\0"))
            for tensor in tensors.values():
                file.write(np.ascontiguousarray(tensor.raw).data)
                file.write(bytes(_padded(tensor.raw.nbytes, alignment) - tensor.raw.nbytes))
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}): the folder must exist, be writable and have room"
        ) from None
    return Path(path)


def copy(source: GGUFFile, path: str | Path) -> Path:
    """Write what `source` holds to `path`."""
    tensors = {name: Tensor(source.raw(name), info.format) for name, info in source.tensors.items()}
    return write_gguf(path, source.metadata, tensors, source.types)


def requantize(source: GGUFFile, path: str | Path, choose: Callable[[str, TensorInfo], str]) -> Path:
    """Write `source` with every tensor in the format `choose(name, info)` names; a tensor that has it is kept as is.

    Rows that do not fit the format fall back as in llama.cpp. Tensors of one dimension (norms) stay as they are.
    """
    tensors = {}
    for name, info in source.tensors.items():
        format = info.format if len(info.shape) == 1 else fitting(choose(name, info), info.shape[-1])
        raw = source.raw(name)
        if format != info.format:
            raw = quantize(dequantize(raw, info.format), format)
        tensors[name] = Tensor(raw, format)
    return write_gguf(path, source.metadata, tensors, source.types)


def value_type(value: Value, key: str) -> int:
    """The id of the metadata type that holds `value` when nothing else is said. InputError for what none holds."""
    if isinstance(value, bool | np.bool_):
        return BOOL
    if isinstance(value, int | np.integer):
        for type_id in (UINT32, INT32, UINT64, INT64):
            limits = np.iinfo(SCALARS[type_id])
            if limits.min <= value <= limits.max:
                return type_id
        raise InputError(f"metadata {key!r} is {value}, which does not fit into 64 bits")
    if isinstance(value, float | np.floating):
        return FLOAT32
    if isinstance(value, str):
        return STRING
    if isinstance(value, list | tuple | np.ndarray):
        return ARRAY
    raise InputError(f"metadata {key!r} is a {type(value).__name__}; GGUF holds numbers, bools, strings and arrays")


def _element_type(values: list | np.ndarray, key: str) -> int:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(
                f"metadata {key!r} is an array of shape {values.shape}; give one dimension, or a nested list"
            )
        for type_id, dtype in SCALARS.items():
            if values.dtype == np.dtype(dtype):
                return type_id
        raise InputError(f"metadata {key!r} is an array of {values.dtype}, which GGUF does not know")
    kinds = {value_type(value, key) for value in values}
    if len(kinds) > 1 and not kinds <= {UINT32, INT32}:
        raise InputError(f"metadata {key!r} mixes types; an array has one")
    return INT32 if not kinds or kinds <= {UINT32, INT32} else kinds.pop()


def _value(value: Value, type_id: int, key: str) -> bytes:
    """`value` as the file holds it, after its type id."""
    if type_id == STRING and isinstance(value, str):
        return _string(value)
    if type_id == ARRAY and isinstance(value, list | tuple | np.ndarray):
        element = _element_type(value, key)
        head = struct.pack("<IQ", element, len(value))
        if isinstance(value, np.ndarray):
            return head + value.tobytes()
        return head + b"".join(_value(one, element, key) for one in value)
    if type_id not in SCALARS or isinstance(value, str | list | tuple | np.ndarray):
        raise InputError(f"metadata {key!r} is {value!r:.60}, which is no value of type {type_id}")
    dtype = np.dtype(SCALARS[type_id])
    if not _holds(dtype, value):
        raise InputError(f"metadata {key!r} is {value}, which {dtype.name} does not hold")
    return np.asarray(value).astype(dtype).tobytes()


def _holds(dtype: np.dtype, value: bool | int | float) -> bool:
    """Whether `value` survives as `dtype`: whole and in range under integers, finite under floats if it was so."""
    if dtype.kind == "f":
        try:
            struct.pack(f"<{dtype.char}", value)
        except OverflowError:
            return False
        return True
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return limits[0] <= value <= limits[1] and value == int(value)


def _string(text: str) -> bytes:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{text!r} holds a lone surrogate, which no UTF-8 text can") from None
    return struct.pack("<Q", len(raw)) + raw


def _table_entry(name: str, tensor: Tensor, offset: int) -> bytes:
    shape = tensor.shape
    if not 1 <= len(shape) <= MAX_DIMENSIONS or not math.prod(shape):
        raise InputError(f"tensor {name!r} has shape {shape}; 1 to {MAX_DIMENSIONS} dimensions without a zero")
    if not 1 <= len(name.encode()) <= LONGEST_NAME:
        raise InputError(f"tensor name {name!r} has {len(name.encode())} bytes; 1 to {LONGEST_NAME} are allowed")
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return _string(name) + sizes + struct.pack("<IQ", tensor.format.id, offset)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
