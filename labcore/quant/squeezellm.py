"""SqueezeLLM: 2^b levels for every row, put where rounding would hurt the loss, and a few weights kept out of it.

To second order, and with a diagonal Hessian, rounding w to ŵ costs Σ F (w - ŵ)², F the Fisher information of each
weight: its squared gradient, summed over texts. The best levels of a row are then its weighted 1-D k-means centres. Two
kinds of weights are stored apart, in 16 bits and sparsely: the largest ones, which would stretch the levels, and the
most sensitive ones. Every other weight has the same number of bits: sensitivity shapes the levels, not the widths.
Source: Kim et al., arXiv:2306.07629, sections 4.1 and 4.2; SqueezeAILab/SqueezeLLM, quantization/nuq.py, outliers.py
(whose two-sided threshold is tuned to a share of the weights; here the share is taken directly).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.model.llama import Llama
from labcore.quant import windows
from labcore.quant.calibrate import linears
from labcore.quant.spec import check_weight, code_bytes

OUTLIERS, SENSITIVE = 0.004, 0.0005  # shares of a matrix that are stored sparsely


@dataclass(frozen=True)
class CodebookWeight:
    """codes: uint8 [out, in] into levels [out, 2^bits]; sparse: values that replace them, where `kept` [out, in]."""

    codes: Tensor
    levels: Tensor
    bits: int
    kept: Tensor | None = None
    values: Tensor | None = None

    def dequantize(self) -> Tensor:
        dense = self.levels.gather(1, self.codes.long())
        return dense if self.kept is None else dense.masked_scatter(self.kept, self.values)

    def stored(self) -> "CodebookWeight":
        """Levels and sparse values rounded to fp16, as a file keeps them."""
        values = None if self.values is None else self.values.half().float()
        return CodebookWeight(self.codes, self.levels.half().float(), self.bits, self.kept, values)

    @property
    def nbytes(self) -> int:
        """Packed codes, fp16 levels, and the sparse part in CSR: fp16 value and int32 column each, int32 row starts."""
        out, columns = self.codes.shape
        dense = out * code_bytes(columns, self.bits) + 2 * self.levels.numel()
        return dense + (0 if self.kept is None else 6 * self.values.numel() + 4 * (out + 1))

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.codes.numel()


def fisher_diagonal(model: Llama, rows: Tensor) -> dict[str, Tensor]:
    """Σ over windows of (∂ loss / ∂ w)² for every linear of the blocks; rows: see `windows.cut`."""
    if not len(rows):
        raise InputError("no calibration windows: the Fisher information is a sum over texts")
    weights = {name: linear.weight for name, linear in linears(model).items()}
    total = {name: torch.zeros_like(w) for name, w in weights.items()}
    try:
        for w in weights.values():
            w.requires_grad_(True)
        for row in rows:
            loss = F.cross_entropy(windows.logits(model, row[None, :-1]), row[1:])
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                total[name] += gradient.square()
    finally:
        for w in weights.values():
            w.requires_grad_(False)
    return total


def squeeze(w: Tensor, fisher: Tensor, bits: int, *, outliers: float = 0.0, sensitive: float = 0.0) -> CodebookWeight:
    """w [out, in] on 2^bits levels a row, weighted by fisher [out, in]; outliers, sensitive: shares kept sparsely."""
    check_weight(w)
    if fisher.shape != w.shape or not (fisher.isfinite() & (fisher >= 0)).all():
        raise InputError(
            f"sensitivities of shape {tuple(fisher.shape)} for a weight of {tuple(w.shape)}; give one "
            "finite number, 0 or more, for each weight"
        )
    kept = _largest(w.abs(), outliers) | _largest(fisher, sensitive)
    levels, codes = weighted_kmeans(w.masked_fill(kept, 0), fisher.masked_fill(kept, 0), 2**bits)
    if not kept.any():
        return CodebookWeight(codes, levels, bits)
    return CodebookWeight(codes, levels, bits, kept, w[kept])


def _largest(x: Tensor, share: float) -> Tensor:
    """bool, shaped like x: the given share of its elements, rounded, the largest ones."""
    mask = torch.zeros(x.numel(), dtype=torch.bool)
    mask[x.flatten().topk(round(share * x.numel())).indices] = True
    return mask.view(x.shape)


def weighted_kmeans(x: Tensor, weight: Tensor, k: int, iterations: int = 100) -> tuple[Tensor, Tensor]:
    """Levels [rows, k], ascending, and codes uint8 [rows, n] that make Σ weight · (x - level)² small in each row.

    In one dimension clusters are intervals: with x sorted, a cluster's sums are differences of running sums. Lloyd's
    iterations run from two starts, and each row keeps the better end. A row without weight is taken as evenly weighted.
    """
    x, place = x.double().sort(dim=1)
    weight = weight.double().gather(1, place)
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1.0)
    sums = [F.pad((weight * x**power).cumsum(1), (1, 0)) for power in (0, 1)]
    best, least = None, None
    for levels in (_by_density(x, weight, k), _even(x, k)):
        for _ in range(iterations):
            moved = _centres(x, sums, levels)
            if torch.equal(moved, levels):
                break
            levels = moved
        cost = (weight * (x - levels.gather(1, _nearest(x, levels))) ** 2).sum(1)
        better = torch.ones_like(cost, dtype=torch.bool) if least is None else cost < least
        best = levels if best is None else torch.where(better[:, None], levels, best)
        least = cost if least is None else torch.where(better, cost, least)
    codes = torch.empty_like(place).scatter_(1, place, _nearest(x, best))
    return best.float(), codes.to(torch.uint8)


def _nearest(x: Tensor, levels: Tensor) -> Tensor:
    """Index of the nearest of the ascending levels [rows, k] for each x [rows, n]."""
    return torch.searchsorted(((levels[:, 1:] + levels[:, :-1]) / 2).contiguous(), x.contiguous())


def _centres(x: Tensor, sums: list[Tensor], levels: Tensor) -> Tensor:
    """The weighted mean of every level's cluster; a level without weight stays."""
    ends = torch.searchsorted(x, ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous(), right=True)
    edges = F.pad(F.pad(ends, (1, 0)), (0, 1), value=x.shape[1])
    mass, moment = (one.gather(1, edges).diff(dim=1) for one in sums)
    return torch.where(mass > 0, moment / mass.clamp(min=torch.finfo(x.dtype).tiny), levels).sort(1).values


def _by_density(x: Tensor, weight: Tensor, k: int) -> Tensor:
    """A start whose levels are as dense as the best ones are for large k: the cube root of weight times density."""
    gap = F.pad(x.diff(dim=1), (1, 1), mode="replicate").unfold(1, 2, 1).mean(-1)
    mass = weight.pow(1 / 3) * gap.clamp(min=1e-30).pow(2 / 3)
    share = mass.cumsum(1) / mass.sum(1, keepdim=True)
    wanted = (torch.arange(k, dtype=x.dtype) + 0.5).expand(len(x), -1) / k
    return x.gather(1, torch.searchsorted(share, wanted.contiguous()).clamp(max=x.shape[1] - 1))


def _even(x: Tensor, k: int) -> Tensor:
    """A start that spreads the levels evenly over the row's range."""
    return x[:, :1] + (x[:, -1:] - x[:, :1]) * (torch.arange(k, dtype=x.dtype) + 0.5) / k
