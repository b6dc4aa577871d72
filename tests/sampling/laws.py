"""The exact law of a sampler whose random numbers are arguments, by integration over those numbers.

With its drafted tokens fixed, a sampler's outcome is a step function of each random number. `cuts` lists where it can
jump; between two cuts it is constant, so the midpoint rule is exact. A cut too many costs time and changes nothing, a
cut too few would show as a wrong law.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import torch


def cuts_of(*laws: torch.Tensor) -> list[float]:
    """Where a decision or a draw over these laws [vocab] can jump: their ratios and cumulative sums, up to 1."""
    points = {0.0, 1.0}
    for law in laws:
        points.update(law.cumsum(0).tolist())
        for other in laws:
            points.update((law / other).nan_to_num(posinf=2.0).tolist())
    ordered = sorted(point for point in points if 0 <= point <= 1)
    return [a for a, b in pairwise([*ordered, 2.0]) if b - a > 1e-13]


def integral(outcome, cuts: list[list[float]]) -> Counter:
    """{outcome: probability} of `outcome(numbers)` for numbers evenly distributed over the unit cube."""
    found = Counter()
    pieces = [list(pairwise([*axis[:-1], 1.0])) for axis in cuts]
    for cell in product(*pieces):
        weight = 1.0
        for a, b in cell:
            weight *= b - a
        found[outcome([(a + b) / 2 for a, b in cell])] += weight
    return found
