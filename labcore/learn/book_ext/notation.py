"""Registered formulas and their symbols as MyST text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labcore.formulas import Formula, NotationRow


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


def table_markdown(rows: Iterable[NotationRow]) -> str:
    """A table of symbols: LaTeX, name in code, meaning, unit, and how many formulas use it."""
    lines = [f"| ${r.latex}$ | `{r.name}` | {r.doc} | {_unit(r.unit)} | {len(r.formulas)} |" for r in rows]
    return "\n".join(["| symbol | in code | meaning | unit | formulas |", "|---|---|---|---|---|", *lines])


def _unit(text: str) -> str:
    return "a plain number" if text in ("", "1") else text
