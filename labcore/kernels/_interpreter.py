"""What Triton's interpreter gets wrong, put right for the length of a `with` block: bf16, and casts to 8-bit floats.

The interpreter holds bf16 as 16-bit integers and adds, compares and multiplies those (triton 3.6 to 3.9), truncates
where a GPU rounds, and rounds to e4m3 without carrying. Under `bf16_shim` every such operation widens its operands to
float32, computes, and rounds to the nearest even, as `torch` does and, but for the order of sums, as a GPU does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, ScanOps, TensorHandle

FLOAT8 = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}
LARGEST = {tl.float8e4nv: 448.0, tl.float8e5: 57344.0}
ARITHMETIC = ("binary_op", "ternary_op", "unary_op", "create_fma", "create_rsqrt", "create_erf", "create_dot")


def round_to_bf16(numbers: np.ndarray) -> np.ndarray:
    """Round to the nearest bf16, ties to even; the 16 bits of each as uint16. NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, rounded).astype(np.uint16)


def widen_bf16(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers whose upper 16 bits are `bits`."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@contextmanager
def bf16_shim() -> Iterator[None]:
    """Within the block, interpreted kernels compute rightly with bf16 and cast rightly to e4m3 and e5m2."""
    patches = [(InterpreterBuilder, name, _widened(getattr(InterpreterBuilder, name))) for name in ARITHMETIC]
    patches += [(ReduceOps, name, _reduced(getattr(ReduceOps, name))) for name in ("sum", "min_max")]
    patches += [(ScanOps, name, _reduced(getattr(ScanOps, name))) for name in ("cumsum", "cumprod")]
    patches += [
        (InterpreterBuilder, "cast_impl", lambda self, src, dst: _cast(src, dst)),
        (InterpreterBuilder, "create_fp_to_fp", lambda self, src, dst, rounding: _cast(src, dst)),
        (InterpreterBuilder, "get_bf16", lambda self, value: _stored(np.array([value], np.float32), tl.bfloat16)),
    ]
    missing = object()
    originals = [(owner, name, owner.__dict__.get(name, missing)) for owner, name, _ in patches]
    try:
        for owner, name, replacement in patches:
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in originals:
            if original is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def _is_bf16(handle: object) -> bool:
    """Comparisons keep their operands' type beside boolean data: those are no numbers to widen."""
    return isinstance(handle, TensorHandle) and handle.dtype.scalar == tl.bfloat16 and handle.data.dtype == np.uint16


def _numbers(handle: TensorHandle) -> np.ndarray:
    """A handle's data as numpy numbers: bf16 and 8-bit floats as float32."""
    if _is_bf16(handle):
        return widen_bf16(handle.data)
    if handle.dtype.scalar in FLOAT8:
        return torch.from_numpy(handle.data.copy()).view(FLOAT8[handle.dtype.scalar]).float().numpy()
    return handle.data


def _stored(numbers: np.ndarray, dtype: tl.dtype) -> TensorHandle:
    """Numbers as the interpreter stores `dtype`, saturated like the GPU's casts to 8-bit floats."""
    if dtype == tl.bfloat16:
        return TensorHandle(round_to_bf16(numbers), dtype)
    if dtype in FLOAT8:
        clipped = np.clip(numbers.astype(np.float32), -LARGEST[dtype], LARGEST[dtype])
        return TensorHandle(torch.from_numpy(clipped).to(FLOAT8[dtype]).view(torch.uint8).numpy(), dtype)
    return TensorHandle(numbers.astype(_numpy_type(dtype)), dtype)


def _numpy_type(dtype: tl.dtype) -> np.dtype:
    return np.dtype(bool) if dtype.is_int1() else np.dtype(dtype.name.replace("fp", "float"))


def _cast(src: TensorHandle, dst: tl.dtype) -> TensorHandle:
    return _stored(_numbers(src), dst.scalar)


def _widened(operation: Callable) -> Callable:
    """`operation` on float32 wherever an operand is bf16; its last operand has the type of the result."""

    def wrapper(self, *operands):
        handles = [operand for operand in operands if isinstance(operand, TensorHandle)]
        if not any(map(_is_bf16, handles)):
            return operation(self, *operands)
        wide = [TensorHandle(widen_bf16(one.data), tl.float32) if _is_bf16(one) else one for one in operands]
        result = operation(self, *wide)
        if not _is_bf16(handles[-1]):
            return result
        if result.data.dtype == bool:  # of a comparison
            return TensorHandle(result.data, tl.bfloat16)
        return _stored(result.data, tl.bfloat16)

    return wrapper


def _reduced(reduction: Callable) -> Callable:
    """`reduction` of a bf16 tensor on float32, rounded once at the end."""

    def wrapper(self, tensor, *how, **named):
        tensor = tensor[0] if isinstance(tensor, tuple) else tensor
        if not _is_bf16(tensor.handle):
            return reduction(self, tensor, *how, **named)
        shape = tensor.handle.data.shape
        wide = tl.tensor(
            TensorHandle(widen_bf16(tensor.handle.data), tl.float32), tl.block_type(tl.float32, list(shape))
        )
        results = reduction(self, wide, *how, **named)
        several = isinstance(results, (tuple, list))
        rounded = [_round(one) for one in (results if several else [results])]
        return type(results)(rounded) if several else rounded[0]

    return wrapper


def _round(tensor: tl.tensor) -> tl.tensor:
    """A float32 result as bf16; indices stay as they are."""
    if tensor.dtype.scalar != tl.float32:
        return tensor
    shape = tensor.type.shape if tensor.type.is_block() else None
    kind = tl.block_type(tl.bfloat16, list(shape)) if shape else tl.bfloat16
    return tl.tensor(_stored(tensor.handle.data, tl.bfloat16), kind)
