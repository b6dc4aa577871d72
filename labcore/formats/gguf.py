"""The GGUF container: a header, typed metadata, a tensor table, and aligned tensor data, read through a memory map.

Nothing is copied until a tensor is asked for, and then only that tensor. Source of the layout: ggml/docs/gguf.md
(versions 2 and 3, little-endian). Every damage found while reading raises one DataError that names file and place.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from labcore.core.errors import DataError
from labcore.formats.blocks import BlockFormat, block_format, dequantize

# Metadata value types: id -> little-endian numpy type. 8 is a string, 9 an array.
SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
STRING, ARRAY = 8, 9
MAX_DIMENSIONS, MAX_NESTING = 4, 4  # nesting: arrays of arrays


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `shape` is row-major (ggml's ne reversed), `offset` counts bytes from the file start."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int
    nbytes: int


class GGUFFile:
    """A GGUF file opened for reading.

    `metadata` maps keys to Python values (numbers, bool, str, list of str, numpy arrays for numeric arrays), `types`
    maps them to the ids of their value types, `tensors` maps names to TensorInfo in file order.
    Raises DataError for anything that is not a whole, sane file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path}: the file is empty")
        mapped = np.memmap(self.path, dtype=np.uint8, mode="r")
        self._map, self._bytes = mapped._mmap, mapped.view(np.ndarray)
        self.version, tensor_count, self.metadata, self.types, table = self._read_header()
        self.tensors = self._place_tensors(table, tensor_count)

    def raw(self, name: str) -> np.ndarray:
        """The tensor's bytes as they lie in the file: read-only uint8 [*shape[:-1], bytes per row], not copied."""
        info = self.info(name)
        row = info.format.row_bytes(info.shape[-1])
        return self._bytes[info.offset : info.offset + info.nbytes].reshape(*info.shape[:-1], row)

    def drop_pages(self) -> None:
        """Give back the memory that holds what was read so far; it is read from the file again when it is needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def tensor(self, name: str) -> np.ndarray:
        """The tensor dequantized to float32 [*shape]."""
        return dequantize(self.raw(name), self.info(name).format)

    def info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise DataError(f"{self.path}: no tensor {name!r} among the file's {len(self.tensors)}")
        return self.tensors[name]

    @cached_property
    def architecture(self) -> str:
        return self.field("general.architecture")

    def field(self, key: str, default=None):
        """Metadata value of `key`; DataError when it is missing and no default is given."""
        value = self.metadata.get(key, default)
        if value is None:
            raise DataError(f"{self.path}: metadata has no {key!r}")
        return value

    def _read_header(self) -> tuple[int, int, dict, dict[str, int], "_Cursor"]:
        cursor = _Cursor(self.path, memoryview(self._bytes))
        if bytes(cursor.take(4, "the magic number")) != b"GGUF":
            raise DataError(f"{self.path}: not a GGUF file (it does not begin with 'GGUF')")
        version = cursor.number("<u4", "the version")
        if version not in (2, 3):
            kind = "big-endian" if version >> 24 in (2, 3) else f"version {version}"
            raise DataError(f"{self.path}: {kind} GGUF; versions 2 and 3, little-endian, can be read")
        tensor_count = cursor.number("<u8", "the tensor count")
        metadata, types = {}, {}
        for i in range(cursor.number("<u8", "the metadata count")):
            key = cursor.string(f"metadata key {i}")
            if key in metadata:
                raise DataError(f"{self.path}: metadata key {key!r} appears twice")
            types[key] = cursor.number("<u4", f"the type of {key!r}")
            metadata[key] = cursor.value(types[key], f"metadata {key!r}")
        return version, tensor_count, metadata, types, cursor

    def _place_tensors(self, cursor: "_Cursor", count: int) -> dict[str, TensorInfo]:
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
            raise DataError(f"{self.path}: general.alignment is {alignment!r}; it must be a multiple of 8")
        entries = [self._read_entry(cursor, i) for i in range(count)]
        data_start = -(-cursor.position // alignment) * alignment
        tensors = {}
        for name, shape, type_id, relative in entries:
            if name in tensors:
                raise DataError(f"{self.path}: tensor {name!r} appears twice")
            if relative % alignment:
                raise DataError(
                    f"{self.path}: tensor {name!r} at offset {relative} is not aligned to {alignment} bytes"
                )
            try:
                format = block_format(type_id)
                nbytes = math.prod(shape[:-1]) * format.row_bytes(shape[-1])
            except DataError as error:
                raise DataError(f"{self.path}: tensor {name!r}: {error}") from None
            end = data_start + relative + nbytes
            if end > len(self._bytes):
                raise DataError(
                    f"{self.path}: truncated: tensor {name!r} ends at byte {end}, the file at {len(self._bytes)}"
                )
            tensors[name] = TensorInfo(name, shape, format, data_start + relative, nbytes)
        return tensors

    def _read_entry(self, cursor: "_Cursor", index: int) -> tuple[str, tuple[int, ...], int, int]:
        name = cursor.string(f"the name of tensor {index}")
        dimensions = cursor.number("<u4", f"the dimensions of tensor {name!r}")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise DataError(f"{self.path}: tensor {name!r} claims {dimensions} dimensions; 1 to {MAX_DIMENSIONS} exist")
        shape = [cursor.number("<u8", f"the shape of tensor {name!r}") for _ in range(dimensions)]
        type_id = cursor.number("<u4", f"the type of tensor {name!r}")
        offset = cursor.number("<u8", f"the offset of tensor {name!r}")
        return name, tuple(reversed(shape)), type_id, offset


class _Cursor:
    """Reads values one after the other and refuses to run past the end of the file."""

    def __init__(self, path: Path, data: memoryview):
        self.path, self.data, self.position = path, data, 0

    def take(self, count: int, what: str) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise DataError(f"{self.path}: truncated: the file ends at byte {len(self.data)}, inside {what}")
        chunk, self.position = self.data[self.position : end], end
        return chunk

    def number(self, dtype: str, what: str) -> int | float | bool:
        code = _STRUCT_CODES[dtype]
        return code.unpack(self.take(code.size, what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.number("<u8", f"the length of {what}"), what)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{self.path}: {what} before byte {self.position} is not valid UTF-8") from None

    def value(self, type_id: int, what: str, depth: int = 0):
        if type_id == STRING:
            return self.string(what)
        if type_id == ARRAY and depth < MAX_NESTING:
            element, count = self.number("<u4", what), self.number("<u8", what)
            if element in SCALARS:
                dtype = np.dtype(SCALARS[element])
                return np.frombuffer(self.take(count * dtype.itemsize, what), dtype=dtype)
            return [self.value(element, what, depth + 1) for _ in range(count)]
        if type_id in SCALARS:
            return self.number(SCALARS[type_id], what)
        raise DataError(f"{self.path}: {what} has value type {type_id}, unknown or nested too deeply")


_STRUCT_CODES = {
    dtype: struct.Struct("<" + code) for dtype, code in zip(SCALARS.values(), "BbHhIif?Qqd", strict=True)
}  # fmt: skip
