"""FPTQ: weights in 4 bits, activations in 8, and for every layer the cheapest treatment its activations allow.

By the largest activation r that calibration saw: r ≤ 15, one static scale will do; 15 < r < 150, the channels are
equalized first (`smoothquant.lae_scale`) and then get one static scale; beyond, every token needs a scale of its own.
Equalizing takes a norm to fold into. For LLaMA the paper settles on the plan below instead of the ranges.
Source: Li et al., arXiv:2308.15987, sections 3.2 and 4; the bounds 15 and 150 are the paper's, unexplained.
"""

from collections.abc import Mapping

from torch import Tensor

from labcore.core.errors import InputError
from labcore.quant.llm_int8 import quantize_rows

LOW, HIGH = 15.0, 150.0
KINDS = ("static", "lae", "token")
LLAMA_PLAN = {
    "q_proj": "lae",
    "k_proj": "lae",
    "v_proj": "lae",
    "o_proj": "static",
    "gate_proj": "lae",
    "up_proj": "lae",
    "down_proj": "token",
}


def plan(ranges: Mapping[str, float], low: float = LOW, high: float = HIGH) -> dict[str, str]:
    """The treatment of each layer, "static", "lae" or "token", from its largest |activation|."""
    if not 0 < low <= high:
        raise InputError(f"low={low}, high={high}: the bounds of the ranges must be positive and in order")
    return {name: "static" if r <= low else "lae" if r < high else "token" for name, r in ranges.items()}


def round_activations(x: Tensor, absmax: Tensor | None = None) -> Tensor:
    """x [tokens, in] rounded to 8 bits and back; absmax [tokens]: static maxima, None: the tokens' own."""
    return quantize_rows(x, absmax).dequantize()
