"""Recorded runs for pages: find the newest one that holds the rows a figure needs."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labcore
from labcore.bench.record import load_run
from labcore.core.errors import DataError, InputError

RESULTS = Path("book") / "results"


def results_folder() -> Path:
    """The book's folder of recorded runs: above the working directory, else beside the package's checkout."""
    starts = (Path.cwd(), *Path.cwd().parents, Path(labcore.__file__).parents[1])
    for start in starts:
        if (start / RESULTS).is_dir():
            return start / RESULTS
    raise DataError("no book/results folder above the working directory; open the notebook inside a clone of the book")


@dataclass(frozen=True)
class Unrecorded:
    """Stands where a run would: false, and shown as a sentence, so that a page says what nobody has measured yet."""

    pattern: str
    device: str

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        command = "make bench" if self.device == "cpu" else "make bench-gpu"
        return f"Not recorded: no run on {self.device} has rows {self.pattern!r}; record one with {command}"


def recorded_or_not(pattern: str, device: str = "cpu", commit: str = "") -> dict[str, Any] | Unrecorded:
    """The newest run recorded on `device` with a row that matches `pattern` ("gpu.splits.*"), else `Unrecorded`.

    commit: only runs of that commit, by its first characters, where a later one measured other code than what ships.
    """
    for path in sorted(results_folder().glob(f"*-{device}-{commit}*.json"), reverse=True):
        run = load_run(path)
        if any(fnmatch.fnmatchcase(row["key"], pattern) for row in run["rows"]):
            return run
    return Unrecorded(pattern, device)


def recorded_run(pattern: str, device: str = "cpu") -> dict[str, Any]:
    """As `recorded_or_not`, for pages that need the run. Raises DataError naming the command that records one."""
    found = recorded_or_not(pattern, device)
    if not found:
        raise DataError(repr(found))
    return found


def ceiling(run: Mapping[str, Any], name: str) -> float:
    """A measured ceiling of `run` in B/s or FLOP/s, at the threads its rows used: "read_bandwidth", "matmul.fp32".

    Raises InputError naming the ceilings there are.
    """
    threads = None if run["device"]["kind"] == "cuda" else run["threads"]
    known = {one["name"]: one["value"] for one in run["ceilings"] if one["threads"] == threads}
    if name not in known:
        raise InputError(f"run {run['run_id']} has no ceiling {name!r} at threads={threads}; it has {', '.join(known)}")
    return known[name]
