"""Run a reader's code for a bounded time, quietly, without letting anything escape from it.

The code runs in a thread. A signal would need Unix and the main thread, a trace function makes every line some thirty
times slower, and another process could not see the notebook's functions. When time is up an exception is raised
inside the thread, which ends any loop of Python code; code that catches even that is left behind as a daemon. One
thing no thread can stop, nor Ctrl-C: a single C call that never ends and keeps the interpreter lock, such as
`sum(itertools.count())`.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import io
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

POLL = 0.05  # s between looks at the thread; Ctrl-C is noticed in between, on Windows too
GRACE = 0.5  # s the thread gets to end after it was told to


class TimeUp(BaseException):
    """Raised inside the thread when its time is over; not an Exception, so `except Exception` lets it pass."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: a `value`, an `error`, or neither (`finished` is false: time was up)."""

    finished: bool
    value: object = None
    error: BaseException | None = None
    printed: int = 0
    abandoned: bool = False


class _Counter(io.TextIOBase):
    """A standard output that keeps nothing and counts the lines."""

    def __init__(self) -> None:
        self.lines = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        return len(text)


class _Worker(threading.Thread):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(name="labcore-check", daemon=True)
        self.work = work
        self.context = contextvars.copy_context()
        self.value: object = None
        self.error: BaseException | None = None
        self.ended = threading.Event()  # join() cannot be asked again after Ctrl-C: Python 3.11 then takes it for ended

    def run(self) -> None:
        try:
            self.value = self.context.run(self.work)
        except BaseException as error:  # SystemExit and KeyboardInterrupt of the reader's code too
            self.error = error
        finally:
            self.ended.set()

    def stop(self) -> bool:
        """Raise TimeUp inside the thread until it ends or GRACE is over; whether it ended."""
        deadline = time.monotonic() + GRACE
        while not self.ended.is_set() and time.monotonic() < deadline:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(TimeUp))
            self.ended.wait(POLL)
        return self.ended.is_set()


def run_bounded(work: Callable[[], object], seconds: float) -> Outcome:
    """Call `work()` for at most `seconds`; whatever it prints or warns is counted, not shown.

    Never raises what `work` raises: see Outcome. Ctrl-C stops the work and is passed on as KeyboardInterrupt.
    """
    worker, counter = _Worker(work), _Counter()
    deadline = time.monotonic() + seconds
    with contextlib.redirect_stdout(counter), contextlib.redirect_stderr(counter), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worker.start()
        try:
            while not worker.ended.wait(POLL) and time.monotonic() < deadline:
                pass
            in_time = worker.ended.is_set()
            ended = in_time or worker.stop()
        except KeyboardInterrupt:
            worker.stop()
            raise
    if not in_time:
        return Outcome(False, printed=counter.lines, abandoned=not ended)
    return Outcome(True, worker.value, worker.error, counter.lines)
