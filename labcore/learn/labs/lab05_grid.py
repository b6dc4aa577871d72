"""Lab 5, the grid: scale and zero of a group, round to nearest, and what it costs in bits."""

from __future__ import annotations

import numpy as np
import torch

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_tools import drawn_weight, matrix

LAB = "lab05"


def grid_of(w, bits, *, zeroed=True, levels=None, whole=torch.round, sign=-1, empty=True):
    """`scale_and_zero` with a part to be got wrong on purpose."""
    low, high = w.amin(-1), w.amax(-1)
    if zeroed:
        low, high = low.clamp(max=0), high.clamp(min=0)
    nothing = (low == high) & empty
    low, high = low.masked_fill(nothing, -1), high.masked_fill(nothing, 1)
    scale = (high - low) / (2**bits - 1 if levels is None else levels(bits))
    return scale, whole(sign * low / scale)


def symmetric(w, bits):
    """The grid whose zero is the middle code."""
    scale = 2 * w.abs().amax(-1) / (2**bits - 1)
    return scale, torch.full_like(scale, 2 ** (bits - 1))


def drawn_groups(generator: np.random.Generator) -> tuple:
    seed, groups, size = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 5), (2, 17)))
    return drawn_weight(seed, groups, size) + float(generator.uniform(-2, 2)), int(generator.integers(2, 9))


def rtn_of(w, bits, group, *, grid=grid_of, to=torch.round, clamp=True, along=1, cost=None, back=None):
    """`round_to_nearest` with a part to be got wrong on purpose."""
    turned = w if along else w.T
    if turned.shape[1] % group:
        raise ValueError("groups do not fit along this axis")
    grouped = turned.unflatten(1, (-1, group))
    scale, zero = (one[..., None] for one in grid(grouped, bits))
    codes = to(grouped / scale) + zero
    codes = codes.clamp(0, 2**bits - 1) if clamp else codes
    found = (scale * (codes - zero) if back is None else back(codes, scale, zero)).flatten(1)
    return found if along else found.T, bits + (16 + bits) / group if cost is None else cost(bits, group)


def one_grid(grouped, bits):
    """One scale and zero for the whole matrix, given to every group."""
    return tuple(one.expand(grouped.shape[:-1]) for one in grid_of(grouped.flatten(), bits))


def drawn_matrix(generator: np.random.Generator) -> tuple:
    seed, out, groups = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 5), (1, 5)))
    group = int(generator.choice([2, 4, 8]))
    return drawn_weight(seed, out, groups * group), int(generator.integers(2, 6)), group


EXERCISES = (
    Exercise(
        id="quant.grid",
        lab=LAB,
        title="Scale and zero of a group",
        asked="A group of weights runs from −0.6 to 2.4. Which sixteen numbers represent it?",
        spec="Write `scale_and_zero(w, bits)`: `w`, float64 [..., group], holds groups of weights. Return **(scale, "
        "zero)**, float64 [...] each, so that w ≈ scale · (code − zero) with codes 0 … 2^bits − 1. The range is the "
        "group's minimum to its maximum, **widened to contain 0**; it is spread over all codes; and the zero is a "
        "**whole number**, −minimum/scale rounded as `torch.round` does. A group of zeros gets the range −1 to 1.",
        reference=ref.scale_and_zero,
        stages=(
            oracle(matrix((-0.6, 0.3, 2.4)), 4, gives=(torch.tensor([0.2]).double(), torch.tensor([3.0]).double())),
            oracle(
                matrix((-3, 0), (0, 6)), 2, gives=(torch.tensor([1.0, 2]).double(), torch.tensor([3.0, 0]).double())
            ),
            trap(matrix((1.0, 1.5, 3.0)), 2, says="all weights are positive: the grid starts at 0 all the same"),
            trap(matrix((-3.0, -1.5, -1.0)), 2, says="all weights are negative: the grid ends at 0 all the same"),
            trap(
                matrix((-0.5, 2.5)), 2, says="−minimum/scale is 0.5, and torch.round takes a half to the even number, 0"
            ),
            trap(matrix((-1.0, 0.2, 1.3)), 3, says="the zero is one of the codes, so a whole number"),
            trap(matrix((0.0, 0.0), (0.0, 3.0)), 2, says="a group of zeros gets the range −1 to 1"),
            trap(
                matrix((-0.6, 0.3, 2.4), (1.0, 2.0, 3.0)).reshape(1, 2, 3),
                4,
                says="[..., group]: the last axis is the group, whatever stands before it",
            ),
            trap(matrix((2.0, 2.0)), 2, says="equal weights are no group of zeros: the range is 0 to 2"),
            trap(matrix((0.0, 3e-9)), 2, says="small weights are no group of zeros: the range is 0 to 3e−9"),
            agrees(drawn_groups, n=20),
        ),
        mistakes=(
            Mistake(
                "16 levels have 15 steps between them: divide the range by 2^bits − 1",
                lambda w, b: grid_of(w, b, levels=lambda bits: 2**bits),
            ),
            Mistake(
                "0 has to be on the grid: a pruned or padded weight must stay exactly 0, so widen the range to 0",
                lambda w, b: grid_of(w, b, zeroed=False),
            ),
            Mistake("the zero is a code, so it has to be rounded", lambda w, b: grid_of(w, b, whole=lambda z: z)),
            Mistake(
                "torch.round, not floor: the zero is the code nearest to −minimum/scale",
                lambda w, b: grid_of(w, b, whole=torch.floor),
            ),
            Mistake(
                "the sign: code 0 stands for the minimum, so zero = −minimum/scale", lambda *a: grid_of(*a, sign=1)
            ),
            Mistake("that is the symmetric grid: half of its codes lie where this group has no weights", symmetric),
            Mistake(
                "the codes run from 0, so nothing is taken off the zero",
                lambda w, b: (grid_of(w, b)[0], grid_of(w, b)[1] - 2 ** (b - 1)),
            ),
            Mistake("each group has a scale and a zero of its own", one_grid),
            Mistake("a group of zeros divides 0 by 0", lambda w, b: grid_of(w, b, empty=False)),
        ),
        hints=(
            "Code 0 stands for the low end and code 2^bits − 1 for the high end. Which code stands for 0?",
            "low = min(minimum, 0), high = max(maximum, 0); where both are 0 take −1 and 1. scale = (high − low) / "
            "(2^bits − 1), zero = round(−low/scale).",
            "`low, high = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
        rel_tol=1e-5,
    ),
    Exercise(
        id="quant.rtn",
        lab=LAB,
        title="Round to nearest, and count the bits",
        asked="You store a matrix in INT4 with groups of 128. How many bits does a weight really take?",
        spec="Write `round_to_nearest(w, bits, group)` for `w`, float64 [out, in]. Neighbours **along `in`**, `group` "
        "of them, share scale and zero; each weight goes to the code round(w/scale) + zero, **clamped** to the codes "
        "there are. Return **(ŵ, bits a weight)**: ŵ = scale · (code − zero), [out, in], and the storage with its "
        "overhead, a float: each group also stores a scale in 16 bits and a zero in `bits` bits. `scale_and_zero` is "
        "at hand.",
        reference=ref.round_to_nearest,
        stages=(
            oracle(matrix((0.0, 1.2, 3.0, -1.0, 0.9, 2.0)), 2, 3, gives=(matrix((0.0, 1, 3, -1, 1, 2)), 8.0)),
            trap(matrix((0.0, 3.0), (0.0, 30.0)), 2, 2, says="each row has a group of its own"),
            trap(matrix((-1.5, 0.0, 0.4, 1.5)), 2, 4, says="1.5/1 rounds to 2, 2 + 2 is code 4, and the last is 3"),
            trap(matrix((-2.0, 0.0, 4.0)), 2, 3, says="−2 is code 0 and comes back as 2 · (0 − 1)"),
            trap(matrix((0.0, 0.7, 1.6, 3.0)), 2, 4, says="0.7 and 1.6 are closer to 1 and 2"),
            trap(
                matrix((-1.0, 0.5, 1.5, 2.0)),
                2,
                4,
                says="round(w/scale) comes first, halves to even: 0.5 → 0 and 1.5 → 2; then the zero, 1, is added",
            ),
            trap(
                matrix((0.0, 100.0, 200.0, 255.0)),
                8,
                4,
                says="with 8 bits a code reaches 255, which int8 does not hold",
            ),
            agrees(drawn_matrix, n=20),
        ),
        mistakes=(
            Mistake(
                "clamp the code to 0 … 2^bits − 1: rounding w and zero apart can lead one beyond the end",
                lambda *a: rtn_of(*a, clamp=False),
            ),
            Mistake("round to the nearest code, do not cut off", lambda *a: rtn_of(*a, to=torch.trunc)),
            Mistake(
                "the zero is a code: take it off before you multiply by the scale",
                lambda *a: rtn_of(*a, back=lambda codes, scale, zero: scale * codes - zero),
            ),
            Mistake("a group lies along `in`, within one row: no mixing of rows", lambda *a: rtn_of(*a, along=0)),
            Mistake("each group has a scale and a zero of its own", lambda *a: rtn_of(*a, grid=one_grid)),
            Mistake("the scales and zeros are stored too", lambda *a: rtn_of(*a, cost=lambda b, g: float(b))),
            Mistake(
                "each group stores a zero as well, of `bits` bits", lambda *a: rtn_of(*a, cost=lambda b, g: b + 16 / g)
            ),
            Mistake(
                "the zero is a code: it is packed into `bits` bits, not 16",
                lambda *a: rtn_of(*a, cost=lambda b, g: b + 32 / g),
            ),
            Mistake(
                "scale and zero are shared: divide their bits by the group",
                lambda *a: rtn_of(*a, cost=lambda b, g: b + 16.0 + b),
            ),
        ),
        hints=(
            "Give the matrix a third axis, [out, groups, group], and nothing else is new.",
            "grouped = w.unflatten(1, (−1, group)); scale and zero of it with a last axis of 1; codes = "
            "(round(grouped / scale) + zero) clamped; flatten(1). Bits: bits + (16 + bits)/group.",
            "`grouped = w.unflatten(1, (-1, group))`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
        rel_tol=1e-5,
    ),
)
