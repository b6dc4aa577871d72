"""What a recorded run must satisfy before anyone may quote it: complete, consistent, possible, and free of traces.

Every derived figure is computed again from the samples in the file. A time below the floor means that something was
cached or counted wrong, so the row is rejected rather than celebrated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from labcore.bench.statistics import KINDS, is_rate, met, ratio, summarize
from labcore.core.errors import DataError, InputError
from labcore.core.units import unit

SCHEMA = "labcore-bench/1"
STABLE_DRIFT = 0.03  # ceilings that move further between start and end of a run make it unstable
FLOOR_SLACK = 0.97  # a time this far below its floor is a mistake, not a record
RUN_ID = re.compile(r"\d{8}T\d{6}Z-[a-z0-9]+-([0-9a-f]{7}|nogit)")

_RUN_FIELDS = ("run_id", "git", "dirty", "device", "threads", "versions", "ceilings", "stable", "rows", "skipped")
_CEILING_FIELDS = (
    "key",
    "name",
    "threads",
    "op",
    "shape",
    "work",
    "formula",
    "unit",
    "before",
    "after",
    "value",
    "drift",
)
_ROW_FIELDS = ("key", "what", "ours", "baseline", "ratio", "floor", "ideal", "target", "met", "correct", "predicted")
_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|workspace|Users|usr|var|opt|mnt|media|srv)/|[A-Za-z]:\\\\")


def validate(run: Mapping, name: str = "this run") -> None:
    """Raise DataError with one sentence for the first thing that is wrong with `run`; `name` is named in it."""
    try:
        problem = next(problems(run), None)
    except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
        problem = f"a field is malformed ({type(error).__name__}: {error})"
    if problem:
        raise DataError(f"{name}: {problem}; record it again instead of editing it")


def problems(run: Mapping) -> Iterator[str]:
    """One sentence for each thing that is wrong with `run`; nothing for a valid run."""
    if run.get("schema") != SCHEMA:
        yield f"schema is {run.get('schema')!r} where {SCHEMA!r} is read"
        return
    if missing := [field for field in _RUN_FIELDS if field not in run]:
        yield f"field {missing[0]!r} is missing"
        return
    if not RUN_ID.fullmatch(run["run_id"]):
        yield f"run_id {run['run_id']!r} is not YYYYMMDDTHHMMSSZ-<device>-<git7>"
    elif run["run_id"].rsplit("-", 1)[1] != (run["git"] or "nogit")[:7]:
        yield f"run_id {run['run_id']!r} names another commit than git={run['git']!r}"
    if found := _PATH.search(json.dumps(run)):
        yield f"it holds a path of the machine it ran on ({found[0]}…)"
    for one in run["ceilings"]:
        yield from _ceiling_problems(one)
    if run["stable"] != all(abs(one["drift"]) <= STABLE_DRIFT for one in run["ceilings"]):
        yield f"stable={run['stable']} does not follow from the drift of its ceilings (limit {STABLE_DRIFT:.0%})"
    keys = [row.get("key") for row in run["rows"]]
    if twice := [key for key in keys if keys.count(key) > 1]:
        yield f"row key {twice[0]!r} appears more than once"
    for row in run["rows"]:
        yield from row_problems(row)


def _ceiling_problems(one: Mapping) -> Iterator[str]:
    where = f"ceiling {one.get('key', one.get('name'))!r}"
    if missing := [field for field in _CEILING_FIELDS if field not in one]:
        yield f"{where} has no {missing[0]!r}"
        return
    if not is_rate(one["unit"]):
        yield f"{where} is in {one['unit']!r}, which is not a rate"
    for side in ("before", "after"):
        yield from _summary_problems(f"{where}, {side}", one[side])
    before, after = one["before"]["median"], one["after"]["median"]
    if not _same(one["value"], max(before, after)):
        yield f"{where} states {one['value']:g}, its medians give {max(before, after):g}"
    if not _same(1 + one["drift"], after / before):
        yield f"{where} states a drift of {one['drift']:.2%}, its medians give {after / before - 1:.2%}"


def row_problems(row: Mapping) -> Iterator[str]:
    """One sentence for each thing that is wrong with a row; nothing for a valid row."""
    where = f"row {row.get('key')!r}"
    if missing := [field for field in _ROW_FIELDS if field not in row]:
        yield f"{where} has no {missing[0]!r}"
        return
    kind = row["ratio"].get("kind")
    if kind not in KINDS:
        yield f"{where} has ratio kind {kind!r}; it must be one of {', '.join(KINDS)}"
        return
    if not isinstance(row["correct"].get("pass"), bool) or len(row["correct"]) < 2:
        yield f"{where} does not say whether its result is right: correct needs 'pass' and the evidence for it"
        return
    if not row["ours"].get("unit"):
        yield f"{where} has no unit"
        return
    unit(row["ours"]["unit"])  # an unknown one raises UnitError, which `validate` reports
    for side in ("ours", "baseline"):
        if row[side] is not None:
            yield from _summary_problems(f"{where}, {side}", row[side])
            if row[side].get("unit") != row["ours"]["unit"]:
                yield f"{where} compares {row['ours']['unit']} with {row[side].get('unit')}"
    if row["baseline"] is not None and not row["baseline"].get("name"):
        yield f"{where} does not name its baseline"
    yield from _ratio_problems(where, row, kind)
    yield from _bound_problems(where, row)


def _summary_problems(where: str, stated: Mapping) -> Iterator[str]:
    for figure, computed in summarize(stated["rounds"]).items():
        if not _same(stated.get(figure), computed):
            yield f"{where}: {figure} {stated.get(figure)} does not follow from its samples, which give {computed:.6g}"


def _ratio_problems(where: str, row: Mapping, kind: str) -> Iterator[str]:
    baseline, floor = row["baseline"] and row["baseline"]["rounds"], row["floor"] and row["floor"]["value"]
    computed = ratio(kind, row["ours"]["unit"], row["ours"]["rounds"], baseline, floor)
    for figure in ("median", "lo", "hi"):
        stated = row["ratio"].get(figure)
        if not _same(stated, getattr(computed, figure)):
            yield f"{where}: ratio.{figure} {stated} does not follow from its samples ({getattr(computed, figure):.6g})"
    reached = met(kind, computed.median, row["target"], row["correct"]["pass"])
    if row["met"] != reached:
        yield f"{where}: met is {row['met']!r}, its ratio {computed.median:.4g} gives {reached!r}"
    if predicted := row["predicted"]:
        error = row["ours"]["median"] / predicted["value"] - 1
        if not predicted.get("formula") or not _same(1 + predicted["error"], 1 + error):
            yield f"{where}: the prediction names no formula, or its error is not {error:.2%}"


def _bound_problems(where: str, row: Mapping) -> Iterator[str]:
    """What no machine can do: beat the floor by more than the slack, or a ratio above the ideal one."""
    floor, median = row["floor"], row["ours"]["median"]
    if floor is not None:
        if floor["unit"] != row["ours"]["unit"] or not floor.get("formula"):
            yield f"{where}: the floor needs the unit of ours ({row['ours']['unit']}) and the formula it comes from"
        slack = floor["value"] / median if not is_rate(floor["unit"]) else median / floor["value"]
        if slack > 1 / FLOOR_SLACK:
            yield (
                f"{where}: {median:g} {row['ours']['unit']} beats its floor {floor['value']:g} {floor['unit']} "
                f"by more than {1 - FLOOR_SLACK:.0%}, so work was cached, skipped or counted wrong"
            )
    if row["ideal"] is not None and row["ratio"]["median"] > row["ideal"] / FLOOR_SLACK:
        yield f"{where}: ratio {row['ratio']['median']:.4g} exceeds the ideal {row['ideal']:g}"


def _same(stated: float | None, computed: float) -> bool:
    return isinstance(stated, (int, float)) and abs(stated - computed) <= 1e-6 * max(abs(computed), 1e-30)
