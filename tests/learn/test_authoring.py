"""Re-executing and normalising notebooks."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labcore.core.errors import InputError
from labcore.learn import authoring
from labcore.learn.authoring import WIDGET_VIEW, main, normalise, rebuild


def notebook_of(*sources):
    return new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, sources)])


@pytest.fixture
def saved(tmp_path):
    def save(notebook, name="nb.ipynb"):
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return save


def test_normalise_numbers_cells_and_drops_what_a_kernel_leaves_behind():
    notebook = notebook_of("1", "2", "1  \n")
    notebook.metadata = nbformat.from_dict({"widgets": {"x": 1}, "language_info": {"name": "python", "version": "3.9"}})
    first = notebook.cells[1]
    first.metadata = nbformat.from_dict(
        {"tags": ["hide-cell"], "covers": ["1.1"], "execution": {"t": 1}, "scrolled": True}
    )
    first.outputs = [
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stdout", text="b"),
        new_output("display_data", data={WIDGET_VIEW: {"model_id": "4f"}}),
        new_output("execute_result", data={WIDGET_VIEW: {"model_id": "4f"}, "text/plain": "w"}, execution_count=9),
    ]
    normalise(notebook)
    codes = notebook.cells[1:]
    assert [c.execution_count for c in codes] == [1, 2, 3]
    assert first.metadata == {"tags": ["hide-cell"], "covers": ["1.1"]}
    assert [o.output_type for o in first.outputs] == ["stream", "execute_result"]
    assert first.outputs[0].text == "ab" and first.outputs[1].execution_count == 1
    assert first.outputs[1].data == {"text/plain": "w"}
    assert "widgets" not in notebook.metadata and "version" not in notebook.metadata.language_info
    assert codes[2].id == f"{codes[0].id}-2", "equal sources get different, derived ids"


def test_normalising_twice_changes_nothing_more():
    notebook = normalise(notebook_of("1", "1", "x = 2"))
    once = nbformat.writes(notebook)
    assert nbformat.writes(normalise(notebook)) == once


def test_rebuild_runs_in_the_notebooks_folder_and_repeats_itself(saved, tmp_path):
    (tmp_path / "data.txt").write_text("42")
    path = saved(notebook_of("import os\nprint(open('data.txt').read(), os.environ['LABCORE_MODE'])"))
    assert rebuild(path) is True
    first = path.read_bytes()
    assert b"42 recorded" in first
    assert rebuild(path) is False and path.read_bytes() == first


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "a cell raised ZeroDivisionError"),
        ("import sys; print('careful', file=sys.stderr)", "wrote to stderr: careful"),
        ("import time; time.sleep(60)", "longer than 1 s"),
    ],
)
def test_a_failing_notebook_is_left_as_it_was(saved, source, says):
    path = saved(notebook_of("x = 1", source))
    before = path.read_bytes()
    with pytest.raises(InputError, match=says):
        rebuild(path, timeout=1 if "sleep" in source else 60)
    assert path.read_bytes() == before


def test_the_command_goes_on_after_a_failure_and_reports_it(saved, capsys, monkeypatch, tmp_path):
    bad, good = saved(notebook_of("1 / 0"), "bad.ipynb"), saved(notebook_of("print(2)"), "good.ipynb")
    assert main([str(bad), str(good)]) == 1
    captured = capsys.readouterr()
    assert "left as it was" in captured.err and f"{good} … written" in captured.out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "missing.ipynb")])
    assert "no such notebook" in capsys.readouterr().err


def test_an_interrupt_leaves_the_notebook_alone(saved, monkeypatch):
    path = saved(notebook_of("1"))
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(authoring, "execute", interrupted)
    assert main([str(path)]) == 130 and path.read_bytes() == before
