"""Every notebook keeps to the contract, and every rule of the contract rejects a notebook that breaks it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labcore.learn import repository
from labcore.learn.authoring import FIRST_CELL, find_notebooks, normalise
from tests.notebooks import contract

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = f"https://github.com/{repository.current(ROOT)}"
NOTEBOOKS = find_notebooks(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_keeps_the_contract(path):
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    found = contract.first_cell(notebook, path.stem, ADDRESS)
    found += [finding for rule in contract.RULES for finding in rule(notebook)]
    assert not found, "\n".join(found)


def good():
    """A small notebook that keeps every rule."""
    cells = [new_markdown_cell("# Title"), new_code_cell(FIRST_CELL.format(address=ADDRESS, notebook="good"))]
    cells += [
        new_code_cell(f"print({n})", outputs=[new_output("stream", name="stdout", text=f"{n}\n")]) for n in range(7)
    ]
    return normalise(new_notebook(cells=cells))


def test_a_good_notebook_has_no_findings():
    notebook = good()
    assert not contract.first_cell(notebook, "good", ADDRESS)
    assert [rule(notebook) for rule in contract.RULES] == [[]] * len(contract.RULES)


def stores(output_type, **fields):
    """The change that adds an output to cell 2."""
    return lambda notebook: notebook.cells[2].outputs.append(new_output(output_type, **fields))


def shows(html):
    return stores("display_data", data={"text/html": html, "text/plain": "x"})


def reads(index, source):
    """The change that gives a cell another source."""
    return lambda notebook: notebook.cells[index].update(source=source)


def tags_two_cells(notebook):
    for cell in notebook.cells[2:4]:
        cell.metadata.update(tags=["nbval-ignore-output"])


def marks_two_cells(notebook):
    for cell in notebook.cells[2:4]:
        cell.update(source="# NBVAL_IGNORE_OUTPUT\n1")


# A change to a good notebook, the rule that must object, and a word of its sentence.
BROKEN = {
    "count missing": (lambda nb: nb.cells[3].update(execution_count=None), contract.executed, "make notebooks"),
    "count jumps": (lambda nb: nb.cells[3].update(execution_count=9), contract.executed, "expected 3"),
    "error": (stores("error", ename="KeyError", evalue="k", traceback=[]), contract.executed, "KeyError"),
    "stderr": (stores("stream", name="stderr", text="careful"), contract.executed, "stderr"),
    "random cell id": (lambda nb: nb.cells[2].update(id="4f6a0c1e"), contract.normal_form, "normal form"),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), contract.normal_form, "widget state"),
    "widget view": (stores("display_data", data={contract.WIDGET_VIEW: {}}), contract.normal_form, "widget view"),
    "timing": (lambda nb: nb.cells[2].metadata.update(execution={"t": "2026"}), contract.normal_form, "normal form"),
    "home path": (shows("in /home/ada/book/x.py"), contract.portable, "path"),
    "path in code": (reads(2, "open('/tmp/x')"), contract.portable, "path"),
    "address": (shows("<object at 0x7f3a12c4d5e6>"), contract.portable, "address"),
    "remote script": (shows('<script src="https://cdn.example/x.js"></script>'), contract.portable, "remote"),
    "remote image": (reads(0, "![x](https://example.org/x.png)"), contract.portable, "remote"),
    "large output": (shows("x" * 300_000), contract.portable, "kB"),
    "long cell": (reads(2, "\n".join(f"x{i} = {i}" for i in range(16))), contract.short_cells, "16 lines"),
    "uncompared by tag": (tags_two_cells, contract.compared, "2 of 8"),
    "uncompared by comment": (marks_two_cells, contract.compared, "2 of 8"),
    "price": (reads(0, "It costs $5.00 per million, not $3."), contract.no_dollar_prices, "USD"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_rejects_a_notebook_that_breaks_it(name):
    breaks, rule, word = BROKEN[name]
    notebook = good()
    breaks(notebook)
    assert any(word in finding for finding in rule(notebook)), rule(notebook)


def test_a_different_first_cell_is_rejected():
    notebook = good()
    assert contract.first_cell(notebook, "other_name", ADDRESS)
    notebook.cells[1].source += "\nimport torch"
    assert contract.first_cell(notebook, "good", ADDRESS)


def test_mathematics_is_not_a_price():
    notebook = good()
    notebook.cells[0].source = "With $2P$ FLOP and $S=16$ slots, $7.5$ are lost; $$1000 \\times 2$$ and `$5 per`."
    assert not contract.no_dollar_prices(notebook)
