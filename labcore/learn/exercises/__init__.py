"""Exercises that diagnose: a stub returns TODO, `check` answers in one line, `use` keeps the notebook running.

    def allocate(pool, n): return TODO
    check("paging.allocate", allocate)               # ○ not attempted · ✗ the likely mistake · ✓ passed
    allocate = use("paging.allocate", allocate)      # the reader's if it passed, else the reference, said aloud

Exercise sets live in `labcore.learn.labs`; wrong answers that must be rejected in `tests/mutants`.
"""

from labcore.learn.exercises.card import Card, card
from labcore.learn.exercises.checking import (
    FAILED,
    NOT_ATTEMPTED,
    PASSED,
    CheckFailed,
    Result,
    check,
    evaluate,
    hint,
    progress,
    solution,
    start_session,
    use,
)
from labcore.learn.exercises.exercise import Exercise, Mistake, find, labs, load_lab, of_lab, register
from labcore.learn.exercises.report import report
from labcore.learn.exercises.stages import REFERENCE, Attempt, Fault, agrees, oracle, trap
from labcore.learn.exercises.todo import TODO, NotAttempted

__all__ = [
    "FAILED",
    "NOT_ATTEMPTED",
    "PASSED",
    "REFERENCE",
    "TODO",
    "Attempt",
    "Card",
    "CheckFailed",
    "Exercise",
    "Fault",
    "Mistake",
    "NotAttempted",
    "Result",
    "agrees",
    "card",
    "check",
    "evaluate",
    "find",
    "hint",
    "labs",
    "load_lab",
    "of_lab",
    "oracle",
    "progress",
    "register",
    "report",
    "solution",
    "start_session",
    "trap",
    "use",
]
