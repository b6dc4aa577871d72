"""`Formula`: one sympy expression, and from it the LaTeX, the Python function and the JavaScript."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp

from labcore.core.errors import InputError
from labcore.core.units import Quantity
from labcore.formulas import arguments, dimensions, printing
from labcore.formulas.symbols import TABLE, Input


@dataclass(frozen=True)
class Condition:
    """Where a formula holds: a relation between its inputs, and the sentence for values outside.

    `says` may name inputs in braces, and `{bound}`, the value of the expression `bound` at those inputs.
    """

    holds: sp.Basic
    says: str
    bound: sp.Expr | None = None


@dataclass(frozen=True)
class Limit:
    """As `symbol` goes to `to`, the formula goes to `is_`: an expression, or the id of another formula.

    0 is approached from above, 1 is taken itself where the symbol counts things, any other finite point is approached
    from below.
    """

    symbol: sp.Symbol
    to: sp.Expr | int
    is_: sp.Expr | int | str


@dataclass(frozen=True, eq=False)
class Formula:
    """A closed form with its units, its source and where it holds.

    `rises` and `falls` name inputs in which the value never falls or never rises; `limits` are what it tends to.
    All three are tested. `formula["kv.bytes"](kappa=327680, L=4096, B=1)` is a float in `unit`; arrays broadcast.
    """

    id: str
    title: str
    lhs: str
    expr: sp.Expr
    unit: str
    source: str
    doc: str = ""
    valid: tuple[Condition, ...] = ()
    rises: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What the formula takes, in the order of the symbol table."""
        return tuple(i for name, i in TABLE.items() if i.symbol in self.expr.free_symbols)

    @cached_property
    def latex(self) -> str:
        """`lhs = rhs`."""
        return f"{self.lhs} = {printing.latex(self.expr)}"

    @cached_property
    def javascript(self) -> str:
        """The right-hand side as a JavaScript expression in the input names."""
        return printing.javascript(self.expr)

    @cached_property
    def _evaluate(self) -> Callable:
        return printing.numpy_function([i.symbol for i in self.inputs], self.expr)

    @cached_property
    def _conditions(self) -> list[tuple[Condition, Callable, Callable | None]]:
        symbols = [i.symbol for i in self.inputs]
        compile_ = printing.numpy_function
        return [(c, compile_(symbols, c.holds), c.bound and compile_(symbols, c.bound)) for c in self.valid]

    def __call__(self, **values: Any) -> float | np.ndarray:
        """The value in `unit`: a float for scalars, else an array of the broadcast shape.

        A plain number counts in the input's unit, a Quantity is checked and converted. Raises InputError for
        arguments that are missing, unknown, out of domain, or outside the range where the formula holds.
        """
        given = arguments.read(self, values)
        with np.errstate(all="ignore"):
            self._check_range(given)
            result = np.asarray(self._evaluate(*given.values()), dtype=np.float64)
        bad = ~np.isfinite(result)
        if bad.any():
            raise InputError(f"{self.id} has no finite value at {self._at(given, bad)}; move off that point")
        return result if result.ndim else float(result)

    def quantity(self, **values: Any) -> Quantity:
        """The value with its unit: `.quantity(…).to("GB")`. Scalars only."""
        return Quantity(self(**values), self.unit)

    def _check_range(self, given: dict[str, np.ndarray]) -> None:
        for condition, holds, bound in self._conditions:
            bad = np.broadcast_to(~np.asarray(holds(*given.values())), next(iter(given.values())).shape)
            if bad.any():
                first = {name: array[bad].flat[0] for name, array in given.items()}
                words = {name: f"{value:.7g}" for name, value in first.items()}
                if bound:
                    words["bound"] = f"{float(bound(*first.values())):.7g}"
                raise InputError(f"{self.id}: {condition.says.format(**words)}")

    @staticmethod
    def _at(given: dict[str, np.ndarray], bad: np.ndarray) -> str:
        return arguments.shown({name: array[bad].flat[0] for name, array in given.items()})

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.latex}$"

    def __repr__(self) -> str:
        return f"{self.id}({', '.join(i.name for i in self.inputs)}) [{self.unit}]"


class UnknownFormula(InputError, KeyError):
    """No formula has that id."""

    __str__ = InputError.__str__


class Registry:
    """All formulas by id, in the order of declaration: `formula["kv.bytes"]`, `formula.ids()`, iteration."""

    def __init__(self) -> None:
        self._formulas: dict[str, Formula] = {}

    def add(self, f: Formula) -> Formula:
        """Enter a formula. Raises InputError for an id in use."""
        if f.id in self._formulas:
            raise InputError(f"formula {f.id!r} is declared twice; give one of them another id")
        self._formulas[f.id] = f
        return f

    def __getitem__(self, id: str) -> Formula:
        if id in self._formulas:
            return self._formulas[id]
        close = difflib.get_close_matches(id, self._formulas, 3, 0.4)
        fix = f"close ids are {', '.join(close)}" if close else "formula.ids() lists them all"
        raise UnknownFormula(f"no formula has the id {id!r}; {fix}")

    def __contains__(self, id: str) -> bool:
        return id in self._formulas

    def __iter__(self) -> Iterator[Formula]:
        return iter(self._formulas.values())

    def __len__(self) -> int:
        return len(self._formulas)

    def ids(self) -> tuple[str, ...]:
        """Every id, in the order of declaration."""
        return tuple(self._formulas)

    def __repr__(self) -> str:
        return f"{len(self)} formulas: {', '.join(self._formulas)}"


formula = Registry()


def _clean(part: sp.Basic | int | str | None) -> sp.Basic | str | None:
    return part if part is None or isinstance(part, str) else printing.without_marks(sp.sympify(part))


def declare(
    id: str,
    title: str,
    lhs: str,
    expr: sp.Expr,
    unit: str,
    *,
    source: str,
    doc: str = "",
    valid: tuple[Condition, ...] = (),
    rises: str = "",
    falls: str = "",
    limits: tuple[Limit, ...] = (),
) -> Formula:
    """Check the units of `expr` and of its conditions, take out the marks, and enter the formula.

    `rises` and `falls` are input names separated by spaces. Raises UnitError if the expression is not homogeneous
    or has another unit than declared, InputError if a name is no input or the id is taken.
    """
    dimensions.check(id, expr, unit)
    for condition in valid:
        dimensions.dimension(condition.holds)
    f = Formula(
        id=id,
        title=title,
        lhs=lhs,
        expr=_clean(expr),
        unit=unit,
        source=source,
        doc=doc,
        valid=tuple(Condition(_clean(c.holds), c.says, _clean(c.bound)) for c in valid),
        rises=tuple(rises.split()),
        falls=tuple(falls.split()),
        limits=tuple(Limit(x.symbol, _clean(x.to), _clean(x.is_)) for x in limits),
    )
    strange = {*f.rises, *f.falls} - {i.name for i in f.inputs}
    if strange:
        raise InputError(f"{id}: {', '.join(sorted(strange))} in rises or falls is no input of {f.expr}")
    return formula.add(f)
