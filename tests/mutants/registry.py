"""`@mutant("exercise.id", says="…")`: a plausible wrong answer, and words of the sentence that must reject it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labcore.learn import exercises

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """A wrong answer to exercise `id`; `says` must occur in the message that rejects it."""

    lab: str
    id: str
    says: str
    function: Callable

    def __str__(self) -> str:
        return f"{self.id}:{self.function.__name__}"


_mutants: dict[str, Mutant] = {}


def mutant(exercise_id: str, *, says: str) -> Callable[[Callable], Callable]:
    """Register the decorated function as a wrong answer; its name describes the error."""

    def add(function: Callable) -> Callable:
        one = Mutant(function.__module__.rpartition(".")[2], exercise_id, says, function)
        _mutants[str(one)] = one
        return function

    return add


def all_mutants() -> list[Mutant]:
    """The mutants of every lab; importing this also loads every exercise."""
    for lab in exercises.labs():
        exercises.load_lab(lab)
    for path in sorted(HERE.glob("lab*.py")):
        importlib.import_module(f"tests.mutants.{path.stem}")
    return list(_mutants.values())
