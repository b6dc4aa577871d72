"""`check`, `use`, `hint`, `solution`: what a reader calls. None of them raises unless it is asked to be strict."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from labcore.core.errors import InputError
from labcore.learn.exercises.compare import describe
from labcore.learn.exercises.exercise import Exercise, find
from labcore.learn.exercises.library import originals
from labcore.learn.exercises.sandbox import Outcome, run_bounded
from labcore.learn.exercises.stages import Attempt, Fault, signature_problem
from labcore.learn.exercises.todo import NotAttempted, Todo
from labcore.learn.source import Shown, source

NOT_ATTEMPTED, FAILED, PASSED = "not attempted", "failed", "passed"
WRITES = re.compile("store|atomic_")  # how the names of Triton's functions that write to memory begin
MARK = {NOT_ATTEMPTED: "○", FAILED: "✗", PASSED: "✓"}


class CheckFailed(InputError):
    """A strict check did not pass."""


@dataclass(frozen=True)
class Result:
    """How a check ended: `state` is one of NOT_ATTEMPTED, FAILED, PASSED; `message` is one sentence."""

    id: str
    state: str
    message: str

    def __str__(self) -> str:
        return f"{MARK[self.state]} {self.id}: {self.message}"

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        """Nothing: `check` has printed the line already."""


@dataclass
class Progress:
    """What happened to one exercise in this session."""

    attempts: int = 0
    hints: set[int] = field(default_factory=set)
    function: object = None
    result: Result | None = None


_progress: dict[str, Progress] = {}


def progress(exercise_id: str) -> Progress:
    """This session's record of one exercise."""
    return _progress.setdefault(exercise_id, Progress())


def start_session() -> None:
    """Forget all progress, and remember the library as it is now."""
    _progress.clear()
    originals.remember()


def solved_mode() -> bool:
    """LABCORE_CHECK=solved: the references take the place of the reader's functions, and checks are strict."""
    return os.environ.get("LABCORE_CHECK") == "solved"


def check(exercise_id: str, function: object, strict: bool = False) -> Result:
    """Check `function` against the exercise and print one line: ○ not attempted, ✗ failed and why, ✓ passed.

    Whatever the function does (an exception, an endless loop, damage to its inputs or to the library) is reported in
    that line. `strict=True` raises CheckFailed unless it passed; so does LABCORE_CHECK=solved, on the reference.
    """
    try:
        exercise = find(exercise_id)
    except InputError as unknown:
        if strict or solved_mode():
            raise
        result = Result(str(exercise_id), FAILED, str(unknown))
    else:
        strict = strict or solved_mode()
        function = exercise.reference if solved_mode() else function
        result = evaluate(exercise, function)
        record = progress(exercise.id)
        record.attempts += result.state != NOT_ATTEMPTED
        record.function, record.result = function, result
    print(result)
    if strict and result.state != PASSED:
        raise CheckFailed(str(result))
    return result


def evaluate(exercise: Exercise, function: object) -> Result:
    """The result of checking `function`, without printing or recording anything."""

    def result(state: str, message: str) -> Result:
        return Result(exercise.id, state, message)

    if isinstance(function, Todo) or _same_code(function, exercise.starter):
        return result(NOT_ATTEMPTED, "not attempted yet")
    if not callable(function):
        return result(FAILED, f"hand in the function {exercise.name} itself, not its value {describe(function)}")
    if problem := signature_problem(function, exercise):
        return result(FAILED, problem)
    originals.remember()
    replaced = originals.restore()
    attempt = Attempt(exercise, function)
    outcome = run_bounded(lambda: [stage(attempt) for stage in exercise.stages], exercise.seconds)
    if replaced := replaced or originals.restore():
        names = ", ".join(replaced[:3])
        return result(FAILED, f"{names} had been replaced, so no check could be trusted; it is put back, check again")
    return result(*_verdict(exercise, outcome, attempt))


def _verdict(exercise: Exercise, outcome: Outcome, attempt: Attempt) -> tuple[str, str]:
    """State and message for how the run ended."""
    error = outcome.error
    if not outcome.finished:
        text = f"{exercise.name} was still running after {exercise.seconds:g} s; is there a loop that never ends?"
        return FAILED, text + " It ignores being stopped: restart the kernel." * outcome.abandoned
    if isinstance(error, NotAttempted):
        return NOT_ATTEMPTED, _still_todo(attempt.function)
    noise = f" (it printed {outcome.printed:,} lines, not shown)" if outcome.printed else ""
    if isinstance(error, Fault):
        return FAILED, f"{error}{noise}"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return FAILED, f"{exercise.name} tried to leave Python with {type(error).__name__}; return a value instead"
    if error is not None:
        return FAILED, f"the check itself broke ({type(error).__name__}: {error}); please report it"
    if attempt.function is exercise.reference:
        return PASSED, "this is the reference; write your own to practise"
    return PASSED, f"passed, {attempt.calls} {'call' if attempt.calls == 1 else 'calls'} checked{noise}"


def _still_todo(function: object) -> str:
    """The message for a function that returns TODO; it tells one whose Triton kernel is written already."""
    for name in function.__code__.co_names if inspect.isfunction(function) else ():
        kernel = inspect.getattr_static(function.__globals__.get(name), "fn", None)  # Triton keeps the function there
        if inspect.isfunction(kernel) and any(map(WRITES.match, kernel.__code__.co_names)):  # no stub writes anything
            return f"{name} stores its result, but {function.__name__} still returns TODO; return what {name} filled"
    return "not attempted yet"


def _same_code(function: object, starter: Callable | None) -> bool:
    """Whether `function` is the starter's text, comments and docstrings aside.

    Texts are compared, not bytecode: that depends on what else the same file imports.
    """
    if starter is None or function is starter:
        return starter is not None
    try:
        return _without_name(function) == _without_name(starter)
    except (OSError, TypeError, SyntaxError, ValueError):  # no text, or not that of one function
        return False


def _without_name(function: object) -> str:
    """The syntax tree of a function as text, without its name and docstring."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"{function!r} is not written as def")
    body = definition.body[ast.get_docstring(definition) is not None :]
    return ast.dump(ast.Module([definition.args, *body], type_ignores=[]))


def use(exercise_id: str, function: Callable) -> Callable:
    """The reader's function if it passes its check, else the reference; prints which. Raises nothing but an unknown id.

    A function that changed since its last check is checked again, silently.
    """
    exercise = find(exercise_id)
    if solved_mode():
        return exercise.reference
    record = progress(exercise.id)
    if record.result is None or record.function is not function:
        record.function, record.result = function, evaluate(exercise, function)
    passed = record.result.state == PASSED
    print(f"{exercise.id}: later cells use {'your' if passed else 'the reference'} {exercise.name}")
    return function if passed else exercise.reference


def hint(exercise_id: str, n: int | None = None) -> None:
    """Print hint `n` (1 idea, 2 recipe, 3 first line), or the next one not seen yet."""
    try:
        exercise = find(exercise_id)
    except InputError as unknown:
        return print(unknown)
    seen = progress(exercise.id).hints
    n = min(len(seen) + 1, 3) if n is None else n
    if n not in (1, 2, 3):
        return print(f"{exercise.id} has hints 1, 2 and 3, not {n!r}")
    seen.add(n)
    print(f"Hint {n} of 3: {exercise.hints[n - 1]}")


def solution(exercise_id: str) -> Shown:
    """The reference's source, folded where the output can fold. Raises InputError for an unknown id."""
    exercise = find(exercise_id)
    return source(exercise.reference, fold=f"Solution: {exercise.title}")
