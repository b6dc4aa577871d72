"""Which backend serves a cache on this machine."""

from importlib.util import find_spec

import torch

from labcore.attention.compiled import CompiledAttention
from labcore.attention.csr import CSRAttention
from labcore.attention.metadata import AttentionShape, Backend
from labcore.attention.sdpa import SDPAAttention
from labcore.kernels._compat import capability, has_mma
from labcore.kernels.cpu.attention import supports

HEAD_DIMS = 16, 32, 64, 128, 256  # of the Triton kernels


def triton_serves(shape: AttentionShape, device: torch.device) -> bool:
    """Whether the Triton kernels run natively on `device` and know this shape."""
    return shape.head_dim in HEAD_DIMS and has_mma(capability(device)) and find_spec("triton") is not None


def fastest(shape: AttentionShape, dtype: torch.dtype, device: torch.device) -> Backend:
    """The fastest backend for a cache of this shape, type and place."""
    if shape.window is None and supports(torch.empty(0, shape.head_dim, dtype=dtype, device=device)):
        return CompiledAttention
    if triton_serves(shape, device):
        from labcore.attention.triton_backend import TritonAttention

        return TritonAttention
    if device.type == "cpu" and dtype == torch.float32:
        return CSRAttention
    return SDPAAttention
