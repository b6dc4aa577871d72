"""`show_table`: exact values as a table that reads well in a page, in JupyterLab and in a terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labcore.core.errors import InputError

SIMILAR = 100  # largest over smallest number of a column whose decimals are aligned


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
        side = "right" if right else "left"
        return f'<{tag}{attributes} style="padding: 0.2em 0.7em; text-align: {side}">{html.escape(text)}</{tag}>'


def show_table(rows: Iterable[Sequence], header: Sequence[str], digits: int = 4, caption: str = "") -> Table:
    """A table of `rows` under `header`, one entry a column (put units there: "KV cache (GB)").

    Floats show at least `digits` significant digits and whole numbers all of them, with thousands separators; text and
    Quantity show as they are. Raises InputError for a row whose length is not the header's.
    """
    rows = [tuple(row) for row in rows]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} cells and the header {len(header)}; make them equal")
    columns = [tuple(map(_plain, column)) for column in zip(*rows, strict=True)] or [()] * len(header)
    right = tuple(bool(column) and not any(isinstance(cell, str) for cell in column) for column in columns)
    texts = list(zip(*(_column(column, digits) for column in columns), strict=True))
    return Table(tuple(map(str, header)), tuple(texts), right, caption)


def _plain(cell: object) -> object:
    """numpy scalars and one-element tensors as Python numbers."""
    return cell.item() if hasattr(cell, "item") else cell


def _column(cells: Sequence, digits: int) -> list[str]:
    """One column as text: floats of similar size with equally many decimals, others each for itself."""
    floats = [cell for cell in cells if isinstance(cell, float) and math.isfinite(cell)]
    sizes = [abs(cell) for cell in floats if cell]
    decimals = None
    if sizes and max(sizes) < min(1e15, SIMILAR * min(sizes)) and min(sizes) >= 1e-4:
        decimals = max(0, digits - 1 - math.floor(math.log10(min(sizes))))
        while decimals and all(f"{cell:.{decimals}f}".endswith("0") for cell in floats):
            decimals -= 1
    return [_text(cell, digits, decimals) for cell in cells]


def _text(cell: object, digits: int, decimals: int | None) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    if not isinstance(cell, float) or not math.isfinite(cell):
        return str(cell)
    if decimals is not None:
        return f"{cell:,.{decimals}f}"
    if cell and not 1e-4 <= abs(cell) < 1e15:
        return f"{cell:.{digits - 1}e}"
    return f"{cell:,.0f}" if abs(cell) >= 10 ** (digits - 1) else f"{cell:.{digits}g}"
