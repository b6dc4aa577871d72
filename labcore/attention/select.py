"""Which backend serves a cache on this machine."""

import torch
from torch import Tensor

from labcore.attention.compiled import CompiledAttention
from labcore.attention.csr import CSRAttention
from labcore.attention.metadata import Backend
from labcore.attention.sdpa import SDPAAttention
from labcore.kernels.cpu.attention import supports


def fastest(cache: Tensor, window: int | None = None) -> Backend:
    """The fastest backend for keys and values like `cache`, with or without a sliding window."""
    if window is None and supports(cache):
        return CompiledAttention
    if cache.device.type == "cpu" and cache.dtype == torch.float32:
        return CSRAttention
    return SDPAAttention
