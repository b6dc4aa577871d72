"""Registered formulas and their symbols as MyST text."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Every input that at least two formulas take, with the ids of those formulas, in order of first use."""
    uses: dict[str, tuple[Symbol, list[str]]] = {}
    for f in formulas:
        for symbol in f.inputs:
            uses.setdefault(symbol.name, (symbol, []))[1].append(f.id)
    return [(symbol, ids) for symbol, ids in uses.values() if len(ids) > 1]


def table_markdown(symbols: list[tuple[Symbol, list[str]]]) -> str:
    """A table of symbols: LaTeX, name in code, meaning, unit, and how many formulas use it."""
    rows = [f"| ${s.latex}$ | `{s.name}` | {s.doc} | {_unit(s.unit)} | {len(ids)} |" for s, ids in symbols]
    return "\n".join(["| symbol | in code | meaning | unit | formulas |", "|---|---|---|---|---|", *rows])


def _unit(text: str) -> str:
    return "a plain number" if text in ("", "1") else text
