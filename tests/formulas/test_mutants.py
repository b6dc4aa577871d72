"""Every slip of the pen in a formula makes a worked number wrong.

Mutants: a literal changed, a factor or term dropped, a sign turned, Max for Min, floor for ceiling, and a symbol
taken for its neighbour (n_q for n_kv). Each one must be rejected by a row of the worked table.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sympy as sp

from labcore.core.errors import InputError
from labcore.formulas import Formula, formula
from labcore.formulas.symbols import TABLE
from tests.formulas.worked import WORKED

OTHER = {sp.Max: sp.Min, sp.Min: sp.Max, sp.floor: sp.ceiling, sp.ceiling: sp.floor}
NEIGHBOURS = {
    "n_q": "n_kv",
    "n_kv": "n_q",
    "d_c": "d_R",
    "d_R": "d_c",
    "b_w": "b_kv",
    "b_kv": "b_w",
    "L": "n",
    "n": "L",
}


def changes(expr: sp.Basic) -> Iterator[tuple[str, sp.Basic]]:
    """Every expression that differs from `expr` in one place, with a name for the change."""
    if expr.is_Integer and abs(expr) > 1:
        yield f"{expr} → {expr / 2}", expr / 2
        yield f"{expr} → {expr * 2}", expr * 2
    if isinstance(expr, sp.Symbol) and expr.name in NEIGHBOURS:
        yield f"{expr} → {NEIGHBOURS[expr.name]}", TABLE[NEIGHBOURS[expr.name]].symbol
    if expr.func in OTHER:
        yield f"{expr.func.__name__} → {OTHER[expr.func].__name__}", OTHER[expr.func](*expr.args)
    for i, arg in enumerate(expr.args):
        rest = [*expr.args[:i], *expr.args[i + 1 :]]
        if isinstance(expr, sp.Add | sp.Mul):
            yield f"without {arg}", expr.func(*rest)
        if isinstance(expr, sp.Add):
            yield f"-{arg}", sp.Add(*rest, -arg)
        for name, changed in changes(arg):
            yield name, expr.func(*expr.args[:i], changed, *expr.args[i + 1 :])


def rejected(f: Formula, changed: sp.Basic) -> bool:
    """Whether some worked number of `f` comes out wrong with the changed expression."""
    if changed.has(sp.zoo, sp.nan):
        return True
    mutant = replace(f, expr=changed, valid=())
    names = {i.name for i in mutant.inputs}
    for row in (row for row in WORKED if row.id == f.id):
        # A neighbour that the formula does not take has a value of its own; what is not needed is left out.
        inputs = {name: row.inputs.get(name, 1009) for name in names}
        try:
            if not replace(row, inputs=inputs).holds(mutant):
                return True
        except InputError:
            return True
    return False


@pytest.mark.parametrize("f", formula, ids=lambda f: f.id)
def test_every_formula_has_a_worked_number_that_kills_its_mutants(f):
    assert all(row.holds() for row in WORKED if row.id == f.id)
    mutants = list(changes(f.expr))
    survivors = [name for name, changed in mutants if not rejected(f, changed)]
    assert mutants and not survivors
