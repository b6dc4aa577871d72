"""What the scheduler did, step by step, in the form that the book's Player shows (labcore.learn.trace has its grammar).

    recorder = TraceRecorder(scheduler)
    plan = recorder.record(scheduler.schedule())         # after every schedule()
    Player(recorder.gantt("Continuous batching", "this run"))

The Gantt chart has a row for each place in the batch, the block trace one event for whatever happened to a table.
"""

from __future__ import annotations

from typing import Any

from labcore.core.errors import InputError
from labcore.core.step_plan import Move, ScheduledRequest, StepPlan
from labcore.engine.scheduler import Scheduler
from labcore.kv.block_pool import NULL_BLOCK

Event = dict[str, Any]
COUNTERS = {
    "tokens": "tokens in the step",
    "running": "running",
    "waiting": "waiting",
    "free_blocks": "free blocks",
}


class TraceRecorder:
    """Follows one scheduler. Steps without events are recorded too: that nothing ran is news."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self._runs: list[list[Event]] = []
        self._blocks: list[list[Event]] = []
        self._counters: list[dict[str, float]] = []
        self._slots: dict[str, int] = {}
        self._num_slots = 1
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}

    def record(self, plan: StepPlan) -> StepPlan:
        """Take down `plan`, which must be the latest and not have been answered yet; returns it."""
        events = self._released(plan)
        copied = {move.target: move.source for move in plan.moves if move.kind is Move.COPY}
        for row in plan.scheduled:
            events += self._changes(row, copied)
        self._blocks.append(events)
        self._runs.append([self._run(row) for row in plan.scheduled])
        self._counters.append(
            {
                "tokens": plan.num_tokens,
                "running": len(self.scheduler.running),
                "waiting": len(self.scheduler.waiting),
                "free_blocks": self.scheduler.manager.block_pool.num_free_blocks,
            }
        )
        return plan

    def _released(self, plan: StepPlan) -> list[Event]:
        ended = [(name, "free") for name in plan.finished] + [(name, "preempt") for name in plan.preempted]
        for name, _ in ended:
            self._slots.pop(name, None)
            self._lengths.pop(name, None)
        return [{"op": op, "seq": name} for name, op in ended if self._tables.pop(name, None) is not None]

    def _run(self, row: ScheduledRequest) -> Event:
        name = row.request.request_id
        if name not in self._slots:
            taken = set(self._slots.values())
            self._slots[name] = next(slot for slot in range(len(taken) + 1) if slot not in taken)
            self._num_slots = max(self._num_slots, len(self._slots))
        kind = "decode" if row.start >= max(row.request.num_prompt_tokens, row.request.num_tokens - 1) else "prefill"
        return {"op": "run", "slot": self._slots[name], "request": name, "kind": kind, "tokens": row.num_tokens}

    def _changes(self, row: ScheduledRequest, copied: dict[int, int]) -> list[Event]:
        """Blocks that joined the row's table, then the tokens written. A shared block to be written is copied first."""
        name, events = row.request.request_id, []
        table = self._tables.setdefault(name, [])
        computed, size = self._lengths.get(name, 0), self.scheduler.manager.block_size
        for index, block in enumerate(row.block_ids):
            source = copied.get(block)
            if index < len(table) and table[index] != block:
                events.append({"op": "copy", "seq": name, "block": table[index], "to": block})
                table[index] = block
            elif index >= len(table) and source is not None and self._held(source):
                events.append({"op": "share", "seq": name, "block": source})
                table.append(source)
                events += self._append(name, row.start - self._lengths.get(name, 0))
                events.append({"op": "copy", "seq": name, "block": source, "to": block})
                table[index] = block
            elif index >= len(table):
                events.append({"op": "share" if self._held(block) else "allocate", "seq": name, "block": block})
                table.append(block)
        certain = min(row.start + row.num_tokens - row.num_draft_tokens, len(table) * size)
        return events + self._append(name, certain - self._lengths.get(name, computed))

    def _append(self, name: str, tokens: int) -> list[Event]:
        self._lengths[name] = self._lengths.get(name, 0) + max(tokens, 0)
        return [{"op": "append", "seq": name, "tokens": tokens}] if tokens > 0 else []

    def _held(self, block: int) -> bool:
        return any(block in table for table in self._tables.values())

    def gantt(self, title: str, source: str) -> dict[str, Any]:
        """Who computed how many tokens in which step. `source`: the run that was recorded."""
        return self._trace("gantt", title, source, self._runs) | {"slots": self._num_slots, "step_unit": "step"}

    def blocks(self, title: str, source: str) -> dict[str, Any]:
        """What happened to the block tables. Raises InputError with a sliding window, which frees parts of a table."""
        manager = self.scheduler.manager
        if any(NULL_BLOCK in table for table in self._tables.values()):
            raise InputError("the block view shows whole tables; record an engine without sliding_window")
        shape = {
            "num_blocks": len(manager.block_pool.blocks),
            "block_size": manager.block_size,
            "null_block": NULL_BLOCK,
        }
        return self._trace("blocks", title, source, self._blocks) | shape

    def _trace(self, view: str, title: str, source: str, steps: list[list[Event]]) -> dict[str, Any]:
        return {
            "schema": "labcore-trace/1",
            "view": view,
            "title": title,
            "source": source,
            "counters": [{"name": name, "label": label, "unit": "1"} for name, label in COUNTERS.items()],
            "steps": [
                {"events": events, "counters": counters} for events, counters in zip(steps, self._counters, strict=True)
            ],
        }
