"""`show_table`: exact values as a table that reads well in a page, in JupyterLab and in a terminal."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labcore.core.errors import InputError
from labcore.core.units import Quantity


@dataclass(frozen=True)
class Table:
    """Cells already formatted as text; `right` says which columns hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    caption: str = ""

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        sides = [str.rjust if right else str.ljust for right in self.right]
        texts = ["  ".join(s(c, w) for s, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in lines]
        texts.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(([self.caption] if self.caption else []) + texts)

    def _repr_html_(self) -> str:
        # The class makes themes treat it as a data table: their colours, light and dark, and scrolling on a phone.
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        head = "".join(self._cell("th", c, r, ' scope="col"') for c, r in zip(self.header, self.right, strict=True))
        body = "".join(
            f"<tr>{''.join(self._cell('td', c, r) for c, r in zip(row, self.right, strict=True))}</tr>\n"
            for row in self.rows
        )
        return f'<table class="dataframe">{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>'

    @staticmethod
    def _cell(tag: str, text: str, right: bool, attributes: str = "") -> str:
        return f'<{tag}{attributes} style="text-align: {"right" if right else "left"}">{html.escape(text)}</{tag}>'


def show_table(rows: Iterable[Sequence], header: Sequence[str], digits: int = 4, caption: str = "") -> Table:
    """A table of `rows` under `header`, one entry a column (put units there: "KV cache (GB)").

    Floats show `digits` significant digits, whole numbers all of them with thousands separators; text and Quantity
    show as they are. Raises InputError for a row whose length is not the header's.
    """
    rows = [tuple(row) for row in rows]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} cells and the header {len(header)}; make them equal")
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    right = tuple(bool(column) and not any(isinstance(cell, str) for cell in column) for column in columns)
    cells = tuple(tuple(_text(cell, digits) for cell in row) for row in rows)
    return Table(tuple(map(str, header)), cells, right, caption)


def _text(value: object, digits: int) -> str:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | str | Quantity):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if 10 ** (digits - 1) <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if 1e-4 <= abs(value) or value == 0 else f"{value:.{digits - 1}e}"
