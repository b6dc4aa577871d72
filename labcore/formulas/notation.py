"""The notation table: every symbol that a formula uses, and where."""

from __future__ import annotations

from dataclasses import dataclass

from labcore.formulas.registry import formula
from labcore.formulas.symbols import TABLE


@dataclass(frozen=True)
class NotationRow:
    """One symbol: LaTeX, name in code, unit, meaning, and the ids of the formulas that take it."""

    latex: str
    name: str
    unit: str
    doc: str
    formulas: tuple[str, ...]


def notation_rows() -> list[NotationRow]:
    """Every symbol that some formula takes, in the order of the symbol table."""
    uses = {name: tuple(f.id for f in formula if any(i.name == name for i in f.inputs)) for name in TABLE}
    return [NotationRow(i.latex, name, i.unit, i.doc, uses[name]) for name, i in TABLE.items() if uses[name]]
