"""Labs run to the end whoever wrote the answers: nobody (as committed), a reader who is right, or one who is wrong.

As shipped, nbval compares them. Here they run solved (LABCORE_CHECK=solved: strict on the references), and the
warm-up also with right and wrong functions of a reader's own in place of the stubs.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from labcore.learn import exercises
from labcore.learn.authoring import execute, normalise

ROOT = Path(__file__).resolve().parents[2]
LABS = sorted((ROOT / "labs").glob("*.ipynb"))
WARM_UP = ROOT / "labs" / "lab00_units.ipynb"
CHECK = re.compile(r'^check\("(?P<id>[^"]+)", (?P<name>\w+)\)', re.M)
VERDICT = re.compile(r"^(?P<mark>[○✗✓]) (?P<id>[\w.]+): ", re.M)

# A reader's function for the exercise `id`, put between stub and check.
RIGHT = (
    "from labcore.learn.exercises import find\n{name} = lambda *args, **named: find({id!r}).reference(*args, **named)\n"
)
WRONG = (
    "from tests.mutants.registry import all_mutants\n"
    "{name} = [one.function for one in all_mutants() if one.id == {id!r}][-1]\n"
)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")


def verdicts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise id -> mark, as printed."""
    return {match["id"]: match["mark"] for match in VERDICT.finditer(printed(notebook))}


def shown(notebook: nbformat.NotebookNode) -> list:
    """What the compared cells other than checks and reports displayed."""
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and not re.search(r"check\(|report\(", cell.source):
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                kept.append([output.get("text") or output.data.get("text/plain") for output in cell.outputs])
    return kept


def answered(path: Path, answer: str, folder: Path) -> nbformat.NotebookNode:
    """The notebook run in `folder` with `answer` in place of every stub."""
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = CHECK.sub(lambda m: answer.format(**m.groupdict()) + m[0], cell.source)
    execute(notebook, folder, timeout=300)
    return normalise(notebook)


@pytest.fixture
def as_reader(monkeypatch):
    monkeypatch.delenv("LABCORE_CHECK", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("path", LABS, ids=lambda p: p.stem)
def test_every_exercise_of_the_lab_stands_in_it_as_not_attempted(path):
    ids = {one.id for one in exercises.of_lab(path.stem.partition("_")[0])}
    assert verdicts(read(path)) == dict.fromkeys(ids, "○")


@pytest.mark.slow
@pytest.mark.parametrize("path", LABS, ids=lambda p: p.stem)
def test_solved(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LABCORE_CHECK", "solved")
    notebook = read(path)
    execute(notebook, tmp_path, timeout=300)
    assert verdicts(notebook) == dict.fromkeys(verdicts(read(path)), "✓")
    assert not list(tmp_path.iterdir()), "a solved run leaves nothing behind"


@pytest.mark.slow
def test_a_reader_who_is_right(tmp_path, as_reader):
    notebook = answered(WARM_UP, RIGHT, tmp_path)
    assert set(verdicts(notebook).values()) == {"✓"} and "later cells use your room" in printed(notebook)
    assert shown(notebook) == shown(read(WARM_UP))
    report = (tmp_path / "lab00-report.md").read_text(encoding="utf-8")
    assert "# lab00: 7 of 7 solved" in report and report.count("```python") == 7


@pytest.mark.slow
def test_a_reader_who_is_wrong_still_sees_right_numbers_later(tmp_path, as_reader):
    notebook = answered(WARM_UP, WRONG, tmp_path)
    assert set(verdicts(notebook).values()) == {"✗"} and "later cells use the reference room" in printed(notebook)
    assert shown(notebook) == shown(read(WARM_UP))
    assert "0 of 7 solved" in (tmp_path / "lab00-report.md").read_text(encoding="utf-8")
