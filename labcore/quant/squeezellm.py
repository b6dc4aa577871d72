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
ITERATIONS = 50  # of Lloyd's algorithm, as in nuq.py


@dataclass(frozen=True)
class CodebookWeight:
    """codes: uint8 [out, in] into levels [out, 2^bits]; sparse: values that replace them, where `kept` [out, in]."""

    codes: Tensor
    levels: Tensor
    bits: int
    kept: Tensor | None = None
    values: Tensor | None = None

    def dequantize(self) -> Tensor:
        """float32 [out, in]."""
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
            loss = windows.next_token_loss(model, row[None])
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                total[name] += gradient.square()
    finally:
        for w in weights.values():
            w.requires_grad_(False)
    return total


def squeeze(w: Tensor, fisher: Tensor, bits: int, *, outliers: float = 0.0, sensitive: float = 0.0) -> CodebookWeight:
    """w [out, in] on 2^bits levels a row, bits 1 to 8, weighted by fisher [out, in].

    outliers, sensitive: shares kept sparsely, 0 to 1.
    """
    check_weight(w)
    if not 1 <= bits <= 8:
        raise InputError(f"bits={bits}: codes have 1 to 8 bits")
    if not (0 <= outliers <= 1 and 0 <= sensitive <= 1):
        raise InputError(f"outliers={outliers}, sensitive={sensitive}: shares of the matrix are 0 to 1")
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


def weighted_kmeans(x: Tensor, weight: Tensor, k: int, edges: int = 96) -> tuple[Tensor, Tensor]:
    """Levels [rows, k], ascending, and codes uint8 [rows, n] that make Σ weight · (x - level)² small in each row.

    In one dimension the clusters of sorted x are intervals, and the best ones follow from the best ones of fewer levels
    over a beginning of the row. `_best_intervals` goes through all of them for up to `edges` numbers a row (exact); of
    more numbers it considers so many interval ends, and Lloyd's iterations settle between them. A row without weight
    counts as evenly weighted. x, weight: [rows, n].
    """
    x, place = x.double().sort(dim=1)
    weight = weight.double().gather(1, place)
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1.0)
    sums = torch.stack([F.pad((weight * x**power).cumsum(1), (1, 0)) for power in range(3)])  # [3, rows, n + 1]
    step = max(1, 2**22 // (edges + 1) ** 2)  # rows at a time, so that the tables stay small
    ends = torch.cat(
        [
            _best_intervals(*part, k, edges)
            for part in zip(x.split(step), weight.split(step), sums.split(step, 1), strict=True)
        ]
    )
    levels = _means(x, sums, ends, x.gather(1, ends[:, :-1].clamp(max=x.shape[1] - 1)))
    for _ in range(ITERATIONS):
        moved = _means(x, sums, F.pad(F.pad(_split(x, levels), (1, 0)), (0, 1), value=x.shape[1]), levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    levels = levels.sort(1).values
    middles = ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous()
    codes = torch.empty_like(place).scatter_(1, place, torch.searchsorted(middles, x.contiguous()))
    return levels.float(), codes.to(torch.uint8)


def _best_intervals(x: Tensor, weight: Tensor, sums: Tensor, k: int, edges: int) -> Tensor:
    """Where the best k intervals of each row begin and end, int64 [rows, k + 1], among the candidate edges.

    loss[j][b], the least loss of the first b candidates with j intervals, is min over a of loss[j - 1][a] + cost(a, b).
    """
    at = _candidates(x, weight, edges)  # [rows, candidates]
    mass, moment, square = (one.gather(1, at) for one in sums)
    between = [one[:, None, :] - one[:, :, None] for one in (mass, moment, square)]  # [rows, from, to]
    cost = between[2] - between[1] ** 2 / torch.where(between[0] > 0, between[0], 1.0)
    cost = cost.clamp(min=0).masked_fill(torch.ones_like(cost, dtype=torch.bool).tril(-1), torch.inf)
    loss, origins = cost[:, 0], []
    for _ in range(k - 1):
        loss, origin = (loss[:, :, None] + cost).min(1)
        origins.append(origin)
    ends = [torch.full((len(x), 1), at.shape[1] - 1)]
    for origin in reversed(origins):
        ends.append(origin.gather(1, ends[-1]))
    return at.gather(1, torch.cat([torch.zeros_like(ends[0]), *reversed(ends)], dim=1))


def _candidates(x: Tensor, weight: Tensor, edges: int) -> Tensor:
    """Places 0 … n of the sorted row at which an interval may end: all, or `edges` + 1 that lie as densely as the best
    levels do when there are many, by the cube root of weight times density."""
    n = x.shape[1]
    if n <= edges:
        return torch.arange(n + 1).expand(len(x), -1)
    gap = F.pad(x.diff(dim=1), (1, 1), mode="replicate").unfold(1, 2, 1).mean(-1)
    share = (weight.pow(1 / 3) * gap.pow(2 / 3) + 1e-30).cumsum(1)
    wanted = share[:, -1:] * (torch.arange(1, edges, dtype=x.dtype) / edges)
    inner = torch.searchsorted(share, wanted)
    return F.pad(F.pad(inner, (1, 0)), (0, 1), value=n)


def _split(x: Tensor, levels: Tensor) -> Tensor:
    """Where each row goes over from one level's cluster to the next's."""
    return torch.searchsorted(x, ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous(), right=True)


def _means(x: Tensor, sums: Tensor, ends: Tensor, otherwise: Tensor) -> Tensor:
    """The weighted mean of each interval, in one without weight `otherwise`."""
    mass, moment = (one.gather(1, ends).diff(dim=1) for one in sums[:2])
    return torch.where(mass > 0, moment / torch.where(mass > 0, mass, 1.0), otherwise)
