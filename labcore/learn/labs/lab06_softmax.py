"""Lab 6, softmax twice: a kernel for a row that fits, and one for a row that does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_tools import SECONDS, drawn, fences, table_of, unwritten

LAB = "lab06"
LOWEST = torch.finfo(torch.float32).min


def softmaxed(x, *, pad=-torch.inf, shift=True, divide=True):
    """`fused_softmax` with a part to be got wrong; pad: the score of what lies past the row."""
    full = 1 << (x.shape[1] - 1).bit_length()
    wide = torch.full((len(x), full), float(pad), device=x.device)
    wide[:, : x.shape[1]] = x
    weights = torch.exp(wide - wide.amax(1, keepdim=True)) if shift else torch.exp(wide)
    out = weights / weights.sum(1, keepdim=True) if divide else weights
    return out[:, : x.shape[1]].contiguous()


def running(x, block, *, decay=True, pad=-torch.inf, whole=False, divide=True):
    """`online_softmax` with a part to be got wrong: decay of l, what pads a tile, whole tiles only, the division."""
    rows, columns = x.shape
    m, l = torch.full((rows, 1), -torch.inf, device=x.device), torch.zeros(rows, 1, device=x.device)
    for start in range(0, columns, block):
        tile = x[:, start : start + block]
        if tile.shape[1] < block:
            if whole:
                break
            tile = torch.nn.functional.pad(tile, (0, block - tile.shape[1]), value=float(pad))
        new = torch.maximum(m, tile.amax(1, keepdim=True))
        l = l * (torch.exp(m - new) if decay else 1) + torch.exp(tile - new).sum(1, keepdim=True)
        m = new
    return torch.exp(x - m) / (l if divide else 1)


def drawn_rows(generator: np.random.Generator) -> tuple:
    seed, rows, columns = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 4), (1, 70)))
    return (drawn(seed, rows, columns, scale=3.0),)


def drawn_rows_and_block(generator: np.random.Generator) -> tuple:
    return *drawn_rows(generator), int(generator.choice([16, 32]))


def writes_all(*args) -> Callable[[Attempt], None]:
    """A stage: the kernel stores every number of the tensors it returns; first, for what is left is NaN."""

    def stage(attempt: Attempt) -> None:
        outputs = attempt(*args)
        for out in outputs if isinstance(outputs, tuple | list) else (outputs,):
            if missing := unwritten(out):
                raise Fault(
                    f"{attempt.call(args)} left {len(missing)} of {out.numel()} numbers unwritten in its output of "
                    f"shape {tuple(out.shape)}, the first at {missing[0]}: every program must tl.store its own share"
                )

    return stage


def stays_inside(*args) -> Callable[[Attempt], None]:
    """A stage: the kernel stores nothing before or behind the tensors it returns."""

    def stage(attempt: Attempt) -> None:
        outputs = attempt(*args)
        for out in outputs if isinstance(outputs, tuple | list) else (outputs,):
            strays = int((~fences(out).isnan()).sum())
            if strays:
                raise Fault(
                    f"{strays} number{'s were' if strays > 1 else ' was'} stored outside the output: mask the store "
                    "as you mask the load (here they hit a fence; elsewhere they hit another tensor)"
                )

    return stage


EXERCISES = (
    Exercise(
        id="kernels.softmax",
        lab=LAB,
        title="A fused softmax",
        asked="Write a softmax that reads each row once and writes it once.",
        spec="Write `softmax_kernel` and `fused_softmax(x)` for `x`, float32 [rows, columns], contiguous. Program "
        "`row` loads its whole row into BLOCK registers; `tl.arange` needs a power of two, so BLOCK may be larger than "
        "the row. Around the tensors lies NaN, and the output is NaN before you write it. Return softmax of each row.",
        reference=ref.fused_softmax,
        stages=(
            writes_all(table_of((1.0, 2.0, 3.0), (3.0, 1.0, 2.0))),
            oracle(table_of((0.0, 0.0), (np.log(3), 0.0)), gives=table_of((0.5, 0.5), (0.75, 0.25))),
            trap(table_of((1.0, 2.0, 3.0)), says="BLOCK is 4 here: what is the score of a column that does not exist?"),
            trap(table_of((-50.0, -60.0, -51.0)), says="all scores lie far below 0, and a padded column does not"),
            trap(table_of((-3e4, -3e4, -3e4)), says="scores may lie anywhere: only −inf is below all of them"),
            trap(table_of((200.0, 199.0)), says="exp(200) is no float32"),
            stays_inside(table_of((1.0, 2.0, 3.0))),
            trap(drawn(5, 1, 3000), says="3,000 columns: BLOCK is the next power of two of the row, not a constant"),
            trap(
                table_of((LOWEST,) * 3), says="float32's lowest number is what some masks write; only −inf is below it"
            ),
            agrees(drawn_rows, n=6),
        ),
        mistakes=(
            Mistake("−10,000 is a score too: only −inf is below all of them", lambda x: softmaxed(x, pad=-1e4)),
            Mistake(
                "the columns past the row count as scores of 0: load them with other=float('-inf')",
                lambda x: softmaxed(x, pad=0.0),
            ),
            Mistake(
                "the weights are not divided by their sum",
                lambda x: softmaxed(x, divide=False),
            ),
            Mistake(
                "subtract the row's maximum before the exponential",
                lambda x: softmaxed(x, shift=False),
            ),
            Mistake("that is the softmax of the columns", lambda x: x.softmax(0)),
            Mistake(
                "every program works on row 0: add row · columns to the pointers",
                lambda x: x[:1].softmax(1).expand_as(x),
            ),
        ),
        hints=(
            "Load with a mask, and decide what a masked column must weigh.",
            "row = tl.program_id(0); column = tl.arange(0, BLOCK); here = column < columns; load with other=−inf; "
            "subtract tl.max(x, 0); exp; divide by tl.sum; store with the mask. The launch is "
            "softmax_kernel[(rows,)](x, out, columns, BLOCK=triton.next_power_of_2(columns)).",
            '`x = tl.load(x_ptr + row * columns + column, mask=here, other=float("-inf"))`',
        ),
        difficulty=1,
        importance=3,
        minutes=(8, 15),
        rel_tol=2e-6,
        seconds=SECONDS,
    ),
    Exercise(
        id="kernels.online",
        lab=LAB,
        title="A row that does not fit",
        asked="A row of logits has 128,256 columns and a program a few thousand registers. How many times do you read "
        "it?",
        spec="Write `online_kernel` and `online_softmax(x, block)` for `x`, float32 [rows, columns]. Program `row` "
        "goes through its row `block` columns at a time (a power of two), keeping a maximum and a sum. A second loop "
        "reads the tiles again and writes the result. The last tile may be part full.",
        reference=ref.online_softmax,
        stages=(
            writes_all(table_of((1.0, 2.0, 3.0), (3.0, 1.0, 2.0)), 2),
            oracle(table_of((0.0, 0.0, np.log(2), 0.0)), 2, gives=table_of((0.2, 0.2, 0.4, 0.2))),
            trap(table_of((0.0, 0.0, 3.0, 4.0)), 2, says="the second tile holds the larger scores"),
            trap(table_of((4.0, 3.0, 0.0, 0.0)), 2, says="the first tile holds the larger scores"),
            trap(table_of((-9.0, -8.0, -7.0)), 2, says="the last tile is half full, and all scores lie below 0"),
            trap(table_of((-3e4, -3e4, -3e4)), 2, says="scores may lie anywhere: the maximum of nothing is −inf"),
            trap(table_of((99.0, 98.0, -99.0, -99.0)), 2, says="m is the largest score so far, and never falls again"),
            stays_inside(table_of((1.0, 2.0, 3.0)), 2),
            trap(table_of((1.0, 2.0, 3.0), (3.0, 1.0, 2.0)), 2, says="two rows, and a tile that is half full"),
            trap(
                table_of((LOWEST,) * 3),
                2,
                says="float32's lowest number is what some masks write; only −inf is below it",
            ),
            agrees(drawn_rows_and_block, n=4),
        ),
        mistakes=(
            Mistake(
                "when the maximum rises, the sum so far has to shrink by exp(m − m′)",
                lambda x, b: running(x, b, decay=False),
            ),
            Mistake(
                "the columns past the row count as scores of 0: load them with other=float('-inf')",
                lambda x, b: running(x, b, pad=0.0),
            ),
            Mistake(
                "the loop ends before the last tile, which is not full",
                lambda x, b: running(x, b, whole=True),
            ),
            Mistake("the results are not divided by the sum", lambda x, b: running(x, b, divide=False)),
            Mistake(
                "each tile got a softmax of its own",
                lambda x, b: torch.cat([part.softmax(1) for part in x.split(b, 1)], 1),
            ),
        ),
        hints=(
            "The first loop is `absorb` without values.",
            "`m, l = float('-inf'), 0.0`; for start in range(0, columns, BLOCK): new = tl.maximum(m, tl.max(x, 0)); "
            "l = l · exp(m − new) + Σ exp(x − new); m = new. Then the same loop again with exp(x − m)/l and a store.",
            "`new = tl.maximum(m, tl.max(x, 0))`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 15),
        rel_tol=2e-6,
        seconds=SECONDS,
    ),
)
