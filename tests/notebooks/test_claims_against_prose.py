"""Every figure with a unit in the prose of every notebook is claimed, quoted or given in one of its cells."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from labcore.learn import claims_check
from labcore.learn.authoring import find_notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = find_notebooks(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_prose_states_only_what_cells_support(path):
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    keys = claims_check.citation_keys(ROOT / "book" / "references.bib")
    found = claims_check.unsupported(notebook, path.stem)
    found += claims_check.unknown_sources(claims_check.entries(notebook, path.stem), keys)
    assert not found, "\n".join(found)


def test_a_figure_slipped_into_a_real_notebook_is_noticed():
    path = ROOT / "labs" / "lab00_units.ipynb"
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    notebook.cells[0].source += "\n\nAn A100 holds 81.7 GB."
    assert claims_check.unsupported(notebook, path.stem) == [
        "lab00_units, cell 0: 81.7GB has no claim(), quoted() or given()"
    ]
