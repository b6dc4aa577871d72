"""Random inputs inside a formula's range, and golden vectors: inputs with the value that Python gives."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterable

import sympy as sp

from labcore.core.errors import InputError
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


def draw(names: Iterable[str], conditions: Iterable[sp.Basic], rng: random.Random) -> dict[str, float]:
    """Values for the named symbols that meet the conditions. Raises InputError if the ranges hold almost none."""
    inputs = [TABLE[name] for name in names]
    relation = sp.And(*conditions)
    for _ in range(TRIES):
        values = {i.name: _draw(i, rng) for i in inputs}
        if relation.subs({i.symbol: values[i.name] for i in inputs}) == True:  # noqa: E712 (a sympy truth)
            return values
    raise InputError(f"none of {TRIES} draws met {relation}; mend the ranges of its symbols in the table")


def sample(f: Formula, rng: random.Random) -> dict[str, float]:
    """Inputs inside their ranges at which `f` holds."""
    return draw([i.name for i in f.inputs], [c.holds for c in f.valid], rng)


def golden(id: str, n: int = 5, seed: int = 0) -> list[tuple[dict[str, float], float]]:
    """`n` pairs of inputs and value, the same for the same seed on every machine.

    Raises UnknownFormula for an id that is not registered.
    """
    f, rng = formula[id], random.Random(f"{id}/{seed}")
    inputs = [sample(f, rng) for _ in range(n)]
    return [(values, f(**values)) for values in inputs]


def golden_json(n: int = 5, seed: int = 0) -> str:
    """Golden vectors of every formula as JSON: {id: [{"inputs": {…}, "value": …}, …]}, one vector a line."""
    lines = []
    for id in formula.ids():
        vectors = [json.dumps({"inputs": inputs, "value": value}) for inputs, value in golden(id, n, seed)]
        lines.append(f"  {json.dumps(id)}: [\n    " + ",\n    ".join(vectors) + "\n  ]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":  # python -m labcore.formulas.vectors > tests/formulas/golden.json
    sys.stdout.write(golden_json())
