"""AWQ: scale the input channels that matter up before rounding, so that their share of the rounding error shrinks.

y = Q(W diag(s)) (diag(s)⁻¹ x). A weight that is multiplied by s and divided again keeps its group's step as long as it
does not set the group's range, so its error falls by s; the other weights of a group whose range grows pay. Which
channels matter is read off the activations, s = mean|x|^α, and one exponent α for the layer is found by trying: no
gradient, no Hessian, nothing kept in 16 bits. Then each group's range is clipped where that makes the output better.
Source: Lin et al., arXiv:2306.00978, section 3.2; mit-han-lab/llm-awq, auto_scale.py and auto_clip.py. That code's
range need not contain 0; ours does (see `rtn`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite
from labcore.quant.rtn import quantize_weight
from labcore.quant.spec import QuantSpec

SMALLEST = 1e-4  # of a scale before centring: a channel that is never active must not be divided by 0


@dataclass(frozen=True)
class AWQResult:
    """scale [in] and its exponent; curve[i]: the mean squared output error with α = i / grid."""

    scale: Tensor
    alpha: float
    curve: list[float]


def awq_scale(x_absmean: Tensor, alpha: float) -> Tensor:
    """mean|x|^α [in], centred so that the largest and the smallest scale multiply to 1."""
    scale = x_absmean.pow(alpha).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()


def awq_search(
    ws: Sequence[Tensor],
    x_absmean: Tensor,
    x: Tensor,
    spec: QuantSpec,
    grid: int = 20,
    output: Callable[[list[Tensor]], Tensor] | None = None,
) -> AWQResult:
    """The best exponent of `grid` for the weights ws, [out, in] each, which share the input x [tokens, in].

    output(weights): what the loss is measured on, with `weights` in place of ws; the paper takes the whole attention's
    output for q, k and v, and the whole MLP's for gate and up. None: the outputs of the layers themselves.
    α = 0 is round to nearest, so the result is never worse on this x; α = 1 is not tried, as in the reference.
    """
    if not len(x):
        raise InputError("no calibration tokens: AWQ's search needs at least one input")
    check_finite(x, "activation")
    output = output or (lambda weights: torch.cat([x @ w.T for w in weights], dim=1))
    wanted, curve = output(list(ws)), []
    for step in range(grid):
        scale = awq_scale(x_absmean, step / grid)
        trial = [quantize_weight(w * scale, spec).dequantize() / scale for w in ws]
        curve.append((output(trial) - wanted).square().mean().item())
    best = min(range(grid), key=curve.__getitem__)
    return AWQResult(awq_scale(x_absmean, best / grid), best / grid, curve)


def awq_clip(w: Tensor, x: Tensor, spec: QuantSpec, grid: int = 20, most: float = 0.5) -> Tensor:
    """Per row and group, the limit [out, groups] in max|w|·(1 - i/grid), i/grid < most, that serves the output best.

    The error is that of the group's own share of the output, mean over tokens of (Σ Δw x)². It is a quadratic form in
    Δw whose matrix all rows share, so no output is ever computed.
    """
    size = spec.group_size(w.shape[1])
    grouped = w.unflatten(1, (-1, size))  # [out, groups, size]
    shares = x.unflatten(1, (-1, size))
    gram = torch.einsum("tgi,tgj->gij", shares, shares) / len(x)
    largest = grouped.abs().amax(-1)
    limit, least = largest.clone(), torch.full_like(largest, torch.inf)
    for step in range(int(most * grid)):
        trial = largest * (1 - step / grid)
        delta = quantize_weight(clip(w, trial), spec).dequantize().unflatten(1, (-1, size)) - grouped
        error = torch.einsum("ogi,gij,ogj->og", delta, gram, delta)
        better = error < least
        limit, least = torch.where(better, trial, limit), torch.where(better, error, least)
    return limit


def clip(w: Tensor, limit: Tensor) -> Tensor:
    """w [out, in] with every group between -limit and limit [out, groups]."""
    grouped = w.unflatten(1, (limit.shape[1], -1))
    return grouped.clamp(-limit[..., None], limit[..., None]).flatten(1)
