"""A recorded run: one JSON file that says what was measured, where, with what spread, and whether it was right.

Schema "labcore-bench/1". A run holds the device, the versions, the commit, the ceilings measured before and after, and
rows. A row holds every sample; its medians, its ratio and the bar it met are computed from them, here and again by
`validate`, so a file cannot state a figure that its own samples do not support.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from labcore.bench import device as devices
from labcore.bench.ceilings import Ceiling
from labcore.bench.statistics import Rounds, met, ratio, summarize
from labcore.bench.validation import SCHEMA, STABLE_DRIFT, row_problems, validate
from labcore.core.errors import DataError, InputError
from labcore.core.files import atomic_write


@dataclass(frozen=True)
class Row:
    """One measured result beside what it is compared with, what bounds it, and the proof that it is right.

    `ours` and `baseline` are samples in `unit`, grouped in rounds (`timing.alternate`): s and B are costs, B/s and
    token/s are rates. `kind` names the ratio (statistics.KINDS). `floor` is the least cost, or the highest rate, that
    the ceilings of this run allow, and `floor_formula` says from what. `ideal` is a ratio no right measurement can
    exceed. `target` holds the bars must, target, dream. `correct` is `{"pass": bool, …}` with the evidence:
    the error and its bar, or a sentence saying what was compared. `predicted` is what a formula expects, in `unit`.
    """

    key: str
    what: str
    ours: Rounds
    unit: str
    kind: str
    correct: Mapping
    baseline: Rounds | None = None
    baseline_name: str | None = None
    floor: float | None = None
    floor_formula: str | None = None
    ideal: float | None = None
    target: Mapping[str, float] = field(default_factory=dict)
    predicted: float | None = None
    predicted_by: str | None = None
    dtype: str | None = None
    threads: int | None = None
    shape: Mapping = field(default_factory=dict)
    config: Mapping = field(default_factory=dict)
    flops: float | None = None
    bytes: float | None = None
    method: str = "alternated rounds"
    notes: str = ""

    def to_json(self) -> dict:
        """The row as it stands in the file, summaries, ratio and bar included. Raises InputError for bad samples."""
        ours = _digits(self.ours)
        baseline = None if self.baseline is None else _digits(self.baseline)
        share = ratio(self.kind, self.unit, ours, baseline, self.floor)
        row = {name: getattr(self, name) for name in ("key", "what", "dtype", "threads", "method", "flops", "bytes")}
        row |= {"shape": dict(self.shape), "config": dict(self.config), "notes": self.notes}
        row["ours"] = {"unit": self.unit, **summarize(ours), "rounds": ours}
        row["baseline"] = row["floor"] = row["predicted"] = None
        if baseline is not None:
            row["baseline"] = {"name": self.baseline_name, "unit": self.unit, **summarize(baseline), "rounds": baseline}
        if self.floor is not None:
            row["floor"] = {"value": self.floor, "unit": self.unit, "formula": self.floor_formula}
        if self.predicted is not None:
            error = row["ours"]["median"] / self.predicted - 1
            row["predicted"] = {
                "value": self.predicted,
                "unit": self.unit,
                "formula": self.predicted_by,
                "error": error,
            }
        row["ratio"] = {"median": share.median, "lo": share.lo, "hi": share.hi, "kind": self.kind}
        row |= {"ideal": self.ideal, "target": dict(self.target), "correct": dict(self.correct)}
        row["met"] = met(self.kind, share.median, row["target"], self.correct.get("pass") is True)
        return row


class RunBuilder:
    """Collects the rows of one run between two measurements of the ceilings.

    `device` is "cpu" or "cuda"; `threads` is the torch thread count of everything timed on the CPU; `say` is told of
    every row as it is added, because a run takes minutes.
    """

    def __init__(
        self,
        device: str,
        threads: int,
        ceilings: Sequence[Ceiling],
        suites: Sequence[str] = (),
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.say, self.device, self.threads = say, device, threads
        self.before, self.suites = list(ceilings), list(suites)
        self.started = datetime.now(UTC)
        self.commit, self.dirty = devices.git_state()
        self.description = devices.describe(device)
        self.versions = devices.versions()
        self.rows: list[dict] = []
        self.skipped: list[dict] = []

    def add(self, row: Row) -> dict:
        """Append a row; returns it as it will stand in the file.

        Raises InputError for a key that is taken, DataError for a row that validation would reject: one suite is
        then recorded as skipped with that reason, and the rest of the run is saved.
        """
        if any(row.key == other["key"] for other in self.rows):
            raise InputError(f"row {row.key!r} is already in this run; give each measurement its own key")
        finished = row.to_json()
        if problem := next(row_problems(finished), None):
            raise DataError(f"{problem}; mend the measurement")
        self.rows.append(finished)
        share = finished["ratio"]
        self.say(f"  {row.key:<26} {share['median']:>8.3g} {share['kind']} ({finished['met'] or 'no bar'})")
        return finished

    def add_version(self, package: str) -> None:
        """Record the version of a peer that a row is compared with."""
        self.versions[package] = devices.package_version(package) or "not installed"

    def skip(self, suite: str, why: str) -> None:
        """Say that a suite did not run, and why, instead of leaving a silent gap."""
        self.skipped.append({"suite": suite, "why": why})

    def ceiling(self, name: str) -> float:
        """A ceiling of this run in B/s or FLOP/s, at this run's threads: "read_bandwidth", "matmul.bf16"."""
        threads = None if self.device == "cuda" else self.threads
        for one in self.before:
            if one.name == name and one.threads == threads:
                return float(summarize([one.rates])["median"])
        known = ", ".join(one.name for one in self.before if one.threads == threads)
        raise InputError(f"no ceiling {name!r} at threads={threads} in this run; it has {known or 'none'}")

    def finish(self, ceilings: Sequence[Ceiling]) -> dict:
        """The finished run; `ceilings` are the same ceilings measured again, whose drift says if it was stable."""
        pairs = [one.to_json(again) for one, again in zip(self.before, ceilings, strict=True)]
        run = {
            "schema": SCHEMA,
            "run_id": f"{self.started:%Y%m%dT%H%M%SZ}-{self.description['slug']}-{(self.commit or 'nogit')[:7]}",
            "git": self.commit,
            "dirty": self.dirty,
            "suites": self.suites,
            "device": self.description,
            "threads": self.threads,
            "versions": self.versions,
            "ceilings": pairs,
            "stable": all(abs(one["drift"]) <= STABLE_DRIFT for one in pairs),
            "rows": self.rows,
            "skipped": self.skipped,
        }
        validate(run)
        return run


def _digits(rounds: Rounds) -> list[list[float]]:
    """Samples at the five significant digits the file keeps; summaries are taken after the rounding."""
    return [[float(f"{sample:.5g}") for sample in one] for one in rounds]


def write_run(run: dict, folder: str | Path) -> Path:
    """Validate `run` and write it to `folder` under its run_id, atomically. Raises DataError if it is inconsistent."""
    validate(run)
    path = Path(folder) / f"{run['run_id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return path


def load_run(path: str | Path) -> dict:
    """Read and validate one recorded run. Raises DataError naming the file."""
    path = Path(path)
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable JSON file: {error}; record the run again") from error
    validate(run, path.name)
    if path.stem != run["run_id"]:
        raise DataError(f"{path.name} holds run {run['run_id']}; rename it to {run['run_id']}.json")
    return run


def load_runs(folder: str | Path) -> list[dict]:
    """All recorded runs of a folder, oldest first. Raises DataError for the first file that is not valid."""
    return [load_run(path) for path in sorted(Path(folder).glob("*.json"))]


def rows(run: Mapping, pattern: str = "*") -> list[dict]:
    """Rows whose key matches a shell pattern ("cpu.decode.*"). Raises InputError naming the keys there are."""
    found = [row for row in run["rows"] if fnmatch.fnmatchcase(row["key"], pattern)]
    if not found:
        keys = ", ".join(row["key"] for row in run["rows"]) or "none"
        raise InputError(f"no row {pattern!r} in run {run['run_id']}; it has {keys}")
    return found


def provenance(run: Mapping) -> str:
    """One line for a page: run, device, threads, versions, commit, and how far the ceilings drifted."""
    device, versions = run["device"], run["versions"]
    where = (
        device["name"]
        if device["kind"] == "cuda"
        else f"{device['name']}, {run['threads']} thread{'s' * (run['threads'] > 1)}"
    )
    packages = [f"{name} {versions[name]}" for name in ("python", "torch", "triton", "numpy") if name in versions]
    commit = f"commit {run['git'][:7]}{' (modified)' if run['dirty'] else ''}" if run["git"] else "no commit"
    drift = max((abs(one["drift"]) for one in run["ceilings"]), default=0.0)
    state = "stable" if run["stable"] else "UNSTABLE"
    moved = f"{state}: ceilings moved by at most {100 * drift:.1f} %"
    return " · ".join([f"run {run['run_id']}", where, ", ".join(packages), commit, moved])
