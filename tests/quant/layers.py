"""Random layers whose inputs are correlated, as a model's are: without correlation nothing can make up for anything."""

import torch
from torch import Tensor

from labcore.quant.gptq import hessian


def weight(out: int, columns: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(tokens: int, columns: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    """[tokens, columns]: few directions carry most of the energy, and columns differ in scale."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator, dtype=dtype) / columns**0.5
    strength = torch.exp(-torch.arange(columns, dtype=dtype) / (columns / 4))
    x = (torch.randn(tokens, columns, generator=generator, dtype=dtype) * strength) @ mix
    return x * torch.exp(0.5 * torch.randn(columns, generator=generator, dtype=dtype))


def problem(out: int = 4, columns: int = 48, tokens: int = 96, seed: int = 0, dtype=torch.float64):
    """A weight and the Hessian of its inputs."""
    return weight(out, columns, seed, dtype), hessian(inputs(tokens, columns, seed + 1, dtype))
