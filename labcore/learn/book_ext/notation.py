"""Registered formulas and their symbols as MyST text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labcore.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labcore.formulas import Formula
    from labcore.formulas import Input as Symbol


def formula_markdown(f: Formula, label: str | None = None) -> str:
    """The formula as display math, then its unit and source, then its inputs, folded."""
    inputs = [f"- ${i.latex}$ (`{i.name}`): {i.doc}, {_unit(i.unit)}" for i in f.inputs]
    tag = f" ({label})" if label else ""
    return "\n".join(
        [
            f"$$\n{f.latex}\n$${tag}",
            "",
            f'*Unit* {_unit(f.unit)} · *Source* {f.source} · `formula["{f.id}"]`',
            "",
            ":::{dropdown} Inputs",
            *inputs,
            ":::",
        ]
    )


def shared_symbols(formulas: Iterable[Formula]) -> list[tuple[Symbol, list[str]]]:
    """Every input that at least two formulas take, with the ids of those formulas, in order of first use.

    A name stands for one thing: raises DataError when two formulas give it different LaTeX or another unit.
    """
    uses: dict[str, tuple[Symbol, list[str]]] = {}
    for f in formulas:
        for symbol in f.inputs:
            first, ids = uses.setdefault(symbol.name, (symbol, []))
            if (symbol.latex, symbol.unit) != (first.latex, first.unit):
                raise DataError(
                    f"symbol {symbol.name!r} is {symbol.latex} in {symbol.unit} in {f.id} but {first.latex} in "
                    f"{first.unit} in {ids[0]}; give the two different names"
                )
            ids.append(f.id)
    return [(symbol, ids) for symbol, ids in uses.values() if len(ids) > 1]


def table_markdown(symbols: list[tuple[Symbol, list[str]]]) -> str:
    """A table of symbols: LaTeX, name in code, meaning, unit, and how many formulas use it."""
    rows = [f"| ${s.latex}$ | `{s.name}` | {s.doc} | {_unit(s.unit)} | {len(ids)} |" for s, ids in symbols]
    return "\n".join(["| symbol | in code | meaning | unit | formulas |", "|---|---|---|---|---|", *rows])


def _unit(text: str) -> str:
    return "a plain number" if text in ("", "1") else text
