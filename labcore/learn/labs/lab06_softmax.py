"""Lab 6, softmax three times: the recurrence on paper, one kernel for a row that fits, one for a row that does not."""

from __future__ import annotations

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_tools import drawn, fences, table_of

LAB = "lab06"
INF = torch.inf


def number(value: float) -> torch.Tensor:
    """A float64 scalar."""
    return torch.tensor(value, dtype=torch.float64)


def vector(*values: float) -> torch.Tensor:
    """float64 [n]."""
    return torch.tensor(values, dtype=torch.float64)


def absorbed(m, l, acc, scores, values, *, decay_l=True, decay_acc=True, turned=1, own=False, guard=True):
    """`absorb` with a part to be got wrong on purpose."""
    new = scores.max() if own else torch.maximum(m, scores.max())
    if new == -INF and guard:
        return m, l, acc
    decay, weights = torch.exp(turned * (m - new)), torch.exp(scores - new)
    return new, (decay if decay_l else 1) * l + weights.sum(), (decay if decay_acc else 1) * acc + weights @ values


def divided(*args):
    """`absorb` that divides by l in every tile."""
    m, l, acc = absorbed(*args)
    return m, l, acc / l


def drawn_state(generator: np.random.Generator) -> tuple:
    seed, keys, dim = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 6), (1, 4)))
    many = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=many, dtype=torch.float64)  # noqa: E731
    return 3 * random(1)[0], 1 + random(1)[0].abs(), random(dim), 3 * random(keys), random(keys, dim)


def one_pass(*seeds: int) -> callable:
    """A stage: tile after tile, o = acc/l and m + ln l are those of the whole row, to 1e-12."""

    def stage(attempt: Attempt) -> None:
        for seed in seeds:
            many = torch.Generator().manual_seed(seed)
            scores, values = torch.randn(2, 12, 3, generator=many, dtype=torch.float64)
            scores = 20 * scores[:, 0]
            state = number(-INF), number(0.0), torch.zeros(3, dtype=torch.float64)
            for tile in range(0, 12, 4):
                state = attempt(*state, scores[tile : tile + 4], values[tile : tile + 4])
            m, l, acc = state
            if not (float((acc / l - scores.softmax(0) @ values).abs().max()) < 1e-12) or not (
                abs(float(m + l.log() - scores.logsumexp(0))) < 1e-12
            ):
                raise Fault("three tiles of 4 do not give what the 12 scores together do, to 1e-12")

    return stage


def softmaxed(x, *, pad=-INF, shift=True, divide=True):
    """`fused_softmax` with a part to be got wrong; pad: the score of what lies past the row."""
    full = 1 << (x.shape[1] - 1).bit_length()
    wide = torch.full((len(x), full), float(pad), device=x.device)
    wide[:, : x.shape[1]] = x
    weights = torch.exp(wide - wide.amax(1, keepdim=True)) if shift else torch.exp(wide)
    out = weights / weights.sum(1, keepdim=True) if divide else weights
    return out[:, : x.shape[1]].contiguous()


def running(x, block, *, decay=True, pad=-INF, whole=False, divide=True):
    """`online_softmax` with a part to be got wrong: decay of l, what pads a tile, whole tiles only, the division."""
    rows, columns = x.shape
    m, l = torch.full((rows, 1), -INF, device=x.device), torch.zeros(rows, 1, device=x.device)
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


def stays_inside(*args) -> callable:
    """A stage: the kernel stores nothing before or behind the tensors it returns."""

    def stage(attempt: Attempt) -> None:
        outputs = attempt(*args)
        for out in outputs if isinstance(outputs, tuple) else (outputs,):
            strays = int((~fences(out).isnan()).sum())
            if strays:
                raise Fault(
                    f"{strays} number{'s were' if strays > 1 else ' was'} stored outside the output: mask the store "
                    "as you mask the load (here they hit a fence; elsewhere they hit another tensor)"
                )

    return stage


EXERCISES = (
    Exercise(
        id="kernels.absorb",
        lab=LAB,
        title="One more tile",
        asked="The scores of a row arrive in tiles and are never in memory together. How do you take their softmax?",
        spec="Write `absorb(m, l, acc, scores, values)`, the step of online softmax in PyTorch. A row has seen some "
        "keys and keeps `m`, the largest score, `l` = Σ exp(score − m), and `acc` = Σ exp(score − m) · value, [D]. Now "
        "come `scores` [keys] and `values` [keys, D], float64. Return the new **(m, l, acc)**. Before the first tile m "
        "is −inf and l and acc are 0. A tile may hold nothing but −inf: it changes nothing, and must not make a NaN.",
        reference=ref.absorb,
        stages=(
            oracle(
                number(0.0),
                number(2.0),
                vector(4.0),
                vector(0.0),
                torch.ones(1, 1).double(),
                gives=(0.0, 3.0, vector(5.0)),
            ),
            trap(
                number(0.0),
                number(1.0),
                vector(1.0),
                vector(np.log(2)),
                torch.ones(1, 1).double(),
                says="the new score is the largest: what was summed before was measured against a smaller one",
            ),
            trap(
                number(5.0),
                number(1.0),
                vector(1.0),
                vector(0.0, 1.0),
                torch.ones(2, 1).double(),
                says="this tile lies below the maximum: m stays",
            ),
            trap(
                number(-INF),
                number(0.0),
                vector(0.0),
                vector(3.0),
                torch.ones(1, 1).double(),
                says="the first tile: exp(−inf) is 0, so the empty state weighs nothing",
            ),
            trap(
                number(-INF),
                number(0.0),
                vector(0.0),
                vector(-INF, -INF),
                torch.ones(2, 1).double(),
                says="no key is visible yet, and −inf − (−inf) is NaN",
            ),
            one_pass(0, 1, 2),
            agrees(drawn_state, n=30),
        ),
        mistakes=(
            Mistake(
                "l was summed against the old maximum: multiply it by exp(m − m′)",
                lambda *a: absorbed(*a, decay_l=False),
            ),
            Mistake("acc was summed against the old maximum, as l was", lambda *a: absorbed(*a, decay_acc=False)),
            Mistake(
                "both sums were measured against the old maximum, and stay as they are",
                lambda *a: absorbed(*a, decay_l=False, decay_acc=False),
            ),
            Mistake("the maximum has risen, so the old sums shrink: exp(m − m′)", lambda *a: absorbed(*a, turned=-1)),
            Mistake("the maximum is that of all keys so far, not of this tile", lambda *a: absorbed(*a, own=True)),
            Mistake("acc stays a sum: the division by l comes once, after the last tile", divided),
        ),
        hints=(
            "A sum of exp(score − m) is turned into one of exp(score − m′) by one factor.",
            "m′ = max(m, max of scores); decay = exp(m − m′); weights = exp(scores − m′). Then l′ = decay · l + Σ "
            "weights and acc′ = decay · acc + weights @ values. If m′ is −inf, return what came in.",
            "`new = torch.maximum(m, scores.max())`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
        rel_tol=1e-6,
    ),
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
            oracle(table_of((0.0, 0.0), (np.log(3), 0.0)), gives=table_of((0.5, 0.5), (0.75, 0.25))),
            trap(table_of((1.0, 2.0, 3.0)), says="BLOCK is 4 here: what is the score of a column that does not exist?"),
            trap(table_of((-50.0, -60.0, -51.0)), says="all scores lie far below 0, and a padded column does not"),
            trap(table_of((200.0, 199.0)), says="exp(200) is no float32"),
            stays_inside(table_of((1.0, 2.0, 3.0))),
            agrees(drawn_rows, n=6),
        ),
        mistakes=(
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
            oracle(table_of((0.0, 0.0, np.log(2), 0.0)), 2, gives=table_of((0.2, 0.2, 0.4, 0.2))),
            trap(table_of((0.0, 0.0, 3.0, 4.0)), 2, says="the second tile holds the larger scores"),
            trap(table_of((4.0, 3.0, 0.0, 0.0)), 2, says="the first tile holds the larger scores"),
            trap(table_of((-9.0, -8.0, -7.0)), 2, says="the last tile is half full, and all scores lie below 0"),
            trap(table_of((99.0, 98.0, -99.0, -99.0)), 2, says="m is the largest score so far, and never falls again"),
            trap(table_of((1.0, 2.0, 3.0), (3.0, 1.0, 2.0)), 2, says="two rows, and a tile that is half full"),
            stays_inside(table_of((1.0, 2.0, 3.0)), 2),
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
            "m, l = float('-inf'), 0.0; for start in range(0, columns, BLOCK): new = tl.maximum(m, tl.max(x, 0)); l = "
            "l · exp(m − new) + Σ exp(x − new); m = new. Then the same loop again with exp(x − m)/l and a store.",
            "`new = tl.maximum(m, tl.max(x, 0))`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 15),
        rel_tol=2e-6,
    ),
)
