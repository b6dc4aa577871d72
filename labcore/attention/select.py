"""Which backend serves a cache on this machine."""

import torch

from labcore.attention.compiled import CompiledAttention
from labcore.attention.csr import CSRAttention
from labcore.attention.metadata import AttentionShape, Backend
from labcore.attention.sdpa import SDPAAttention
from labcore.kernels.cpu.attention import supports


def fastest(shape: AttentionShape, dtype: torch.dtype, device: torch.device) -> Backend:
    """The fastest backend for a cache of this shape, type and place."""
    if shape.window is None and supports(torch.empty(0, shape.head_dim, dtype=dtype, device=device)):
        return CompiledAttention
    if device.type == "cpu" and dtype == torch.float32:
        return CSRAttention
    return SDPAAttention
