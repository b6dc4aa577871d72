"""Expressions of quiz items: text → sympy → a Python function here and a JavaScript expression in the page.

An expression is arithmetic over the names an item draws: `n / (n + S)`, `ceil(n / S)`, `I < R`. It is parsed from the
syntax tree, never evaluated as Python. A registered formula enters with its own inputs replaced by such expressions.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import sympy as sp

from labcore.core.errors import InputError
from labcore.core.units import unit
from labcore.formulas import UnknownFormula, formula, printing

FUNCTIONS = {"ceil": sp.ceiling, "floor": sp.floor, "sqrt": sp.sqrt, "exp": sp.exp, "log": sp.log, "abs": sp.Abs}
FUNCTIONS |= {"min": sp.Min, "max": sp.Max, "log2": lambda x: sp.log(x, 2), "log10": lambda x: sp.log(x, 10)}
_BINARY = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
RESERVED = set(
    "await break case catch class const continue debugger default delete do else enum export extends finally for "
    "function if import in instanceof let new null return super switch this throw try typeof var void while with "
    "yield true false arguments eval undefined NaN Infinity Math".split()
)
_COMPARE = {ast.Lt: sp.Lt, ast.LtE: sp.Le, ast.Gt: sp.Gt, ast.GtE: sp.Ge}


@dataclass(frozen=True)
class Expression:
    """A sympy expression whose free symbols are names of the item. Call it with their values, by name."""

    expr: sp.Basic

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Free names, sorted."""
        return tuple(sorted(s.name for s in self.expr.free_symbols))

    @property
    def is_comparison(self) -> bool:
        """Whether it is true or false instead of a number."""
        return self.expr.is_Relational or self.expr in (sp.true, sp.false)

    @cached_property
    def javascript(self) -> str:
        """The same expression for the browser, in the same names."""
        return printing.javascript(self.expr)

    @cached_property
    def _function(self):
        return sp.lambdify([sp.Symbol(n) for n in self.names], self.expr, modules="math")

    def __call__(self, values: Mapping[str, Any]) -> float | bool:
        result = self._function(*(values[n] for n in self.names))
        return bool(result) if self.is_comparison else float(result)


def _convert(node: ast.AST, text: str) -> sp.Basic:
    convert = lambda n: _convert(n, text)  # noqa: E731
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return sp.Integer(value) if isinstance(value, int) else sp.Rational(str(value))
        case ast.Name(id=name):
            return sp.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -convert(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](convert(left), convert(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](convert(left), convert(right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS and args:
            return FUNCTIONS[name](*map(convert, args))
    found = ast.get_source_segment(text, node) or text
    raise InputError(
        f"{found!r} in {text!r} is not arithmetic; use numbers, names, + - * / **, < > and {_names(FUNCTIONS)}"
    )


def _names(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


@cache
def parse(text: str) -> Expression:
    """Read arithmetic or one comparison. Raises InputError naming the part that is neither."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise InputError(f"{text!r} is not an expression") from error
    return Expression(_convert(tree.body, text))


@cache
def from_formula(name: str, replacements: tuple[tuple[str, str], ...] = ()) -> Expression:
    """The registered formula `name` in base units; its inputs are the item's names, or (input, expression).

    An input counts in the unit the formula declares for it. Raises InputError when there is no such formula or
    `replacements` names an input that it does not have.
    """
    replace = dict(replacements)
    try:
        f = formula[name]
    except UnknownFormula as error:
        raise InputError(str(error)) from error
    inputs = {i.name: i.symbol for i in f.inputs}
    if strange := sorted(set(replace) - set(inputs)):
        raise InputError(f"formula {name} has no input {strange[0]!r}; its inputs are {_names(inputs)}")
    values = {symbol: parse(replace[n]).expr if n in replace else sp.Symbol(n) for n, symbol in inputs.items()}
    return Expression(f.expr.subs(values, simultaneous=True) * sp.Rational(str(unit(f.unit).scale)))


def check_name(name: str) -> None:
    """Raise InputError unless `name` can stand for itself in Python and in JavaScript."""
    if not (name.isidentifier() and name.isascii()) or name in RESERVED or name in FUNCTIONS or keyword.iskeyword(name):
        raise InputError(f"{name!r} cannot be a name; use ASCII letters, digits and _, and no word of JavaScript")
