"""The stages of a check. A stage is a function of an Attempt that raises Fault with one sentence, or returns.

Order them so that the first fault found is the most telling: `oracle` (a case small enough for paper; what is no
number, or has the wrong shape, fails here), `trap` (an input on which a likely mistake shows, with its own sentence),
`agrees` (seeded random inputs against the reference; last, since it can only show a counterexample). An exercise
about state, an allocator say, writes its own stage: `def never_twice(attempt): … raise Fault("…")`.
"""

from __future__ import annotations

import copy
import inspect
import linecache
from collections.abc import Callable

import numpy as np

from labcore.learn.exercises.compare import describe, describe_both, kind_problem, same_value, unchanged
from labcore.learn.exercises.exercise import Exercise
from labcore.learn.exercises.todo import NotAttempted, contains_todo

REFERENCE = object()  # expect what the reference returns


class Fault(Exception):
    """What is wrong with the reader's function, in one sentence."""


class Attempt:
    """The reader's function under watch: call it like the function itself."""

    def __init__(self, exercise: Exercise, function: Callable) -> None:
        self.exercise = exercise
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        """The function's value for a copy of `args`. Raises Fault for an exception, TODO, or damaged arguments."""
        given, kept = copy.deepcopy(args), copy.deepcopy(args)
        try:
            value = self.function(*given)
        except NotAttempted:
            self._still_todo(args)
        except Exception as error:
            raise Fault(f"{self.call(args)} raised {_in_words(error, self.function)}") from None
        if contains_todo(value):
            self._still_todo(args)
        if not self.exercise.changes_inputs:
            for name, after, before in zip(self.exercise.arguments, given, kept, strict=False):
                if not unchanged(after, before):
                    raise Fault(f"{self.call(args)} changed its argument {name} in place; work on a copy of it")
        self.calls += 1
        return value

    def _still_todo(self, args: tuple) -> None:
        if self.calls == 0:
            raise NotAttempted("the function returns TODO")
        raise Fault(f"{self.call(args)} still returns TODO; another input did not, so one branch is unfinished")

    def call(self, args: tuple) -> str:
        """`name(argument=value, …)`, as a message shows it."""
        shown = (f"{name}={describe(value)}" for name, value in zip(self.exercise.arguments, args, strict=False))
        return f"{self.exercise.name}({', '.join(shown)})"

    def expect(self, args: tuple, want: object = REFERENCE, says: str = "") -> None:
        """Raise Fault unless the function returns `want` for `args`; `says` explains a wrong value."""
        one = self.exercise
        if want is REFERENCE:
            want = one.reference(*copy.deepcopy(args))
        got = self(*args)
        if problem := kind_problem(got, want):
            why = f": {says}" if says and "nan" in problem else ""
            raise Fault(f"{self.call(args)} {problem}{why}")
        if same_value(got, want, one.rel_tol, one.abs_tol):
            return
        shown, wanted = describe_both(got, want)
        reason = self.likely_mistake(args, got, want) or says
        raise Fault(f"{self.call(args)} gave {shown}, expected {wanted}{': ' if reason else ''}{reason}")

    def likely_mistake(self, args: tuple, got: object, want: object) -> str:
        """The sentence of the first known mistake that gives just this value, or nothing."""
        one = self.exercise
        for mistake in one.mistakes:
            try:
                wrong = mistake.value(*copy.deepcopy(args))
            except (ArithmeticError, LookupError, TypeError, ValueError):
                continue  # this mistake cannot be made on these inputs
            wrong = float(wrong) if isinstance(got, float) and isinstance(wrong, int) else wrong
            same = same_value(got, wrong, one.rel_tol, one.abs_tol)
            if same and not same_value(want, wrong, one.rel_tol, one.abs_tol):
                return mistake.says
        return ""


def _in_words(error: Exception, function: Callable) -> str:
    """`ZeroDivisionError: division by zero, in your line "return a / b"`, without a traceback."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = " ".join(text.split())
    text = text if len(text) <= 200 else f"{text[:199]}…"
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    line, at = "", error
    while at is not None and file:  # Triton's interpreter wraps a kernel's error, whose own line the cause knows
        trace = at.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == file:
                line = linecache.getline(file, trace.tb_lineno).strip()
            trace = trace.tb_next
        at = at.__cause__
    return f'{text}, in your line "{line}"' if line else text


def signature_problem(function: Callable, exercise: Exercise) -> str | None:
    """Why the function cannot be called as the exercise calls it, or None."""
    try:
        parameters = inspect.signature(function)
        parameters.bind(*exercise.arguments)
        parameters.bind(**dict.fromkeys(exercise.arguments))  # later cells may name them
    except ValueError:
        return None  # a C function keeps its signature to itself
    except TypeError:
        mine = ", ".join(parameters.parameters)
        return f"your function takes ({mine}); it is called as {exercise.name}({', '.join(exercise.arguments)})"
    return None


def oracle(*args, gives: object) -> Callable[[Attempt], None]:
    """A stage: for `args` the function returns `gives`, worked out by hand."""
    return lambda attempt: attempt.expect(args, gives)


def trap(*args, says: str, gives: object = REFERENCE) -> Callable[[Attempt], None]:
    """A stage: an input on which a likely mistake shows; `says` names it."""
    return lambda attempt: attempt.expect(args, gives, says)


def agrees(draw: Callable[[np.random.Generator], tuple], n: int = 100, says: str = "") -> Callable[[Attempt], None]:
    """A stage: the function agrees with the reference on `n` tuples of arguments drawn with seed 0."""

    def stage(attempt: Attempt) -> None:
        generator = np.random.default_rng(0)
        for _ in range(n):
            attempt.expect(tuple(draw(generator)), says=says)

    return stage
