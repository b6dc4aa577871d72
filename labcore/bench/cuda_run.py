"""A run on a GPU that loses little when something goes wrong: rows are attempted one by one, within a time budget.

A row that fails is recorded as skipped with its reason, and the next begins. Every attempt is written to a file beside
the results, so that what was measured is there even if the machine is not. An illegal access takes the whole CUDA
context with it: `DeviceLost` then asks for a new process, which goes on from that file.
"""

from __future__ import annotations

import fnmatch
import gc
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from labcore.bench.ceilings import Ceiling
from labcore.bench.cuda_timing import Clock
from labcore.bench.record import Row, RunBuilder
from labcore.core.errors import DataError
from labcore.core.files import atomic_write

Measure = Callable[["CudaRun"], Iterable[Row]]
_KEPT = ("commit", "dirty", "description", "versions", "suites", "rows", "skipped", "attempted")
_PATHS = re.compile(r"\S*/\S*/\S*")


class DeviceLost(RuntimeError):
    """The CUDA context of this process answers no more; whatever is left has to run in another."""


class CudaRun(RunBuilder):
    """attempted: keys that need not be tried again. keep: where the unfinished run is written. budget: seconds of the
    run after which no further row begins. only: a pattern of keys; the others are not attempted. clock: what times the
    calls, `CudaClock` unless a test has another."""

    warming = False  # True in `precompile`, where programs run once and nothing is kept

    def __init__(
        self,
        *args,
        keep: Path | None = None,
        budget: float | None = None,
        clock: Clock | None = None,
        only: str = "*",
        **kw,
    ):
        super().__init__(*args, **kw)
        self.keep, self.budget, self.clock, self.only = keep, budget, clock, only
        self.attempted: list[str] = []

    @property
    def spent(self) -> float:
        """Seconds since the run began, in whichever process."""
        return time.time() - self.started.timestamp()

    def attempt_all(self, table: Mapping[str, Measure]) -> None:
        """Attempt each entry of a suite's table."""
        for key, measure in table.items():
            self.attempt(key, measure)

    def attempt(self, key: str, measure: Measure) -> None:
        """Add what `measure` yields; a failure is recorded under `key`. Raises DeviceLost."""
        if key in self.attempted or not fnmatch.fnmatchcase(key, self.only):
            return
        lost = None
        if self.budget is not None and self.spent > self.budget:
            self.skip(key, f"the time budget of {self.budget:.0f} s was used up before it")
        else:
            try:
                for row in measure(self):
                    self.add(row)
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                self.skip(key, reason(error))
                self.say(f"  {key:<26} {reason(error)}")
                lost = _lost()
        self.attempted.append(key)
        self._write()
        if lost is not None:
            raise DeviceLost(lost)

    def _write(self) -> None:
        if self.keep is not None:
            state = {name: getattr(self, name) for name in _KEPT}
            state |= {"started": self.started.isoformat(), "before": [asdict(one) for one in self.before]}
            atomic_write(self.keep, json.dumps(state, ensure_ascii=False))

    def restore(self, path: Path) -> None:
        """Go on from an unfinished run. Raises DataError for a file that is none."""
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.started = datetime.fromisoformat(state["started"]).astimezone(UTC)
            self.before = [Ceiling(**one | {"seconds": tuple(one["seconds"])}) for one in state["before"]]
            for name in _KEPT:
                setattr(self, name, state[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path.name} is no unfinished run ({error}); leave out --resume to begin anew") from None


def reason(error: Exception) -> str:
    """One line for a record: the kind of the error and its first line, without paths of the machine."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"failed: {type(error).__name__}: {_PATHS.sub('…', first)[:200]}"


def _lost() -> str | None:
    """Why the CUDA context is unusable; None if it works, its memory returned."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        return reason(error)
    return None
