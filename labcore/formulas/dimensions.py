"""Which unit a sympy expression has, found from its symbols and marks, term by term.

A sum of seconds and bytes, a logarithm of bytes or a result in another unit than declared cannot be defined:
the check runs when the formula is.
"""

from __future__ import annotations

from fractions import Fraction

import sympy as sp
from sympy.core.relational import Relational

from labcore.core.errors import UnitError
from labcore.core.units import unit
from labcore.formulas.symbols import MARKS, TABLE

Dimension = tuple[float, tuple[tuple[str, Fraction], ...]]  # scale in base units, exponents of B, FLOP, s, J, USD
PLAIN: Dimension = (1.0, ())


def _of_unit(text: str) -> Dimension:
    parsed = unit(text)
    return parsed.scale, tuple((base, Fraction(power)) for base, power in parsed.dimension)


def _power(of: Dimension, exponent: Fraction) -> Dimension:
    return of[0] ** float(exponent), tuple((base, power * exponent) for base, power in of[1])


def _times(a: Dimension, b: Dimension) -> Dimension:
    powers = dict(a[1])
    for base, power in b[1]:
        powers[base] = powers.get(base, Fraction(0)) + power
    return a[0] * b[0], tuple(sorted((base, power) for base, power in powers.items() if power))


def same_unit(a: Dimension, b: Dimension) -> bool:
    """Equal exponents, and equal size of the unit up to rounding."""
    return a[1] == b[1] and abs(a[0] - b[0]) <= 1e-12 * abs(b[0])


def name(of: Dimension) -> str:
    """`s`, `B·s^-1`, or `a plain number`, with the scale in front when it is not 1."""
    words = "·".join(base if power == 1 else f"{base}^{power}" for base, power in of[1]) or "a plain number"
    return words if of[0] == 1.0 else f"{of[0]:g} {words}"


def dimension(expr: sp.Basic) -> Dimension:
    """The unit of an expression over the shared symbols. Raises UnitError naming the terms that do not fit."""
    if isinstance(expr, sp.Symbol):
        if expr in MARKS:
            return _of_unit(MARKS[expr])
        if expr.name not in TABLE:
            raise UnitError(f"symbol {expr.name!r} is not in the table; enter it in labcore/formulas/symbols.py")
        return _of_unit(TABLE[expr.name].unit)
    if expr.is_number:
        return PLAIN
    if isinstance(expr, sp.Mul):
        result = PLAIN
        for factor in expr.args:
            result = _times(result, dimension(factor))
        return result
    if isinstance(expr, sp.Pow):
        return _of_power(*expr.as_base_exp())
    if isinstance(expr, (sp.Add, sp.Max, sp.Min, Relational)):
        return _common(expr, expr.args)
    if isinstance(expr, sp.Piecewise):
        for _, condition in expr.args:
            for relation in condition.atoms(Relational):
                dimension(relation)
        return _common(expr, [value for value, _ in expr.args])
    if isinstance(expr, (sp.floor, sp.ceiling, sp.log, sp.exp)):
        return _plain(expr.args[0], f"{type(expr).__name__} of")
    raise UnitError(f"{expr}: {type(expr).__name__} has no unit rule; use sums, products, powers, Max, Min, floor")


def _of_power(base: sp.Expr, exponent: sp.Expr) -> Dimension:
    of = dimension(base)
    if exponent.is_Rational:
        return _power(of, Fraction(int(exponent.p), int(exponent.q)))
    _plain(exponent, "an exponent")
    return _plain(base, "a base with a variable exponent")


def _plain(expr: sp.Expr, where: str) -> Dimension:
    if not same_unit(dimension(expr), PLAIN):
        raise UnitError(f"{where} {expr} must be a plain number, and it is {name(dimension(expr))}")
    return PLAIN


def _common(expr: sp.Basic, terms: list[sp.Basic]) -> Dimension:
    """The unit that all terms share; a literal 0 goes with any."""
    units = [(term, dimension(term)) for term in terms if not term.is_zero]
    for term, of in units[1:]:
        if not same_unit(of, units[0][1]):
            raise UnitError(f"{expr}: {units[0][0]} is {name(units[0][1])} and {term} is {name(of)}; they do not mix")
    return units[0][1] if units else PLAIN


def check(where: str, expr: sp.Expr, declared: str) -> None:
    """Raises UnitError, beginning with `where`, unless `expr` is homogeneous and has the declared unit."""
    try:
        found = dimension(expr)
    except UnitError as error:
        raise UnitError(f"{where}: {error}") from error
    if not same_unit(found, _of_unit(declared)):
        raise UnitError(f"{where}: the expression has unit {name(found)}, not the declared {declared}")
