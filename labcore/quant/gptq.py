"""GPTQ: round the columns of a layer one after the other and let the columns that follow make up for the error.

It is OBQ (see `obq`) with two changes. All rows take the columns in one order, so they share one inverse Hessian. And
the inverses of all the shrinking Hessians H_F are computed at once: with H⁻¹ = UᵀU, U upper triangular,
[H_F⁻¹]_qq = U_qq² and (H_F⁻¹)_q,: = U_qq · U_q,:  when F is column q and those behind it. Nothing is approximated.
Source: Frantar et al., arXiv:2210.17323, algorithm 1; IST-DASLab/gptq, gptq.py, whose weights this reproduces.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite
from labcore.quant.rtn import choose_grid, from_codes, to_codes
from labcore.quant.spec import QuantizedWeight, QuantSpec, check_weight

ORDERS, GROUPS = ("none", "act"), ("reference", "fresh", "static")
MOST_DAMPING = 1.0
Grid = tuple[Tensor, Tensor]  # scale and zero [out] of one group


@dataclass(frozen=True)
class GPTQResult:
    """loss: Σ e²/2 = ½ tr(ΔW H ΔWᵀ), H with its damping. damp: the share of the mean diagonal that was added to the
    diagonal, more than asked for if H needed it. permutation: the order in which columns were rounded; None: theirs."""

    weight: QuantizedWeight
    loss: float
    damp: float
    permutation: Tensor | None


def gptq(
    w: Tensor,
    h: Tensor,
    spec: QuantSpec,
    *,
    block: int = 128,
    damp: float = 0.01,
    order: str = "none",
    groups: str = "reference",
) -> GPTQResult:
    """Quantize w [out, in] for inputs whose Hessian is h [in, in] (see `hessian`), both float32 or both float64.

    block: columns after which the columns behind them are updated, all at once; a matter of speed alone.
    order: "act" takes the columns with the most activation energy (largest diagonal of h) first.
    groups: where a group's grid comes from. "static": from w as it was. "fresh": from the weights as they are when the
    group's turn comes. "reference": the same, but blind to what the current block of columns has not yet passed on,
    as in gptq.py, where the stale matrix is read; so there `block` matters once it exceeds the group.
    A column without activations has nothing to lose and becomes 0.
    Raises InputError for input that is not finite, and for a Hessian that no damping makes positive definite.
    """
    _check(w, h, block, damp, order, groups)
    w, h, size = w.clone(), h.clone(), spec.group_size(w.shape[1])
    dead = h.diagonal() == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    starts = range(0, w.shape[1], size) if groups == "static" else ()
    grids = [choose_grid(w[:, start : start + size], spec) for start in starts]
    permutation = h.diagonal().argsort(descending=True, stable=True) if order == "act" else None
    if permutation is not None:
        w, h = w[:, permutation], h[permutation][:, permutation]
    group_of = torch.arange(w.shape[1]) // size  # of the columns as they stand now
    if groups == "static" and permutation is not None:
        group_of = group_of[permutation]
    u, damp = inverse_factor(h, damp)

    codes, grids, loss = round_columns(w, u, spec, block, groups, group_of, grids)
    scale, zero = (torch.stack(one, dim=1) for one in zip(*grids, strict=True))
    g_idx = None
    if permutation is not None:
        codes = codes[:, permutation.argsort()]
        g_idx = None if groups == "static" or spec.group is None else group_of[permutation.argsort()]
    return GPTQResult(QuantizedWeight(codes.to(torch.uint8), scale, zero, spec, g_idx), loss, damp, permutation)


def round_columns(
    w: Tensor, u: Tensor, spec: QuantSpec, block: int, groups: str, group_of: Tensor, grids: list[Grid]
) -> tuple[Tensor, list[Grid], float]:
    """Algorithm 1: every column of w in its turn, which changes w. Returns the codes, the grids and the loss.

    group_of: int64 [in], the group of each column; grids: of all groups if they are static, else still empty.
    """
    codes, loss, size = torch.empty_like(w), 0.0, spec.group_size(w.shape[1])
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        live = w[:, start:end].clone()  # this block's columns, compensated at once; those behind it wait
        errors = torch.zeros_like(live)
        for i in range(end - start):
            column = start + i
            if groups != "static" and column % size == 0:
                ahead = w[:, column : column + size]
                if groups == "fresh":  # what this block has still to pass on
                    ahead = ahead - errors[:, :i] @ u[start:column, column : column + size]
                grids.append(choose_grid(ahead, spec))
            scale, zero = grids[group_of[column]]
            codes[:, column] = to_codes(live[:, i], scale, zero, spec)
            errors[:, i] = (live[:, i] - from_codes(codes[:, column], scale, zero)) / u[column, column]
            live[:, i:] -= errors[:, i, None] * u[column, column:end]
        w[:, end:] -= errors @ u[start:end, end:]
        loss += errors.square().sum().item() / 2
    return codes, grids, loss


def hessian(x: Tensor) -> Tensor:
    """2/n XᵀX [in, in] of inputs x [tokens, in]. InputError without tokens, or for numbers that are not finite."""
    if not len(x):
        raise InputError("no calibration tokens: a Hessian needs at least one input")
    check_finite(x, "activation")
    return 2 / len(x) * (x.T @ x)


def inverse_factor(h: Tensor, damp: float) -> tuple[Tensor, float]:
    """U, upper triangular, with UᵀU = (H + damp · mean(diag H) · I)⁻¹, and the damping that it took.

    Where rounding leaves H without a Cholesky factor the damping grows tenfold, up to the mean diagonal itself.
    """
    asked = damp
    while damp <= MOST_DAMPING:
        factor, failed = torch.linalg.cholesky_ex(damped(h, damp))
        if not failed:
            u, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed and u.isfinite().all():
                return u, damp
        damp = max(10 * damp, 1e-4)
    raise InputError(
        f"the Hessian has no Cholesky factor with damping from {asked:g} to {MOST_DAMPING:g} of its mean diagonal: "
        "it is not a sum of x xᵀ"
    )


def damped(h: Tensor, damp: float) -> Tensor:
    """H + damp · mean(diag H) · I."""
    return h + damp * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)


def layer_loss(w: Tensor, quantized: Tensor, h: Tensor) -> float:
    """½ tr(ΔW H ΔWᵀ), which is ‖ΔW X‖² / n for h from `hessian`: the squared change of the output per token."""
    delta = w - quantized
    return ((delta @ h) * delta).sum().item() / 2


def _check(w: Tensor, h: Tensor, block: int, damp: float, order: str, groups: str) -> None:
    check_weight(w)
    if h.shape != (w.shape[1], w.shape[1]):
        raise InputError(f"a Hessian of shape {tuple(h.shape)} for a weight with {w.shape[1]} input columns")
    if w.dtype != h.dtype or w.dtype not in (torch.float32, torch.float64):
        raise InputError(f"a weight of {w.dtype} and a Hessian of {h.dtype}; give both in float32 or both in float64")
    check_finite(h, "Hessian")
    if not 0 <= damp <= MOST_DAMPING:
        raise InputError(f"damp={damp}: the share of the mean diagonal that is added is 0 to {MOST_DAMPING:g}")
    if block < 1:
        raise InputError(f"block={block}: a block has at least one column")
    if order not in ORDERS or groups not in GROUPS:
        raise InputError(f"order={order!r}, groups={groups!r}: order is one of {ORDERS}, groups one of {GROUPS}")
