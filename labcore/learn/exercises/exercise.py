"""What an exercise is, and where the exercises of all labs are found."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from labcore.core.errors import InputError


@dataclass(frozen=True)
class Mistake:
    """A wrong answer people really give: the function that computes it, and the sentence that names the error."""

    says: str
    value: Callable


@dataclass(frozen=True)
class Exercise:
    """One task: what is asked, the reference, the staged checks, three hints, and what stands on its card.

    `reference` is the library's own function; its signature is the one the reader must keep. `stages` run in order
    (see `labcore.learn.exercises.stages`) until one finds a fault. `mistakes` turn a wrong value into a diagnosis
    wherever they reproduce it. `starter` is given to the reader to repair: handed in unchanged it counts as not
    attempted. `rel_tol` and `abs_tol` apply to floats; integers and text must be exact. `changes_inputs` says that
    the function works in place on purpose. Raises InputError if a field breaks these rules.
    """

    id: str
    lab: str
    title: str
    asked: str
    spec: str
    reference: Callable
    stages: tuple[Callable, ...]
    hints: tuple[str, str, str]
    difficulty: int
    importance: int
    minutes: tuple[int, int]
    mistakes: tuple[Mistake, ...] = ()
    starter: Callable | None = None
    rel_tol: float = 1e-9
    abs_tol: float = 1e-12
    changes_inputs: bool = False
    seconds: float = 10.0

    def __post_init__(self) -> None:
        low, high = self.minutes
        rules = {
            "an id of the form 'topic.name'": self.id.count(".") >= 1 and self.id == self.id.strip().lower(),
            "exactly three hints": len(self.hints) == 3 and all(self.hints),
            "difficulty and importance from 1 to 3": {self.difficulty, self.importance} <= {1, 2, 3},
            "minutes as (low, high)": 0 < low <= high,
            "at least one stage": bool(self.stages),
            "a question and a spec": bool(self.asked and self.spec and self.title),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise InputError(f"exercise {self.id!r} needs {broken[0]}")

    @property
    def name(self) -> str:
        """The function's name, as the messages show it."""
        return self.reference.__name__

    @property
    def arguments(self) -> list[str]:
        return list(inspect.signature(self.reference).parameters)


_registry: dict[str, Exercise] = {}


def register(*exercises: Exercise) -> None:
    """Add exercises to the registry. Raises InputError if another exercise already has one of the ids."""
    for one in exercises:
        other = _registry.get(one.id)
        if other is not None and other.reference.__module__ != one.reference.__module__:
            raise InputError(f"exercise id {one.id!r} is taken by {other.lab}; choose another")
        _registry[one.id] = one


def load_lab(lab: str) -> bool:
    """Import the exercises of `lab` ("lab03"); whether that lab has any."""
    from labcore.learn import labs

    if lab not in {module.name for module in pkgutil.iter_modules(labs.__path__)}:
        return False
    importlib.import_module(f"{labs.__name__}.{lab}")
    return True


def labs() -> list[str]:
    """Names of all labs that have exercises, sorted."""
    from labcore.learn import labs as package

    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if re.fullmatch(r"lab\d+[a-z]?", m.name))


def of_lab(lab: str) -> list[Exercise]:
    """The exercises of one lab in the order they were registered."""
    load_lab(lab)
    return [one for one in _registry.values() if one.lab == lab]


def find(exercise_id: str) -> Exercise:
    """The exercise with this id. Raises InputError naming the closest ids."""
    for lab in labs():
        if exercise_id in _registry:
            break
        load_lab(lab)
    if exercise_id not in _registry:
        close = get_close_matches(str(exercise_id), _registry, n=3, cutoff=0.4) or sorted(_registry)
        raise InputError(f"no exercise has the id {exercise_id!r}; did you mean {' or '.join(map(repr, close[:3]))}?")
    return _registry[exercise_id]
