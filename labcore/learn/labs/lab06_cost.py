"""Lab 6, on paper: how many bytes tiles save, and how many splits fill a chip."""

from __future__ import annotations

import math

import numpy as np

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab06_references as ref

LAB = "lab06"


def moved(tokens, dim, tile, *, passes=4, once=False, up=True, bytes_each=2, lse=True):
    """`traffic` with a part to be got wrong on purpose."""
    tiles = 1 if once else -(-tokens // tile) if up else tokens // tile
    standard = bytes_each * (4 * tokens * dim + passes * tokens * tokens)
    return standard, bytes_each * (2 * tokens * dim + 2 * tokens * dim * tiles) + 4 * tokens * lse


def drawn_shape(generator: np.random.Generator) -> tuple:
    return int(generator.integers(1, 5000)), int(generator.choice([64, 128])), int(generator.choice([64, 128, 256]))


def split_of(programs, slots, most, *, early=True, best=False, ceiling=True, most_too=True):
    """`split` with a part to be got wrong on purpose."""
    if early and programs >= 0.8 * slots:
        return 1, programs / slots / math.ceil(programs / slots)
    shares = []
    for splits in range(1, max(2, most + most_too)):
        waves = programs * splits / slots
        shares.append(waves / math.ceil(waves) if ceiling else min(1.0, waves))
    wanted = max(shares) * (1.0 if best else 0.85)
    at = next(i for i, share in enumerate(shares) if share >= wanted)
    return at + 1, shares[at]


def fill(programs, slots, most):
    """The splits that give every slot a program."""
    splits = min(most, -(-slots // programs))
    waves = programs * splits / slots
    return splits, waves / math.ceil(waves)


def drawn_grid(generator: np.random.Generator) -> tuple:
    return int(generator.integers(1, 200)), int(generator.choice([80, 108, 132, 264])), int(generator.integers(2, 65))


EXERCISES = (
    Exercise(
        id="kernels.traffic",
        lab=LAB,
        title="Bytes that tiles save",
        asked="FlashAttention computes the same numbers with as many FLOPs. Why is it faster, and by how much at most?",
        spec="Write `traffic(tokens, dim, tile)`: HBM bytes of one attention head in fp16, without a mask, `tokens` "
        "queries and as many keys. **Standard**: Q, K, V are read and O is written once, and the tokens × tokens "
        "scores are written, read by the softmax, written as probabilities, read again. **Tiled**: Q is read and O "
        "written once, K and V are read once **for each tile of `tile` queries** (the last may be part full), and an "
        "fp32 lse a query is written. Return **(standard, tiled)**, whole numbers of bytes.",
        reference=ref.traffic,
        stages=(
            oracle(4, 2, 2, gives=(2 * (4 * 8 + 4 * 16), 2 * (2 * 8 + 2 * 8 * 2) + 16)),
            trap(5, 2, 2, says="five queries make three tiles of two"),
            trap(4, 2, 4, says="one tile: K and V are read once"),
            trap(4096, 128, 128, says="the sizes of a model"),
            agrees(drawn_shape, n=30),
        ),
        mistakes=(
            Mistake("scores and probabilities are written and read: four times n²", lambda *a: moved(*a, passes=2)),
            Mistake("each of them is moved twice: four times n²", lambda *a: moved(*a, passes=1)),
            Mistake("every tile of queries reads all keys and values again", lambda *a: moved(*a, once=True)),
            Mistake("the last tile is a tile too: round up", lambda *a: moved(*a, up=False)),
            Mistake("an fp16 number has two bytes", lambda *a: moved(*a, bytes_each=1)),
            Mistake("the lse is written as well: four bytes a query", lambda *a: moved(*a, lse=False)),
        ),
        hints=(
            "Count rows of Q, K, V, O first, then the squares.",
            "standard = 2 · (4 · tokens · dim + 4 · tokens²); tiled = 2 · (2 · tokens · dim + 2 · tokens · dim · "
            "⌈tokens/tile⌉) + 4 · tokens.",
            "`tiles = -(-tokens // tile)`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
    ),
    Exercise(
        id="kernels.split",
        lab=LAB,
        title="How many splits?",
        asked="One request of 100,000 tokens, 8 KV heads, a GPU with 108 multiprocessors. What does your kernel do?",
        spec="Write `split(programs, slots, most)`, FlashAttention-3's rule. Without splits there are `programs` "
        "thread blocks (requests × KV heads), and `slots` run at a time. With s splits there are programs · s, in w = "
        "programs · s / slots waves, and the **share** of the slots at work until the last wave ends is w/⌈w⌉. If "
        "programs ≥ 0.8 · slots, take 1. Else take the **fewest** splits from 1 to `most` whose share is at least 0.85 "
        "of the best share there is. Return **(splits, share)**.",
        reference=ref.split,
        stages=(
            oracle(8, 108, 1, gives=(1, 8 / 108)),
            oracle(1, 4, 4, gives=(4, 1.0)),
            trap(8, 108, 64, says="fewer splits than the best are good enough from 85 % of its share on"),
            trap(90, 108, 8, says="90 programs are more than 80 % of 108 slots"),
            trap(3, 4, 8, says="two splits make six programs, and the second wave is half empty"),
            trap(2, 8, 4, says="`most` splits are allowed"),
            trap(80, 100, 8, says="80 of 100 is 80 %: no split"),
            trap(79, 100, 8, says="79 of 100 is less than 80 %: split"),
            trap(1, 200, 200, says="170 of 200 is 85 % of the best share, 1: at least 0.85 is enough"),
            agrees(drawn_grid, n=40),
        ),
        mistakes=(
            Mistake("the fewest splits that come near the best, not the best", lambda *a: split_of(*a, best=True)),
            Mistake(
                "no split at all from 80 % of the slots on: a merge would cost more than it wins",
                lambda *a: split_of(*a, early=False),
            ),
            Mistake(
                "a last wave that is part full lasts as long as a full one: w/⌈w⌉",
                lambda *a: split_of(*a, ceiling=False),
            ),
            Mistake("`most` is allowed too", lambda *a: split_of(*a, most_too=False)),
            Mistake("splits are counted from 1", lambda *a: (split_of(*a)[0] - 1, split_of(*a)[1])),
            Mistake("filling every slot may start a second, nearly empty wave", fill),
        ),
        hints=(
            "Compute the share of every candidate first.",
            "if programs >= 0.8 · slots: splits 1. shares = [w/⌈w⌉ for s in 1 … most]; take the first that is at least "
            "0.85 · max(shares). Return it with its share.",
            "`waves = programs * splits / slots`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
        rel_tol=1e-9,
    ),
)
