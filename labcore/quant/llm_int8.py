"""LLM.int8(): activations and weights in 8 bits, multiplied as integers, but for the few channels that are too large.

Row-wise scales: x ≈ codes · absmax/127 for every token, w likewise for every output. A column of x in which any token
reaches the threshold leaves the integer product: those columns stay in floating point and are multiplied with the same
columns of the weight, which are the rounded ones, since only those are stored.
Source: Dettmers et al., arXiv:2208.07339, section 3; bitsandbytes, backends/default/ops.py (round(x · 127/absmax)).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite
from labcore.quant.spec import check_weight

THRESHOLD = 6.0
HIGHEST = 127
EXACT_COLUMNS = 2**24 // HIGHEST**2  # products of so many pairs of codes sum up exactly in fp32: 1040


@dataclass(frozen=True)
class Int8Rows:
    """codes: int8 [rows, columns], -127 … 127; absmax: float32 [rows]."""

    codes: Tensor
    absmax: Tensor

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        return self.codes.float() * (self.absmax / HIGHEST)[:, None]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.absmax.nbytes


def quantize_rows(x: Tensor, absmax: Tensor | None = None) -> Int8Rows:
    """Each row of x [rows, columns] in 8 bits. absmax [rows]: maxima known beforehand, beyond which codes saturate
    (static scales); None: the rows' own."""
    absmax = x.abs().amax(1) if absmax is None else absmax
    steps = x * (HIGHEST / torch.where(absmax > 0, absmax, 1.0))[:, None]
    return Int8Rows(steps.round().clamp(-HIGHEST, HIGHEST).to(torch.int8), absmax)


def int8_product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of int8 codes [rows, columns] and [outputs, columns], exact, int32 [rows, outputs].

    Float products of up to EXACT_COLUMNS columns are exact and, on a CPU without 8-bit dot products, thirty times as
    fast as torch's integer ones; their sum is taken in integers.
    """
    total = torch.zeros(len(a), len(b), dtype=torch.int32)
    for left, right in zip(a.split(EXACT_COLUMNS, 1), b.split(EXACT_COLUMNS, 1), strict=True):
        total += (left.float() @ right.float().T).int()
    return total


def scaled_product(x: Int8Rows, w: Int8Rows) -> Tensor:
    """The floating-point product that the codes stand for, float32 [rows, outputs]."""
    return int8_product(x.codes, w.codes) * (x.absmax[:, None] * w.absmax) / HIGHEST**2


def outlier_columns(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """bool [in]: the columns of x [tokens, in] in which a token reaches the threshold."""
    return (x.abs() >= threshold).any(0)


def llm_int8(x: Tensor, w: Int8Rows, threshold: float = THRESHOLD) -> Tensor:
    """x Wᵀ for x [tokens, in]: outlier columns in float, the others as integers.

    A token's scale comes from the other columns alone; bitsandbytes lets what is below the threshold in an outlier
    column take part in the maximum.
    """
    outliers = outlier_columns(x, threshold)
    rest = scaled_product(quantize_rows(x.masked_fill(outliers, 0)), w)
    return rest + x[:, outliers] @ w.dequantize()[:, outliers].T


class Int8Linear(nn.Module):
    """A linear layer with weights and activations in 8 bits.

    threshold: LLM.int8()'s; None: no column leaves the integer product. x_absmax: one static scale for all activations,
    from calibration, beyond which they saturate; None: every token has its own.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        threshold: float | None = None,
        x_absmax: float | None = None,
    ):
        super().__init__()
        check_weight(weight)
        if threshold is not None and (x_absmax is not None or threshold < 0):
            raise InputError(f"threshold={threshold}, x_absmax={x_absmax}: give one of them, and no negative threshold")
        self.stored, self.bias = quantize_rows(weight), bias
        self.threshold, self.x_absmax = threshold, x_absmax

    def forward(self, x: Tensor) -> Tensor:
        check_finite(x, "activation")
        if self.threshold is not None:
            y = llm_int8(x, self.stored, self.threshold)
        else:
            static = None if self.x_absmax is None else torch.full((len(x),), self.x_absmax)
            y = scaled_product(quantize_rows(x, static), self.stored)
        return y if self.bias is None else y + self.bias
