"""What kernels ask of the tensors they read: by address one dtype, one shape and no gaps; by descriptor alignment."""

import torch
import triton
from torch import Tensor

from labcore.core.errors import InputError


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raises InputError, naming the argument `name`, unless `tensor` is contiguous, of this dtype and this shape."""
    if tensor.dtype != dtype or tensor.shape != tuple(shape) or not tensor.is_contiguous():
        raise InputError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}: make it contiguous {dtype} {tuple(shape)}")


def describable(*tensors: Tensor) -> bool:
    """Whether Hopper's copy engine can read these [tokens, heads, D]: beginning and stepping by 16 bytes."""
    return all(x.data_ptr() % 16 == 0 and x.stride(0) * x.element_size() % 16 == 0 for x in tensors)


def descriptor_memory(device: torch.device) -> None:
    """Let kernels keep descriptors in memory of `device`. Triton holds on to the function: it must hold no tensor."""
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device=device))
