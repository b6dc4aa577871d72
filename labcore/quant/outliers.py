"""Where a model's activations are large: the channels that AWQ protects, that LLM.int8() splits off, and the few
enormous numbers that no scale of a whole tensor survives.

Two different things. Salient channels are large for every token, moderately, at the inputs of a layer. Massive
activations sit in a few channels of the residual stream for a few tokens, most often the first: thousands of times the
middle magnitude, and the same whatever the text.
Sources: AWQ, arXiv:2306.00978, section 3.1; LLM.int8(), arXiv:2208.07339, section 4; Sun et al., Massive Activations
in Large Language Models, arXiv:2402.17762, section 2 (larger than 100 and than a thousand times the median).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.model.llama import Llama
from labcore.quant import windows
from labcore.quant.calibrate import input_statistics
from labcore.quant.llm_int8 import THRESHOLD, outlier_columns
from labcore.quant.rtn import quantize_weight
from labcore.quant.spec import QuantSpec


@dataclass(frozen=True)
class Channels:
    """The input channels of one linear: largest and mean magnitude [in] over the tokens, and the share of channels in
    which some token reaches LLM.int8()'s threshold."""

    absmax: Tensor
    absmean: Tensor
    outliers: float

    @property
    def spread(self) -> float:
        """The largest channel over the middle one."""
        return (self.absmax.max() / self.absmax.median()).item()


@dataclass(frozen=True)
class Massive:
    """One enormous number of the residual stream behind a layer, with the window and position of its token."""

    layer: int
    window: int
    position: int
    channel: int
    value: float
    times_median: float


def channel_profiles(model: Llama, inputs: Tensor, threshold: float = THRESHOLD) -> dict[str, Channels]:
    """The channels of every linear of the blocks on inputs [windows, length], by its name."""

    def measure(x: Tensor) -> Channels:
        return Channels(x.abs().amax(0), x.abs().mean(0), outlier_columns(x, threshold).float().mean().item())

    return input_statistics(model, inputs, measure)


@torch.no_grad()
def massive_activations(
    model: Llama, inputs: Tensor, least: float = 100.0, times_median: float = 1000.0
) -> list[Massive]:
    """Every element behind every layer that exceeds `least` and `times_median` times the median magnitude there."""
    x, context = model.embed_tokens(inputs.flatten()), windows.context(model, inputs)
    found = []
    for layer, block in enumerate(model.layers):
        x = block(x, *context)
        middle = x.abs().median().item()
        for token, channel in (x.abs() > max(least, times_median * middle)).nonzero().tolist():
            value = x[token, channel].item()
            window, position = divmod(token, inputs.shape[1])
            found.append(Massive(layer, window, position, channel, value, abs(value) / middle))
    return found


def salient(absmean: Tensor, share: float) -> Tensor:
    """Indices of the given share of channels [in], at least one, with the largest mean magnitude."""
    if not 0 < share <= 1:
        raise InputError(f"share={share}: the share of the channels lies above 0 and at most at 1")
    return absmean.topk(max(1, round(share * len(absmean)))).indices


def rounded_but(w: Tensor, spec: QuantSpec, channels: Tensor) -> Tensor:
    """w [out, in] rounded to nearest except for some input channels: AWQ's opening experiment, not its method."""
    kept = quantize_weight(w, spec).dequantize()
    kept[:, channels] = w[:, channels]
    return kept
