"""Round to nearest: every weight goes to the nearest grid point, whatever the layer's inputs are. The baseline.

Conventions (they differ between packages, and an experiment that mixes them compares nothing):
asymmetric — the group's range, made to contain 0, is spread over the codes; scale = (max - min) / (2^bits - 1),
zero = round(-min / scale). GPTQ's quant.py and torchao's ASYMMETRIC; llm-awq does not force 0 into the range.
symmetric — scale = 2·max|w| / (2^bits - 1), zero = 2^(bits-1): the whole grid is used, so the negative end reaches half
a step further than the positive one and +max|w| lies half a step beyond the last code. torchao's SYMMETRIC, and GPTQ's
where a group has both signs (without negative weights GPTQ keeps min = 0 and the zero in the middle, which wastes half
the codes and clips; here such a group is treated like every other).
A group of zeros gets the range [-1, 1]. Ties round to even, as torch.round does.
"""

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.quant.spec import QuantizedWeight, QuantSpec, check_weight


def choose_grid(w: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Scale and zero, shaped [...], for groups w [..., group]. InputError for a scale that w's type cannot hold."""
    low, high = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)
    empty = (low == 0) & (high == 0)
    low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
    if spec.symmetric:
        scale = _checked(2 * torch.maximum(-low, high) / spec.highest)
        return scale, torch.full_like(scale, spec.centre)
    scale = _checked((high - low) / spec.highest)
    return scale, (-low / scale).round()


def _checked(scale: Tensor) -> Tensor:
    lost = ~scale.isfinite() | (scale == 0)
    if lost.any():
        raise InputError(
            f"the scale of a group is {scale[lost][0].item():g} in {scale.dtype}: its weights leave the range of the "
            "type; normalize the weight first"
        )
    return scale


def to_codes(w: Tensor, scale: Tensor, zero: Tensor, spec: QuantSpec) -> Tensor:
    """The nearest codes, as floats, shaped like w; scale and zero broadcast against it."""
    return ((w / scale).round() + zero).clamp(0, spec.highest)


def from_codes(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The grid points."""
    return scale * (codes - zero)


def quantize_weight(w: Tensor, spec: QuantSpec) -> QuantizedWeight:
    """Round w [out, in] to nearest. InputError for numbers that are not finite or a group that does not divide."""
    check_weight(w)
    grouped = w.unflatten(1, (-1, spec.group_size(w.shape[1])))  # [out, groups, group]
    scale, zero = choose_grid(grouped, spec)
    codes = to_codes(grouped, scale[..., None], zero[..., None], spec)
    return QuantizedWeight(codes.flatten(1).to(torch.uint8), scale, zero, spec)
