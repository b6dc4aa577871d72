"""A local Markdown report of what the reader solved. Nothing leaves the reader's machine."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from labcore.core.errors import InputError
from labcore.core.files import atomic_write
from labcore.learn.exercises.checking import MARK, NOT_ATTEMPTED, PASSED, Progress, progress, solved_mode
from labcore.learn.exercises.exercise import Exercise, of_lab


def report(lab: str, folder: str | Path = ".") -> str:
    """Write `<lab>-report.md` into `folder` and return one line that says so; nothing attempted, nothing written.

    Raises InputError if the lab is unknown or the folder cannot be written to.
    """
    exercises = of_lab(lab)
    if not exercises:
        raise InputError(f"there is no lab {lab!r} with exercises; pass a name like 'lab00'")
    tried = [one for one in exercises if progress(one.id).attempts]
    if solved_mode() or not tried:
        return f"none of the {len(exercises)} exercises attempted yet: no report written"
    path = Path(folder) / f"{lab}-report.md"
    atomic_write(path, markdown(lab, exercises))
    solved = sum(_state(one) == PASSED for one in exercises)
    return f"{solved} of {len(exercises)} solved; written to {path.name}"


def markdown(lab: str, exercises: list[Exercise]) -> str:
    """The report's text: one row an exercise, then the reader's own solutions."""
    solved = [one for one in exercises if _state(one) == PASSED]
    lines = [f"# {lab}: {len(solved)} of {len(exercises)} solved", ""]
    lines += ["| exercise | id | state | attempts | hints |", "|---|---|---|---|---|"]
    for one in exercises:
        record, state = progress(one.id), _state(one)
        hints = ", ".join(map(str, sorted(record.hints))) or "none"
        lines.append(f"| {one.title} | `{one.id}` | {MARK[state]} {state} | {record.attempts} | {hints} |")
    for one in exercises:
        record = progress(one.id)
        if _state(one) == PASSED and (code := _code(record)):
            lines += ["", f"## {one.title}", "", f"> {one.asked}", "", "```python", code, "```"]
        elif record.result is not None and record.attempts:
            lines += ["", f"## {one.title}", "", record.result.message]
    return "\n".join(lines) + "\n"


def _state(one: Exercise) -> str:
    result = progress(one.id).result
    return result.state if result else NOT_ATTEMPTED


def _code(record: Progress) -> str:
    """The reader's function, behind the Triton kernels and helpers of the notebook that it calls."""
    function = record.function
    called = [
        getattr(value, "fn", value)  # a Triton kernel keeps its function there
        for name in getattr(getattr(function, "__code__", None), "co_names", ())
        if (value := function.__globals__.get(name)) is not function
    ]
    own = [one for one in called if inspect.isfunction(one) and one.__globals__ is function.__globals__]
    try:
        return "\n\n\n".join(textwrap.dedent(inspect.getsource(one)).rstrip() for one in (*own, function))
    except (TypeError, OSError):
        return ""
