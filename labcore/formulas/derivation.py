"""`same`: is what a chapter just derived the registered formula?"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice

import sympy as sp

from labcore.core.errors import InputError
from labcore.formulas.arguments import shown
from labcore.formulas.registry import Formula, formula
from labcore.formulas.symbols import TABLE
from labcore.formulas.vectors import draw

POINTS = 12  # random points compared exactly before a proof is tried
DEFINED_BY = {"kappa": "kv.bytes_per_token", "R": "roofline.ridge"}


class DerivationError(InputError):
    """A derived expression is not the registered formula; names both and a point where they differ."""


@dataclass(frozen=True)
class Same:
    """The verdict of `same`, quiet in a notebook."""

    id: str

    def __repr__(self) -> str:
        return f"✓ {self.id} is what was just derived"

    def __bool__(self) -> bool:
        return True


def same(registered: Formula | str, derived: sp.Expr) -> Same:
    """Compare a derived expression with a formula (or its id).

    Symbols are matched by name, whatever their assumptions; κ and R may be spelled out on one side. Both
    expressions are evaluated in exact arithmetic at random points of the formula's range, where they must agree,
    and simplification is tried for a proof. Equal rational functions that sympy cannot simplify to one another
    pass on the points alone. Raises DerivationError with both expressions and a point where they differ.
    """
    f = formula[registered] if isinstance(registered, str) else registered
    theirs = _by_name(f, sp.sympify(derived).doit())
    ours = f.expr.doit()
    ours, theirs, conditions = _spelled_out(f, ours, theirs)
    if sp.simplify(ours - theirs) == 0:
        return Same(f.id)
    rng = random.Random(f.id)
    symbols = set().union(*(e.free_symbols for e in (ours, theirs, *conditions)))
    names = [name for name, i in TABLE.items() if i.symbol in symbols]
    for values in islice(draw(names, conditions, rng), POINTS):
        point = {TABLE[name].symbol: sp.Rational(repr(x)) for name, x in values.items()}
        a, b = (_exact(e, point) for e in (ours, theirs))
        if a != b:
            raise DerivationError(
                f"{f.id} differs at {shown({s.name: v for s, v in point.items()})}: "
                f"registered {f.expr} = {_short(a)}, derived {derived} = {_short(b)}"
            )
    return Same(f.id)


def _by_name(f: Formula, expr: sp.Expr) -> sp.Expr:
    """The expression over the shared symbols. Raises DerivationError for a name that is not one of them."""
    unknown = sorted(s.name for s in expr.free_symbols if s.name not in TABLE)
    if unknown:
        names = ", ".join(i.name for i in f.inputs)
        raise DerivationError(f"derived {expr} has {', '.join(unknown)}, which {f.id} does not take; it takes {names}")
    return expr.xreplace({s: TABLE[s.name].symbol for s in expr.free_symbols})


def _spelled_out(f: Formula, ours: sp.Expr, theirs: sp.Expr) -> tuple[sp.Expr, sp.Expr, list[sp.Basic]]:
    """Both sides and the conditions, κ and R replaced by their definitions where only one side uses the symbol."""
    conditions = [c.holds for c in f.valid]
    for name, id in DEFINED_BY.items():
        symbol = TABLE[name].symbol
        if (symbol in ours.free_symbols) != (symbol in theirs.free_symbols):
            definition = {symbol: formula[id].expr}
            ours, theirs = ours.subs(definition), theirs.subs(definition)
            conditions = [c.subs(definition) for c in conditions]
    return ours, theirs, conditions


def _exact(expr: sp.Expr, point: dict[sp.Symbol, sp.Rational]) -> sp.Expr:
    value = expr.subs(point)
    return value if value.is_Rational else sp.N(value, 40)


def _short(value: sp.Expr) -> str:
    return f"{float(value):.7g}" if value.is_number else str(value)
