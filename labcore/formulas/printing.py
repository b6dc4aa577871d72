"""One expression, three languages: LaTeX in the field's order, NumPy, JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce

import sympy as sp
from sympy.printing.jscode import JavascriptCodePrinter
from sympy.printing.latex import LatexPrinter
from sympy.printing.numpy import NumPyPrinter

from labcore.formulas.symbols import MARKS, TABLE

_POSITION = {name: i for i, name in enumerate(TABLE)}


def half(expr: sp.Expr) -> sp.Expr:
    """expr/2, kept as one fraction: sympy would spread it over the terms."""
    return sp.Mul(sp.Rational(1, 2), expr, evaluate=False)


def fraction(above: sp.Expr, below: sp.Expr) -> sp.Expr:
    """above/below with the literals left as they are: 10^6/3600 and not 2500/9."""
    return sp.Mul(above, sp.Pow(below, -1, evaluate=False), evaluate=False)


def product(*factors: sp.Expr) -> sp.Expr:
    """A product that keeps its literals apart."""
    return sp.Mul(*(part for f in factors for part in sp.Mul.make_args(f)), evaluate=False)


def without_marks(expr: sp.Basic) -> sp.Basic:
    """The expression with the unit marks taken out and everything else as written."""
    if expr in MARKS:
        return sp.S.One
    if not expr.atoms(sp.Symbol) & MARKS.keys():
        return expr
    args = [without_marks(arg) for arg in expr.args]
    if isinstance(expr, sp.Mul):
        factors = [arg for arg in args if arg is not sp.S.One]
        return sp.Mul(*factors, evaluate=False) if len(factors) > 1 else (*factors, sp.S.One)[0]
    if isinstance(expr, sp.Pow) and args[0] is sp.S.One:
        return sp.S.One
    return expr.func(*args, evaluate=False) if isinstance(expr, sp.Add | sp.Pow) else expr.func(*args)


def _positions(expr: sp.Expr) -> list[int]:
    return sorted(_POSITION[s.name] for s in expr.free_symbols) or [-1]


def _factor_order(factor: sp.Expr) -> tuple:
    # A sum goes where its last symbol goes: n (N - 1), E (1 - (1 - k/E)^B). Functions come last: κ min(L, W).
    return isinstance(factor, sp.Function | sp.Max | sp.Min), _positions(factor)[-1]


def _term_order(term: sp.Expr) -> tuple:
    # Positive before negative, symbols before numbers, then by the term's symbols; n L comes before n (n - 1)/2.
    return term.could_extract_minus_sign(), term.is_number, [*_positions(term), len(_POSITION)]


class FieldLatex(LatexPrinter):
    """LaTeX whose factors and terms stand in the order of the symbol table."""

    def __init__(self) -> None:
        super().__init__({"order": "none"})

    def _print_Symbol(self, expr: sp.Symbol, style: str = "plain") -> str:
        return TABLE[expr.name].latex if expr.name in TABLE else super()._print_Symbol(expr)

    def _print_Mul(self, expr: sp.Mul) -> str:
        if not isinstance(expr, sp.Mul):  # sympy sends 1/S here, which is a power
            return super()._print_Mul(expr)
        return super()._print_Mul(sp.Mul(*sorted(expr.args, key=_factor_order), evaluate=False))

    def _as_ordered_terms(self, expr: sp.Add, order: str | None = None) -> list[sp.Expr]:
        return sorted(expr.args, key=_term_order)

    def _print_Max(self, expr: sp.Max | sp.Min, exp: str | None = None) -> str:
        args = ", ".join(self._print(arg) for arg in sorted(expr.args, key=lambda arg: _positions(arg)[-1]))
        return rf"\{type(expr).__name__.lower()}\left({args}\right)" + (f"^{{{exp}}}" if exp else "")

    _print_Min = _print_Max


class _Numpy(NumPyPrinter):
    """NumPy with pairwise maximum and minimum, which broadcast."""

    def _pairwise(self, function: str, expr: sp.Expr) -> str:
        return reduce(lambda a, b: f"{function}({a}, {b})", map(self._print, expr.args))

    def _print_Max(self, expr: sp.Max) -> str:
        return self._pairwise(self._module_format("numpy.maximum"), expr)

    def _print_Min(self, expr: sp.Min) -> str:
        return self._pairwise(self._module_format("numpy.minimum"), expr)


class _JavaScript(JavascriptCodePrinter):
    """JavaScript on which every expression stands alone: sympy would declare γ as a variable before it."""

    def _print_EulerGamma(self, expr: sp.Expr) -> str:
        return repr(float(expr))


def latex(expr: sp.Basic) -> str:
    """LaTeX of an expression over the shared symbols."""
    return FieldLatex().doprint(expr)


def javascript(expr: sp.Basic) -> str:
    """A JavaScript expression in the input names, on one line. Raises ValueError for what JavaScript lacks."""
    try:
        text = re.sub(r"\s*\n\s*", " ", _JavaScript().doprint(expr))
    except NotImplementedError:
        text = "Not supported"
    if "Not supported" in text or "%" in text:  # JavaScript's remainder takes the sign of the dividend
        raise ValueError(f"{expr} has no JavaScript form; write it with floor, ceiling, Max, Min or Piecewise")
    return text


def numpy_function(names: list[sp.Symbol], expr: sp.Basic) -> Callable:
    """A vectorised Python function of `names`, in order."""
    settings = {"fully_qualified_modules": False, "inline": True, "allow_unknown_functions": True}
    return sp.lambdify(names, expr, "numpy", printer=_Numpy(settings))
