"""Optimal Brain Quantization: round one weight, let the rest of its row make up for it. The readable ancestor of GPTQ.

A row w of a layer is to become ŵ on a grid so that the layer's output on the calibration inputs X changes least:
½·(w - ŵ) H (w - ŵ)ᵀ with H = 2XXᵀ. Rounding w_q and shifting the weights F that are still free costs least with
  δ = - (w_q - quant(w_q)) / [H_F⁻¹]_qq · (H_F⁻¹)_q,:      and costs   ½ (w_q - quant(w_q))² / [H_F⁻¹]_qq,
and then q leaves F: H_F⁻¹ loses row and column q by one step of Gaussian elimination (`eliminate`).
Sources: Hassibi and Stork, Optimal Brain Surgeon (1993); Frantar and Alistarh, OBC, arXiv:2208.11580, section 4;
GPTQ, arXiv:2210.17323, equations 2 and 3.

Grids are fixed beforehand, from the weights as they were. Rows are independent; in float64 this is the oracle of gptq.
"""

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.quant.rtn import choose_grid, from_codes, to_codes
from labcore.quant.spec import QuantizedWeight, QuantSpec, check_weight


def obq(w: Tensor, h: Tensor, spec: QuantSpec) -> tuple[QuantizedWeight, float]:
    """Every row in its own greedy order: next comes the weight whose rounding costs least.

    w: [out, in]; h: positive definite [in, in]. Returns the weight and the sum of the costs, ½ tr(ΔW H ΔWᵀ).
    Cost O(out · in³). InputError if h cannot be inverted.
    """
    return _eliminate_all(w, h, spec, lambda costs, step: int(costs.argmin()))


def obs_sequential(w: Tensor, h: Tensor, spec: QuantSpec) -> tuple[QuantizedWeight, float]:
    """The same with one order for all rows, first column to last: what GPTQ computes, step by step."""
    return _eliminate_all(w, h, spec, lambda costs, step: step)


def _eliminate_all(w: Tensor, h: Tensor, spec: QuantSpec, choose) -> tuple[QuantizedWeight, float]:
    check_weight(w)
    size = spec.group_size(w.shape[1])
    scale, zero = choose_grid(w.unflatten(1, (-1, size)), spec)
    inverse, codes, loss = _inverse(h), torch.empty_like(w), 0.0
    for r in range(len(w)):
        per_column = (one[r].repeat_interleave(size) for one in (scale, zero))
        codes[r], cost = _one_row(w[r].clone(), inverse, *per_column, spec, choose)
        loss += cost
    return QuantizedWeight(codes.to(torch.uint8), scale, zero, spec), loss


def _one_row(w: Tensor, inverse: Tensor, scale: Tensor, zero: Tensor, spec: QuantSpec, choose) -> tuple[Tensor, float]:
    """Codes of one row w [in] and what they cost; scale and zero are given for every column."""
    codes, free, loss = torch.zeros_like(w), torch.ones_like(w, dtype=torch.bool), 0.0
    for step in range(len(w)):
        nearest = to_codes(w, scale, zero, spec)
        errors = w - from_codes(nearest, scale, zero)
        costs = torch.where(free, errors**2 / (2 * inverse.diagonal()), torch.inf)
        q = choose(costs, step)
        codes[q], loss = nearest[q], loss + costs[q].item()
        w -= errors[q] / inverse[q, q] * inverse[q]  # zero for the columns that have left
        inverse, free[q] = eliminate(inverse, q), False
    return codes, loss


def eliminate(inverse: Tensor, q: int) -> Tensor:
    """H_F⁻¹ without the index q, which keeps a row and a column of zeros, and a diagonal of 1 to divide by."""
    smaller = inverse - torch.outer(inverse[:, q], inverse[q]) / inverse[q, q]
    smaller[q], smaller[:, q] = 0, 0
    smaller[q, q] = 1
    return smaller


def _inverse(h: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(h)
    if info:
        raise InputError("the Hessian is not positive definite: more calibration tokens than columns, or damping, help")
    return torch.cholesky_inverse(factor)
