"""Writing ggml's block formats: float32 rows in, the bytes of a GGUF tensor out.

The 32-wide types round once, against the scale before it is stored in fp16; k-quants search (see `kquants`). The bytes
are those of ggml's own quantizers without an importance matrix. Source: ggml/src/ggml-quants.c, quantize_row_*_ref.
"""

from collections.abc import Callable

import numpy as np

from labcore.core.errors import InputError
from labcore.formats import kquants
from labcore.formats.blocks import BlockFormat, named, pack_codes, record

STEP = 2**17  # weights at a time: the temporaries of the k-quant searches stay in the cache

# what llama.cpp stores a tensor as when its rows are not a whole number of super-blocks of 256 weights
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def fitting(name: str, columns: int) -> BlockFormat:
    """The format `name`, or what llama.cpp writes in its place if rows of `columns` weights do not fit it.

    A k-quant gives way to a 32-wide type of at least as many bits, and that to F16 if 32 does not divide the row
    either; a 32-wide type that was asked for itself is an InputError then, as it is in llama.cpp.
    Source: llama.cpp, src/llama-quant.cpp, tensor_type_fallback.
    """
    format = named(name)
    if columns % format.size == 0:
        return format
    if name not in FALLBACK:
        raise InputError(
            f"rows of {columns} weights are not a whole number of {name} blocks of {format.size}; use F16 or F32"
        )
    fallback = named(FALLBACK[name])
    return named("F16") if columns % fallback.size else fallback


def quantize(x: np.ndarray, format: BlockFormat) -> np.ndarray:
    """float32 [..., columns] as raw uint8 [..., row bytes]; the inverse, but for the rounding, of `dequantize`.

    InputError, naming the place, for an element that is not finite, a block whose scale overflows fp16, or rows that
    are not a whole number of blocks.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    if not x.ndim or x.shape[-1] % format.size:
        columns = x.shape[-1] if x.ndim else "no"
        raise InputError(f"rows of {columns} weights are not a whole number of {format.name} blocks of {format.size}")
    _refuse_infinite(x, x, "weight")
    encode = ENCODERS[format.name]
    blocks = x.reshape(-1, format.size)
    raw = np.empty(len(blocks), format.layout)
    with np.errstate(over="ignore"):  # what overflows is refused below, by name
        for start in range(0, len(blocks), STEP // format.size):
            part = slice(start, start + STEP // format.size)
            raw[part] = encode(_without_dust(blocks[part]))
    for field in {"x", "d", "m", "dmin"}.intersection(format.layout.names):
        if format.layout[field].kind == "f":
            _refuse_infinite(raw[field], x, f"{field} of {format.name} block")
    return raw.view(np.uint8).reshape(*x.shape[:-1], x.shape[-1] // format.size * format.layout.itemsize)


def _without_dust(x: np.ndarray) -> np.ndarray:
    """Weights of a block that are too small for any fp16 scale become 0: the reciprocal of such a scale overflows."""
    return np.where(np.abs(x) < 2.0**-100, np.float32(0), x) if x.shape[1] > 1 else x


def _refuse_infinite(values: np.ndarray, x: np.ndarray, what: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        place = np.unravel_index(int(np.flatnonzero(~finite)[0]) * (x.size // values.size), x.shape)
        raise InputError(
            f"{what} {[int(i) for i in place]} is {values[~finite][0]}: weights must be finite and fit into fp16 scales"
        )


def _f32(x: np.ndarray) -> np.ndarray:
    return record("F32", x=x[:, 0])


def _f16(x: np.ndarray) -> np.ndarray:
    return record("F16", x=x[:, 0].astype(np.float16))


def _bf16(x: np.ndarray) -> np.ndarray:
    """The upper half of the float32, rounded half to even."""
    bits = x[:, 0].view(np.uint32)
    return record("BF16", x=(bits + (0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16))


def _q4_0(x: np.ndarray) -> np.ndarray:
    d, codes = _signed(x, 8)
    return record("Q4_0", d=d, qs=pack_codes(codes, bits=4, run=16))


def _q4_1(x: np.ndarray) -> np.ndarray:
    d, m, codes = _between(x, 15)
    return record("Q4_1", d=d, m=m, qs=pack_codes(codes, bits=4, run=16))


def _q5_0(x: np.ndarray) -> np.ndarray:
    d, codes = _signed(x, 16)
    return record("Q5_0", d=d, **_fifth_bit(codes))


def _q5_1(x: np.ndarray) -> np.ndarray:
    d, m, codes = _between(x, 31)
    return record("Q5_1", d=d, m=m, **_fifth_bit(codes))


def _q8_0(x: np.ndarray) -> np.ndarray:
    """The largest magnitude on ±127; halves are rounded away from zero."""
    d = np.abs(x).max(1) / np.float32(127)
    steps = x * _inverse(d)
    return record("Q8_0", d=d, qs=np.trunc(steps + np.copysign(np.float32(0.5), steps)))


def _signed(x: np.ndarray, centre: int) -> tuple[np.ndarray, np.ndarray]:
    """d and codes 0 … 2·centre - 1: the weight of the largest magnitude, whatever its sign, takes code 0 exactly."""
    largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)[:, 0]
    d = largest / np.float32(-centre)
    return d, np.minimum(np.trunc(x * _inverse(d) + np.float32(centre + 0.5)), 2 * centre - 1)


def _between(x: np.ndarray, highest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d, m and codes 0 … highest between the block's minimum m and its maximum."""
    m = x.min(1)
    d = (x.max(1) - m) / np.float32(highest)
    return d, m, np.minimum(np.trunc((x - m[:, None]) * _inverse(d) + np.float32(0.5)), highest)


def _inverse(d: np.ndarray) -> np.ndarray:
    """1/d [blocks, 1]; 0 for a block without spread."""
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)[:, None]


def _fifth_bit(codes: np.ndarray) -> dict[str, np.ndarray]:
    codes = codes.astype(np.uint8)
    return {"qh": pack_codes(codes >> 4, bits=1, run=1), "qs": pack_codes(codes & 15, bits=4, run=16)}


ENCODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16,
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    **kquants.ENCODERS,
}  # fmt: skip
