"""What every notebook of the book keeps to. Each rule returns findings, one sentence each, naming cell and fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat

from labcore.learn.authoring import FIRST_CELL, WIDGET_VIEW, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

MAX_CODE_LINES = 15
MAX_UNCOMPARED = 0.15
MAX_OUTPUT = 200_000
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|Users|opt|var|mnt|srv|work|private)/\w|\b[A-Z]:\\\w|site-packages/"
)
ADDRESS = re.compile(r"\b(?:at )?0x[0-9a-f]{8,}\b")
REMOTE = re.compile(
    r"""<(?:script|img|link|iframe|source|video|audio)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//""", re.I
)
REMOTE_IMAGE = re.compile(r"!\[[^\]]*\]\((?:https?:)?//")
REMOTE_STYLE = re.compile(r"""@import\s|url\(\s*["']?(?:https?:)?//""", re.I)
PRICE = re.compile(
    r"(?<![\\$\w])\$\s?\d[\d,.]*(?=\s*(?:per|/|an?\b|USD|million|billion|k\b|K\b|M\b|for\b|and\b|to\b|[.,;)]?\s*$))",
    re.M,
)
UNCOMPARED_TAGS = {"nbval-ignore-output", "nbval-skip"}
UNCOMPARED_MARK = re.compile(r"#\s*(?:NBVAL_IGNORE_OUTPUT|PYTEST_VALIDATE_IGNORE_OUTPUT|NBVAL_SKIP)")


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    return [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode, str]]:
    """Index of the cell, the output, and all of its text."""
    for i, cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            texts = [output.get("text", ""), *(v for v in data.values() if isinstance(v, str))]
            yield i, output, "\n".join(texts)


def first_cell(notebook: NotebookNode, name: str, address: str) -> list[str]:
    """The first code cell is the same everywhere but for the notebook's name."""
    wanted = FIRST_CELL.format(address=address, notebook=name)
    cells = code_cells(notebook)
    if not cells or cells[0][1].source != wanted:
        return [f"the first code cell is not the shared one; it must read\n{wanted}"]
    return []


def executed(notebook: NotebookNode) -> list[str]:
    """Outputs are committed: counts run 1..n (nbval compares nothing in a cell without one), and no cell failed."""
    found = []
    for count, (i, cell) in enumerate(code_cells(notebook), 1):
        if not cell.source.strip():
            found.append(f"cell {i}: empty code cell; delete it")
        if cell.execution_count != count:
            found.append(f"cell {i}: execution count {cell.execution_count}, expected {count}; run `make notebooks`")
    for i, output, text in outputs(notebook):
        if output.output_type == "error":
            found.append(f"cell {i}: a committed {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            found.append(f"cell {i}: committed stderr: {text.strip()[:80]!r}")
    return found


def normal_form(notebook: NotebookNode) -> list[str]:
    """As `make notebooks` writes it: derived cell ids, no widget state, no timings."""
    before = nbformat.writes(notebook, sort_keys=True)
    after = nbformat.writes(normalise(nbformat.from_dict(notebook)), sort_keys=True)
    found = ["widget state is stored; run `make notebooks`"] if "widgets" in notebook.metadata else []
    found += [
        f"cell {i}: a widget view is stored; run `make notebooks`"
        for i, o, _ in outputs(notebook)
        if WIDGET_VIEW in o.get("data", {})
    ]
    return found or ([] if before == after else ["not in normal form; run `make notebooks`"])


def portable(notebook: NotebookNode) -> list[str]:
    """Nothing of the machine that ran it, nothing from another host."""
    found = []
    for i, _, text in outputs(notebook):
        for what, pattern in (
            ("a path of this machine", MACHINE_PATH),
            ("a memory address", ADDRESS),
            ("a remote asset", REMOTE),
        ):
            if match := pattern.search(text):
                found.append(f"cell {i}: the output holds {what}: {match[0]!r}")
        if len(text) > MAX_OUTPUT:
            found.append(f"cell {i}: an output of {len(text) // 1000} kB; print less or rasterise the figure")
    for i, cell in enumerate(notebook.cells):
        for pattern in (REMOTE, REMOTE_IMAGE, REMOTE_STYLE) if cell.cell_type == "markdown" else (REMOTE,):
            if match := pattern.search(cell.source):
                found.append(f"cell {i}: a remote asset: {match[0]!r}")
        if match := MACHINE_PATH.search(cell.source):
            found.append(f"cell {i}: a path of this machine: {match[0]!r}")
    return found


def short_cells(notebook: NotebookNode) -> list[str]:
    """One idea a cell: at most 15 lines of code."""
    found = []
    for i, cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        if len(lines) > MAX_CODE_LINES:
            found.append(f"cell {i}: {len(lines)} lines of code, at most {MAX_CODE_LINES}; split it")
    return found


def compared(notebook: NotebookNode) -> list[str]:
    """At most 15 % of the code cells may opt out of comparison."""
    cells = code_cells(notebook)
    out = [i for i, c in cells if UNCOMPARED_TAGS & set(c.metadata.get("tags", [])) or UNCOMPARED_MARK.search(c.source)]
    if cells and len(out) / len(cells) > MAX_UNCOMPARED:
        return [f"{len(out)} of {len(cells)} code cells are not compared (cells {out}), at most {MAX_UNCOMPARED:.0%}"]
    return []


def no_dollar_prices(notebook: NotebookNode) -> list[str]:
    """Two dollar signs in a paragraph become mathematics: prices are written USD 5.00."""
    found = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$", " ", cell.source, flags=re.S)
            found += [f"cell {i}: a price with a dollar sign, {m[0]!r}; write USD" for m in PRICE.finditer(prose)]
    return found


RULES = (executed, normal_form, portable, short_cells, compared, no_dollar_prices)
