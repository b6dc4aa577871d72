"""ggml's own quantizers as an oracle: the shared library inside the pywhispercpp wheel, through ctypes."""

import ctypes
from importlib.metadata import PackageNotFoundError, files

import numpy as np
import pytest

from labcore.formats.blocks import BlockFormat


def ggml():
    """A function quantize(x float32 [rows, columns], format) -> uint8 [rows, row bytes]; skips without the wheel."""
    try:
        listed = files("pywhispercpp") or []
    except PackageNotFoundError:
        pytest.skip("the oracle package pywhispercpp is not installed")
    found = [file.locate() for file in listed if file.name == "libggml-base.so"]
    if not found:
        pytest.skip("pywhispercpp ships no libggml-base.so on this platform")
    library = ctypes.CDLL(str(found[0]))
    convert = library.ggml_quantize_chunk
    convert.restype = ctypes.c_size_t
    convert.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def quantize(x: np.ndarray, format: BlockFormat) -> np.ndarray:
        x = np.ascontiguousarray(x, np.float32)
        raw = np.zeros((len(x), format.row_bytes(x.shape[1])), np.uint8)
        assert convert(format.id, x.ctypes.data, raw.ctypes.data, 0, *x.shape, None) == raw.nbytes
        return raw

    return quantize
