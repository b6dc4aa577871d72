"""Lab 5, a defect to find: GPTQ in blocks, whose codes look right and whose loss does not add up."""

from __future__ import annotations

from collections.abc import Callable

import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake
from labcore.learn.exercises.compare import kind_problem
from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_tools import drawn_hessian, drawn_weight, nearest, row_grid, upper_factor
from labcore.quant.gptq import layer_loss

LAB = "lab05"


def blocked_of(w, h, bits, block, *, pivot=0, row=0, behind=0, lazy=True, loss=None):
    """`gptq_blocked` with a part to be got wrong: pivot, row, behind = 1 count that index from the block's start."""
    found, u, total = w.clone(), upper_factor(h), 0.0
    scale, zero = row_grid(w, bits)
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        live, errors = found[:, start:end].clone(), torch.zeros_like(w[:, start:end])
        first = lambda local, start=start: 0 if local else start  # noqa: E731
        for i in range(end - start):
            found[:, start + i] = nearest(live[:, i], scale, zero, bits)
            p, r = first(pivot) + i, first(row)
            errors[:, i] = (live[:, i] - found[:, start + i]) / u[p, p]
            live[:, i:] -= errors[:, i, None] * u[r + i, r + i : r + end - start]
        if lazy:
            b = first(behind)
            found[:, end:] -= errors @ u[b : b + end - start, end:]
        total += float(errors.square().sum() / 2)
    return found, total if loss is None else loss(w, found, h)


def case(seed: int, block: int) -> tuple:
    """A layer of 4 rows and 12 columns in 3 bits, and the block."""
    return drawn_weight(seed, 4, 12), drawn_hessian(seed + 1, 12), 3, block


def adds_up(*seeds: int, block: int, says: str) -> Callable[[Attempt], None]:
    """A stage: the loss that is reported is ½ tr(ΔW H ΔWᵀ) of what is returned, and both are the reference's."""

    def stage(attempt: Attempt) -> None:
        for seed in seeds:
            args = case(seed, block)
            want, got = attempt.exercise.reference(*args), attempt(*args)
            if problem := kind_problem(got, want):
                raise Fault(f"{attempt.call(args)} {problem}")
            found, loss = got[0], float(got[1])
            traced = layer_loss(args[0], found, args[1])
            if not abs(loss - traced) < 1e-6 * abs(traced):
                reason = attempt.likely_mistake(args, got, want) or says
                raise Fault(
                    f"in blocks of {block} the loss Σ e²/2 is {loss:.4g}, and ½ tr(ΔW H ΔWᵀ) of the same weights "
                    f"{traced:.4g}: {reason}"
                )
            attempt.expect(args, want, "the loss adds up, but the weights are not those of GPTQ column by column")

    return stage


EXERCISES = (
    Exercise(
        id="quant.blocked",
        lab=LAB,
        title="The loss does not add up",
        asked="This GPTQ passes every test on small matrices, and real layers come out bad. Where is the defect?",
        spec="`gptq_blocked(w, h, bits, block)` is `gptq_columns` in blocks: the columns of a block are brought up to "
        "date at once, and those behind it at its end, in one product. The result must not depend on `block`. Here it "
        "does, from the second block on. **Repair the line** that is wrong and hand in the function. The check holds "
        "the loss you report, Σ e²/2, against ½ tr(ΔW H ΔWᵀ) of the weights you return.",
        reference=ref.gptq_blocked,
        starter=ref.broken_gptq_blocked,
        stages=(
            adds_up(0, 1, block=12, says="with a single block nothing can be mixed up: this is not GPTQ"),
            adds_up(0, 1, block=4, says="the second block starts at column 4: which index counts from where?"),
            adds_up(2, 3, 4, block=5, says="the last block is a short one"),
            adds_up(5, 6, 7, 8, block=1, says="blocks of one column: all is left to the product behind the block"),
        ),
        mistakes=(
            Mistake(
                "U is indexed by the column of the matrix, not of the block: the divisor of column start + i is not "
                "U[i, i]",
                lambda *a: blocked_of(*a, pivot=1),
            ),
            Mistake(
                "the row of U that spreads the error within the block is that of column start + i, not of i",
                lambda *a: blocked_of(*a, row=1),
            ),
            Mistake(
                "the product behind the block takes rows start to end of U, not the first ones",
                lambda *a: blocked_of(*a, behind=1),
            ),
            Mistake(
                "divisor and row both count from the block's start: that is the factor of another block",
                lambda *a: blocked_of(*a, pivot=1, row=1),
            ),
            Mistake("the columns behind the block never hear of its errors", lambda *a: blocked_of(*a, lazy=False)),
            Mistake(
                "you made the report agree with the weights; the weights are still the wrong ones",
                lambda *a: blocked_of(*a, pivot=1, loss=layer_loss),
            ),
        ),
        hints=(
            "Everything agrees while start is 0. Which expressions use i without start?",
            "`live` and `errors` have the block's columns, so i is right there. `u` and `found` have the matrix's, so "
            "there it is start + i. Go through every bracket.",
            "`column = start + i`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        rel_tol=1e-5,
    ),
)
