"""Lab 5, making up for an error: one step of the optimal brain surgeon, the inverse without an index, and GPTQ."""

from __future__ import annotations

import numpy as np
import torch

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_tools import drawn_hessian, drawn_weight, matrix, nearest, row_grid, upper_factor
from labcore.quant.obq import eliminate

LAB = "lab05"


def step_of(w, inverse, q, rounded, *, sign=-1, share=True, half=2.0, loss_share=True, moves=True):
    """`obs_step` with a part to be got wrong on purpose."""
    error, pivot = w[q] - rounded, inverse[q, q]
    shift = sign * error / (pivot if share else 1) * inverse[q]
    if not moves:
        shift = -error * (torch.arange(len(w)) == q)
    return w + shift, float(error**2 / (half * (pivot if loss_share else 1)))


def drawn_step(generator: np.random.Generator) -> tuple:
    seed, size = int(generator.integers(1 << 30)), int(generator.integers(2, 9))
    w = drawn_weight(seed, 1, size)[0]
    q = int(generator.integers(size))
    return w, drawn_hessian(seed, size).inverse(), q, float(w[q].round())


def eliminated(inverse, q, *, sign=-1, divide=True, subtract=True, blank=True, one=1.0):
    """`eliminate` with a part to be got wrong on purpose."""
    outer = torch.outer(inverse[:, q], inverse[q]) / (inverse[q, q] if divide else 1)
    smaller = inverse + sign * outer * subtract
    if blank:
        smaller[q], smaller[:, q] = 0, 0
        smaller[q, q] = one
    return smaller


def drawn_elimination(generator: np.random.Generator) -> tuple:
    _, inverse, q, _ = drawn_step(generator)
    return inverse, q


def columns_of(w, h, bits, *, factor=upper_factor, rows=None, divide=True, loss=None, moved=True, regrid=False):
    """`gptq_columns` with a part to be got wrong on purpose."""
    u, left, found, total = factor(h), w.clone(), torch.zeros_like(w), 0.0
    for i in range(w.shape[1]):
        scale, zero = row_grid(left if regrid else w, bits)
        found[:, i] = nearest(left[:, i], scale, zero, bits)
        off = (left if moved else w)[:, i] - found[:, i]
        error = off / u[i, i]
        direction = u[i, i:] if rows is None else rows(u, i)
        left[:, i:] -= (error if divide else off)[:, None] * direction
        total += float((error.square().sum() / 2) if loss is None else loss(off, error))
    return found, total


def drawn_layer(generator: np.random.Generator) -> tuple:
    seed, out, size = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 5), (3, 13)))
    return drawn_weight(seed, out, size), drawn_hessian(seed + 9, size), int(generator.integers(2, 5))


TOGETHER = matrix((2, 1.8, 0), (1.8, 2, 0), (0, 0, 2))

EXERCISES = (
    Exercise(
        id="quant.obs",
        lab=LAB,
        title="Round one weight, let the others make up for it",
        asked="You round one weight of a row. How do you change the others so that the layer's output moves least?",
        spec="Write `obs_step(w, inverse, q, rounded)`: `w`, float64 [in], is a row; `inverse`, [in, in], is the "
        "inverse Hessian H⁻¹ of its inputs; weight `q` is to become `rounded`. With e = w[q] − rounded, return **(the "
        "new row, cost)**: all weights move by −e/[H⁻¹]_qq · H⁻¹[q, :], and the cost, a float, is e²/(2·[H⁻¹]_qq). Do "
        "not change `w` in place.",
        reference=ref.obs_step,
        stages=(
            oracle(matrix((1.4, 2.0))[0], matrix((1, 0), (0, 1)), 0, 1.0, gives=(matrix((1, 2))[0], 0.08)),
            oracle(matrix((1.5, 2.0))[0], matrix((4, -2), (-2, 2)), 0, 1.0, gives=(matrix((1, 2.25))[0], 0.03125)),
            trap(matrix((0.25, 1.0, 1.0))[0], matrix((4, 1, -2), (1, 1, 0), (-2, 0, 3)), 0, 0.0, says="[H⁻¹]_qq is 4"),
            agrees(drawn_step, n=20),
        ),
        mistakes=(
            Mistake(
                "the sign: w[q] must end at the rounded value, so the row moves by −e", lambda *a: step_of(*a, sign=1)
            ),
            Mistake(
                "divide the shift by [H⁻¹]_qq: then weight q moves by exactly −e",
                lambda *a: step_of(*a, share=False),
            ),
            Mistake("the other weights stayed where they were", lambda *a: step_of(*a, moves=False)),
            Mistake("the objective is ½ ΔW H ΔWᵀ, so half of e²/[H⁻¹]_qq", lambda *a: step_of(*a, half=1.0)),
            Mistake(
                "a weight that others can replace is cheap to round: divide the cost by [H⁻¹]_qq",
                lambda *a: step_of(*a, loss_share=False),
            ),
            Mistake(
                "a large [H⁻¹]_qq makes the weight cheap to round: the cost is divided by it, not multiplied",
                lambda w, inverse, q, rounded: (
                    step_of(w, inverse, q, rounded)[0],
                    float((w[q] - rounded) ** 2 * inverse[q, q] / 2),
                ),
            ),
        ),
        hints=(
            "A quadratic bowl, cut by the plane δ_q = −e. Its lowest point is the column q of H⁻¹, stretched until "
            "entry q fits.",
            "error = w[q] − rounded; new = w − error / inverse[q, q] · inverse[q]; cost = error² / (2 · inverse[q, "
            "q]).",
            "`error = w[q] - rounded`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
        rel_tol=1e-5,
    ),
    Exercise(
        id="quant.eliminate",
        lab=LAB,
        title="The inverse loses an index",
        asked="Weight q is fixed now. What is the inverse Hessian of the weights that are still free?",
        spec="Write `eliminate(inverse, q)`: `inverse`, float64 [in, in], is H⁻¹. Return the inverse of H **without "
        "row and column q**, in the old places: H⁻¹ − H⁻¹[:, q] H⁻¹[q, :]/[H⁻¹]_qq, then row and column q set to 0 "
        "and entry (q, q) to 1, so that a later division by the diagonal is harmless. Nothing is inverted again.",
        reference=eliminate,
        stages=(
            oracle(matrix((2, 1), (1, 1)), 0, gives=matrix((1, 0), (0, 0.5))),
            oracle(matrix((4, 2, 0), (2, 3, 1), (0, 1, 1)), 0, gives=matrix((1, 0, 0), (0, 2, 1), (0, 1, 1))),
            trap(matrix((1, 0), (0, 5)), 1, says="nothing else depends on weight 1, so nothing else changes"),
            agrees(drawn_elimination, n=20),
        ),
        mistakes=(
            Mistake(
                "a part of an inverse is not the inverse of a part: subtract the outer product first",
                lambda *a: eliminated(*a, subtract=False),
            ),
            Mistake("divide the outer product by [H⁻¹]_qq", lambda *a: eliminated(*a, divide=False)),
            Mistake("subtract: with fewer free weights less can be made up for", lambda *a: eliminated(*a, sign=1)),
            Mistake("entry (q, q) becomes 1, or the next division by it is 0/0", lambda *a: eliminated(*a, one=0.0)),
            Mistake("set row and column q to 0, and (q, q) to 1", lambda *a: eliminated(*a, blank=False)),
        ),
        hints=(
            "One step of Gaussian elimination, on the inverse: clear row and column q with the help of entry (q, q).",
            "smaller = inverse − outer(inverse[:, q], inverse[q]) / inverse[q, q]; then smaller[q] = 0, smaller[:, q] "
            "= 0, smaller[q, q] = 1.",
            "`smaller = inverse - torch.outer(inverse[:, q], inverse[q]) / inverse[q, q]`",
        ),
        difficulty=1,
        importance=2,
        minutes=(4, 6),
        rel_tol=1e-5,
    ),
    Exercise(
        id="quant.gptq",
        lab=LAB,
        title="GPTQ: the same by Cholesky",
        asked="How does GPTQ avoid inverting a Hessian for every weight?",
        spec="Write `gptq_columns(w, h, bits)` for `w`, float64 [out, in], and a positive definite `h` [in, in]: H⁻¹ "
        "= UᵀU with U upper triangular (`upper_factor(h)`). Take the columns from first to last, all rows at once. "
        "Round column i to the grid of its row (`row_grid(w, bits)`, from the weights **as they came**, and "
        "`nearest`), divide the error by U_ii, and subtract error · U[i, i:] from the columns from i on. Return **(ŵ, "
        "loss)**, the loss being half the sum of the squares of the **divided** errors, a float.",
        reference=ref.gptq_columns,
        stages=(
            oracle(
                matrix((0.0, 1.4, 3.0)), torch.tensor([2.0, 8, 2]).double().diag(), 2, gives=(matrix((0, 1, 3)), 0.64)
            ),
            trap(
                matrix((0.4, 0.4, 3.0)),
                TOGETHER,
                2,
                says="0.4 was rounded down, so its neighbour, which moves with it, has become 0.4 + 0.36",
            ),
            agrees(drawn_layer, n=20),
        ),
        mistakes=(
            Mistake(
                "that is round to nearest: the columns behind have to move",
                lambda *a: columns_of(*a, rows=lambda u, i: 0 * u[i, i:]),
            ),
            Mistake(
                "U is the factor of H⁻¹, not of H",
                lambda *a: columns_of(*a, factor=lambda h: torch.linalg.cholesky(h, upper=True)),
            ),
            Mistake(
                "that row of H⁻¹ still counts on the columns already rounded, which cannot move any more: take U's",
                lambda *a: columns_of(
                    *a,
                    factor=lambda h: h.inverse(),
                    loss=lambda off, error: (off * error).sum() / 2,
                ),
            ),
            Mistake(
                "divide the error by U_ii before it is spread over U's row: U_ii · U_i is the row of the inverse, so "
                "e/U_ii² · U_ii U_i",
                lambda *a: columns_of(*a, divide=False),
            ),
            Mistake(
                "the loss is the sum over all rows, not their mean",
                lambda *a: columns_of(*a, loss=lambda off, error: error.square().mean() / 2),
            ),
            Mistake("the objective has a ½", lambda *a: columns_of(*a, loss=lambda off, error: error.square().sum())),
            Mistake(
                "the loss of a weight is its squared error over 2·U_ii²: others have made up for a part",
                lambda *a: columns_of(*a, loss=lambda off, error: off.square().sum() / 2),
            ),
            Mistake(
                "the grid comes from the weights as they came, and is fixed",
                lambda *a: columns_of(*a, regrid=True),
            ),
            Mistake(
                "the error is that of the weight as it stands now, moved by the columns before it",
                lambda *a: columns_of(*a, moved=False),
            ),
        ),
        hints=(
            "U_ii² is the [H⁻¹]_ii of the weights not yet rounded, and U_ii · U[i, i:] their row of the inverse. So "
            "one OBS step is e/U_ii · U[i, i:], for all rows in one outer product.",
            "For i: found[:, i] = nearest(left[:, i], scale, zero, bits); error = (left[:, i] − found[:, i]) / U[i, "
            "i]; left[:, i:] −= error[:, None] · U[i, i:]; loss += Σ error²/2.",
            "`u, left, found = upper_factor(h), w.clone(), torch.zeros_like(w)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(10, 15),
        rel_tol=1e-5,
    ),
)
