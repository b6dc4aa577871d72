"""SmoothQuant: hand the difficulty of rounding over from the activations, which have outlier channels, to the weights.

s_j = max|x_j|^α / max|w_j|^(1-α); activations are divided by s, weights multiplied (see `fold`). α = 1 makes all
channels of the activations equally large and leaves their differences to the weights, α = 0 the other way round.
Source: Xiao et al., arXiv:2211.10438, equation 4; mit-han-lab/smoothquant, smooth.py, which folds into norms only: the
inputs of o and down are never smoothed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite

SMALLEST = 1e-5


def smoothquant_scale(x_absmax: Tensor, ws: Sequence[Tensor], alpha: float = 0.5) -> Tensor:
    """The factor [in] of every input channel. x_absmax: [in]; ws: the weights [out, in] that read the input."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha}: the share of the difficulty that the weights take lies between 0 and 1")
    check_finite(x_absmax, "activation maximum")
    w_absmax = torch.cat(list(ws)).abs().amax(0).clamp(min=SMALLEST)
    return (x_absmax.pow(alpha) / w_absmax.pow(1 - alpha)).clamp(min=SMALLEST)


def lae_scale(x_absmax: Tensor) -> Tensor:
    """Logarithmic activation equalization, FPTQ's choice: m / log2(2 + m) [in], which makes a maximum m log2(2 + m).

    It depends on the activations alone. Source: Li et al., arXiv:2308.15987, equation 6.
    """
    check_finite(x_absmax, "activation maximum")
    return (x_absmax / torch.log2(2 + x_absmax)).clamp(min=SMALLEST)
