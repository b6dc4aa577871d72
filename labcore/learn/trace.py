"""Recorded event traces for the Player: the JSON that an engine writes, and the check that it is consistent.

A trace is a header and a list of steps. A step holds events, the values of the trace's counters after it, and an
optional note. `trace(view=…, …)` builds and checks one; `replay(trace)` yields the state after every step.

The views, and the fields of each operation `op`:

- blocks (header: num_blocks, block_size, and null_block where the pool has one, which nobody holds). allocate, share:
  seq block; append: seq tokens; copy: seq block to; free, preempt: seq
- gantt (header: slots, step_unit). run: slot request kind tokens, kind being prefill or decode; other slots are idle
- tokens (no header). round: drafted accepted resampled bonus
- tiles (header: rows, columns, tile (its two sides), causal). tile: row column skipped values

Blocks are numbered from 0. `append` adds tokens to the sequence's last blocks, `share` maps a block that another
sequence holds, `copy` replaces a shared block by a private copy, `free` and `preempt` drop every block of a sequence.
A round keeps `drafted[:accepted]`, then the resampled token after a rejection, or the bonus token after none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labcore.core.errors import DataError

SCHEMA = "labcore-trace/1"
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Allocate(Strict):
    op: Literal["allocate", "share"]
    seq: Name
    block: Count


class Append(Strict):
    op: Literal["append"]
    seq: Name
    tokens: Positive


class Copy(Strict):
    op: Literal["copy"]
    seq: Name
    block: Count
    to: Count


class Free(Strict):
    op: Literal["free", "preempt"]
    seq: Name


class Run(Strict):
    op: Literal["run"]
    slot: Count
    request: Name
    kind: Literal["prefill", "decode"]
    tokens: Positive


class Round(Strict):
    op: Literal["round"]
    drafted: list[str]
    accepted: Count
    resampled: str | None = None
    bonus: str | None = None


class Tile(Strict):
    op: Literal["tile"]
    row: Count
    column: Count
    skipped: bool = False
    values: dict[str, float] = {}


EVENTS = {"blocks": Allocate | Append | Copy | Free, "gantt": Run, "tokens": Round, "tiles": Tile}
HEADERS = {
    "blocks": {"num_blocks": Positive, "block_size": Positive},
    "gantt": {"slots": Positive, "step_unit": Name},
    "tokens": {},
    "tiles": {"rows": Positive, "columns": Positive, "tile": list[Positive], "causal": bool},
}
OPTIONAL = {"blocks": {"null_block": Count}}


class Step(Strict):
    events: list[dict[str, Any]]
    counters: dict[str, float] = {}
    note: str = ""


class Counter(Strict):
    """One figure under the picture: its name in `counters`, a label, a unit of core.units."""

    name: Name
    label: Name
    unit: str = "1"


class Trace(BaseModel):
    """A checked trace; header fields of its view are extra fields."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    format: Literal["labcore-trace/1"] = Field(default=SCHEMA, alias="schema")
    view: Literal["blocks", "gantt", "tokens", "tiles"]
    title: Name
    source: Name  # the run that was recorded: code, workload, seed
    counters: list[Counter] = []
    steps: list[Step] = Field(min_length=1)

    def as_json(self) -> dict[str, Any]:
        """Plain data, ready for json.dump."""
        return self.model_dump(by_alias=True)


def trace(data: Mapping[str, Any] | Trace) -> Trace:
    """Check a trace: its fields, every event, and that the events can follow one another.

    Raises DataError naming the step and the field, or the rule that an event breaks.
    """
    if isinstance(data, Trace):
        return data
    try:
        found = Trace.model_validate(dict(data))
        header = found.model_extra or {}
        wanted, known = HEADERS[found.view].keys(), HEADERS[found.view] | OPTIONAL.get(found.view, {})
        missing, extra = sorted(wanted - header.keys()), sorted(header.keys() - known.keys())
        if missing or extra:
            raise DataError(f"trace {found.title!r}: a {found.view} trace lacks {missing}, does not know {extra}")
        for number, step in enumerate(found.steps):
            step.events = [_event(found, number, event) for event in step.events]
            if unknown := set(step.counters) ^ {c.name for c in found.counters}:
                raise DataError(
                    f"trace {found.title!r}, step {number}: counters differ from the header: {sorted(unknown)}"
                )
        for _ in replay(found):
            pass
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"trace: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    return found


def _event(found: Trace, number: int, event: dict[str, Any]) -> dict[str, Any]:
    kinds = EVENTS[found.view]
    for kind in getattr(kinds, "__args__", (kinds,)):
        if event.get("op") in kind.model_fields["op"].annotation.__args__:
            try:
                return kind.model_validate(event).model_dump(exclude_none=True)
            except ValidationError as error:
                first = error.errors()[0]
                where = f"trace {found.title!r}, step {number}, {event['op']}: {'.'.join(map(str, first['loc']))}"
                raise DataError(f"{where}: {first['msg'].lower()}") from error
    raise DataError(f"trace {found.title!r}, step {number}: {event.get('op')!r} is no event of the view {found.view}")


def replay(found: Trace) -> Iterator[dict[str, Any]]:
    """The state after each step. blocks: {"tables": {seq: [block]}, "lengths": {seq: tokens}, "refs": [count]}; the
    other views: {"events": [...]} so far. Raises DataError when an event contradicts the state."""
    tables: dict[str, list[int]] = {}
    lengths: dict[str, int] = {}
    extra = found.model_extra or {}
    refs = [0] * extra.get("num_blocks", 0)
    seen: list[dict[str, Any]] = []
    for number, step in enumerate(found.steps):
        for event in step.events:
            rule = _apply(event, tables, lengths, refs, extra) if found.view == "blocks" else _possible(event, extra)
            if rule:
                raise DataError(f"trace {found.title!r}, step {number}: {event['op']}: {rule}")
            seen.append(event)
        if found.view == "blocks":
            yield {"tables": {s: list(t) for s, t in tables.items()}, "lengths": dict(lengths), "refs": list(refs)}
        else:
            yield {"events": list(seen)}


def _possible(event: dict[str, Any], extra: Mapping[str, Any]) -> str | None:
    """The rule that an event of the views without state breaks, or None."""
    if event["op"] == "run" and event["slot"] >= extra["slots"]:
        return f"slot {event['slot']} does not exist; there are {extra['slots']}"
    if event["op"] == "round":
        if event["accepted"] > len(event["drafted"]):
            return f"{event['accepted']} accepted of {len(event['drafted'])} drafted"
        if "bonus" in event and ("resampled" in event or event["accepted"] < len(event["drafted"])):
            return "a bonus token follows only when every drafted token was accepted"
        if "resampled" in event and event["accepted"] == len(event["drafted"]):
            return "a token is resampled only after a rejection"
    if event["op"] == "tile":
        rows, columns = -(-extra["rows"] // extra["tile"][0]), -(-extra["columns"] // extra["tile"][1])
        if event["row"] >= rows or event["column"] >= columns:
            return f"tile ({event['row']}, {event['column']}) lies outside {rows} × {columns} tiles"
    return None


def _apply(
    event: dict[str, Any],
    tables: dict[str, list[int]],
    lengths: dict[str, int],
    refs: list[int],
    extra: Mapping[str, Any],
) -> str | None:
    """Apply one block event in place; the rule it breaks, or None. labcore-player.js applies the same way."""
    seq, op = event["seq"], event["op"]
    for block in (event[k] for k in ("block", "to") if k in event):
        if block >= len(refs):
            return f"block {block} does not exist; the pool has {len(refs)}"
        if block == extra.get("null_block"):
            return f"block {block} is the null block, which nobody holds"
    if op in ("allocate", "share"):
        block = event["block"]
        if (refs[block] > 0) != (op == "share"):
            return f"block {block} is {'in use' if refs[block] else 'free'}"
        if block in tables.get(seq, []):
            return f"{seq} holds block {block} already"
        refs[block] += 1
        tables.setdefault(seq, []).append(block)
        lengths.setdefault(seq, 0)
    elif seq not in tables:
        return f"{seq} holds no blocks"
    elif op == "append":
        if lengths[seq] + event["tokens"] > len(tables[seq]) * extra["block_size"]:
            return f"{seq} has {lengths[seq]} tokens in {len(tables[seq])} blocks; {event['tokens']} more do not fit"
        lengths[seq] += event["tokens"]
    elif op == "copy":
        if event["block"] not in tables[seq] or refs[event["block"]] < 2:
            return f"block {event['block']} is not one that {seq} shares"
        if refs[event["to"]]:
            return f"block {event['to']} is in use"
        refs[event["block"]] -= 1
        refs[event["to"]] = 1
        tables[seq][tables[seq].index(event["block"])] = event["to"]
    else:
        for block in tables.pop(seq):
            refs[block] -= 1
        del lengths[seq]
    return None
