"""The comparison that every notebook goes through notices a stale output, and nothing else."""

from __future__ import annotations

import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labcore.learn.authoring import normalise
from tests import stages

PRINT_SETUP = 'print("labcore 0.1.0 · python 3.11.7 · torch 2.13.0 · cpu · recorded")'
STORED = "labcore 0.2.0 · python 3.12.3 · no torch · cpu · recorded\n"
DRAW = 'from IPython.display import SVG\nSVG(\'<svg xmlns="http://www.w3.org/2000/svg"><g id="a"/></svg>\')'
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><g id="another"/></svg>'
SHOWN = "<IPython.core.display.SVG object>"
NOTEBOOKS = {
    "stale_text": ("print(41 + 1)", new_output("stream", name="stdout", text="43\n")),
    "stale_result": ("{'a': 1}", new_output("execute_result", data={"text/plain": "{'a': 2}"}, execution_count=1)),
    "output_gone": ("x = 1", new_output("stream", name="stdout", text="1\n")),
    "raises": ("1 / 0", new_output("stream", name="stdout", text="")),
    "same": ("print(41 + 1)", new_output("stream", name="stdout", text="42\n")),
    "other_versions": (PRINT_SETUP, new_output("stream", name="stdout", text=STORED)),
    "other_glyphs": (
        DRAW,
        new_output("execute_result", data={"image/svg+xml": SVG, "text/plain": SHOWN}, execution_count=1),
    ),
}
REJECTED = {"stale_text", "stale_result", "output_gone", "raises"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What one nbval run, as `make test` starts it, printed about the notebooks above."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, (source, output) in NOTEBOOKS.items():
        cell = new_code_cell(source, outputs=[output], execution_count=1)
        nbformat.write(normalise(new_notebook(cells=[cell])), folder / f"{name}.ipynb")
    command = [*stages.PYTEST, "-o", "addopts=", "--nbval", f"--nbval-sanitize-with={stages.SANITIZE}"]
    command += ["--nbval-current-env", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", str(folder)]
    return subprocess.run(command, cwd=stages.ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_only_a_changed_output_is_rejected(compared, name):
    lines = [
        line for line in compared.splitlines() if f"{name}.ipynb" in line and line.startswith(("PASSED", "FAILED"))
    ]
    assert len(lines) == 1, compared
    assert lines[0].startswith("FAILED" if name in REJECTED else "PASSED"), compared
