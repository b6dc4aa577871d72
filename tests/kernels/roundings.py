"""How kernels that promise torch's order of casts are judged: in 16 bits by the bit, in float32 by the last digits."""

import torch
from torch import Tensor

from tests.kernels.checks import close_as_torch


def same_roundings(ours: Tensor, specification: Tensor, exact: Tensor, steps: int = 1) -> None:
    """Assert that 16-bit outputs are the specification's but for 1 in 100, and that those are at most `steps`
    representable numbers away; float32 outputs are judged against `exact`, the specification in float64."""
    if ours.dtype == torch.float32:
        return close_as_torch(ours, specification, exact)
    assert ours.shape == specification.shape and ours.dtype == specification.dtype
    assert not ours.isnan().any(), f"{int(ours.isnan().sum())} of {ours.numel()} outputs are NaN"
    apart = (_rank(ours) - _rank(specification)).abs()
    assert apart.max() <= steps, f"an output is {int(apart.max())} representable numbers off"
    assert (apart > 0).sum() <= max(1, ours.numel() // 100), f"{int((apart > 0).sum())} of {ours.numel()} differ"


def _rank(x: Tensor) -> Tensor:
    """Integers that count representable numbers."""
    bits = x.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
