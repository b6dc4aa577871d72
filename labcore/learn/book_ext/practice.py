"""Practice problems: the YAML file of a chapter, and the text it becomes on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labcore.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = {"M": "mid-level", "S": "senior", "T": "staff"}


class Rubric(BaseModel):
    """What separates three answers, in the interviewer's words."""

    model_config = ConfigDict(extra="forbid")
    strong: str
    lean: str
    no_hire: str  # a bare `no` is a boolean in YAML


class Problem(BaseModel):
    """One problem. `asked`, `hints`, `solution` and the rubric are MyST text."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    title: str
    level: Literal["M", "S", "T"]
    minutes: int = Field(gt=0)
    asked: str
    hints: list[str] = Field(min_length=1)
    solution: str
    rubric: Rubric | None = None


def load(path: Path) -> list[Problem]:
    """Read `book/practice/NN.yml`: a list of problems.

    Raises DataError naming the file, the problem and the field when one is missing, unknown or of the wrong type,
    or when two problems share an id.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path.name} holds no list of problems; start each problem with '- id: …'")
    problems = [_problem(path.name, number, entry) for number, entry in enumerate(entries, 1)]
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(f"{path.name}: the id {problem.id!r} occurs twice; ids are unique")
        seen.add(problem.id)
    return problems


def _problem(file: str, number: int, entry: object) -> Problem:
    try:
        return Problem.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        name = entry.get("id", f"problem {number}") if isinstance(entry, dict) else f"problem {number}"
        field = ".".join(map(str, first["loc"])) or "the entry"
        raise DataError(f"{file}, {name}: {field}: {first['msg'].lower()}") from error


def markdown(problem: Problem) -> str:
    """One problem as MyST: the question in the open, hints one by one, rubric and solution folded."""
    parts = [f"**{problem.title}** ({LEVELS[problem.level]}, {problem.minutes} min)", problem.asked.strip()]
    parts += [_folded(f"Hint {n}", hint) for n, hint in enumerate(problem.hints, 1)]
    if problem.rubric:
        r = problem.rubric
        parts.append(
            _folded("How it is scored", f"Strong hire\n: {r.strong}\n\nLean hire\n: {r.lean}\n\nNo hire\n: {r.no_hire}")
        )
    parts.append(_folded("Solution", problem.solution))
    return "\n\n".join(parts)


def _folded(title: str, body: str) -> str:
    return f"::::::{{dropdown}} {title}\n{body.strip()}\n::::::"
