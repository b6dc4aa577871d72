from __future__ import annotations

from random import Random

import pytest

from labcore.core.errors import InputError
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.random_traces import Life, random_config, random_requests
from labcore.engine.trace import TraceRecorder
from labcore.learn.player import Player
from labcore.learn.trace import replay, trace


def recorded(seed, config=None, cache=None):
    rng = Random(seed)
    life = Life(rng, *((config, cache) if config else random_config(rng)), vocabulary=2)
    recorder = TraceRecorder(life.scheduler)
    schedule, states = life.scheduler.schedule, []

    def recording():
        plan = recorder.record(schedule())
        states.append({name: list(table) for name, table in life.scheduler.manager.block_tables.items()})
        return plan

    life.scheduler.schedule = recording
    life.run(random_requests(rng, 8, 2))
    return recorder, states


@pytest.mark.parametrize("seed", range(60))
def test_what_the_player_replays_is_what_the_tables_were(seed):
    """The Player's own rules accept every event, and its tables are the manager's after every step."""
    recorder, states = recorded(seed)
    Player(recorder.gantt("Batches", f"random trace {seed}"))
    if recorder.scheduler.num_steps == 0 or any(0 in table for state in states for table in state.values()):
        return
    shown = trace(recorder.blocks("Tables", f"random trace {seed}"))
    for state, seen in zip(states, replay(shown), strict=True):
        assert {name: table for name, table in seen["tables"].items() if table} == state


def test_a_chart_of_two_requests():
    rng = Random(0)
    config, cache = SchedulerConfig(6, 2, 20, watermark=0.0), CacheConfig(20, 4)
    life = Life(rng, config, cache, events=False)
    recorder = TraceRecorder(life.scheduler)
    life.runner.propose = None
    a, b = random_requests(Random(3), 2, 2)
    for request in (a, b):
        life.scheduler.add_request(request)
    plan = recorder.record(life.scheduler.schedule())
    chart = recorder.gantt("Two", "two requests")
    assert chart["slots"] == len(plan.scheduled) and chart["step_unit"] == "step"
    assert chart["steps"][0]["events"][0] == {
        "op": "run",
        "slot": 0,
        "request": "r0",
        "kind": "prefill",
        "tokens": plan.scheduled[0].num_tokens,
    }
    assert chart["steps"][0]["counters"]["tokens"] == plan.num_tokens


def test_a_window_has_no_block_view():
    recorder, _ = recorded(1, SchedulerConfig(20, 3, 30), CacheConfig(40, 2, sliding_window=3))
    recorder._tables["r"] = [0]
    with pytest.raises(InputError, match="record an engine without sliding_window"):
        recorder.blocks("x", "y")
