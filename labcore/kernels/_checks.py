"""What every kernel asks of the tensors it reads by address: one dtype, one shape, and no gaps."""

import torch
from torch import Tensor

from labcore.core.errors import InputError


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raises InputError, naming the argument `name`, unless `tensor` is contiguous, of this dtype and this shape."""
    if tensor.dtype != dtype or tensor.shape != tuple(shape) or not tensor.is_contiguous():
        raise InputError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}: make it contiguous {dtype} {tuple(shape)}")
