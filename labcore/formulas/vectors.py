"""Random inputs inside a formula's range, and golden vectors: inputs with the value that Python gives."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from itertools import islice

import sympy as sp

from labcore.core.errors import InputError
from labcore.formulas.printing import numpy_function
from labcore.formulas.registry import Formula, formula
from labcore.formulas.symbols import TABLE, Input

TRIES = 2000  # samples drawn before giving up on a formula's conditions


def _draw(i: Input, rng: random.Random) -> float:
    """One value between low and high, even in its logarithm, to four digits or whole."""
    if i.choices:
        return rng.choice(i.choices)
    low = max(i.low, i.high * 1e-6)
    value = math.exp(rng.uniform(math.log(low), math.log(i.high)))
    if i.low == 0 and rng.random() < 0.1:
        return 0.0
    value = float(round(value)) if i.integer else float(f"{value:.3e}")
    return min(max(value, i.low), i.high)


def draw(names: Iterable[str], conditions: Iterable[sp.Basic], rng: random.Random) -> Iterator[dict[str, float]]:
    """Endless values for the named symbols that meet the conditions.

    Raises InputError if the ranges hold next to none.
    """
    inputs = [TABLE[name] for name in names]
    holds = numpy_function([i.symbol for i in inputs], sp.And(*conditions))
    misses = 0
    while misses < TRIES:
        values = {i.name: _draw(i, rng) for i in inputs}
        met = bool(holds(*values.values()))
        misses = 0 if met else misses + 1
        if met:
            yield values
    raise InputError(f"none of {TRIES} draws met {sp.And(*conditions)}; mend the ranges of its symbols in the table")


def samples(f: Formula, rng: random.Random) -> Iterator[dict[str, float]]:
    """Endless inputs inside their ranges at which `f` holds."""
    return draw([i.name for i in f.inputs], [c.holds for c in f.valid], rng)


def golden(id: str, n: int = 5, seed: int = 0) -> list[tuple[dict[str, float], float]]:
    """`n` pairs of inputs and value, the same for the same seed on every machine.

    Raises UnknownFormula for an id that is not registered.
    """
    f, rng = formula[id], random.Random(f"{id}/{seed}")
    return [(inputs, f(**inputs)) for inputs in islice(samples(f, rng), n)]
