"""Runs without a model: the scheduler's own figures, exact, and the clock that they are read from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.dry_run import dry_run, requests_of
from labcore.learn.trace import trace

CACHE = CacheConfig(200, block_size=4, enable_prefix_caching=False)


def requests(lengths, prompt=1, arrivals=0.0):
    return requests_of(prompt, lengths, arrivals)


def config(policy="fcfs", seqs=4, **more):
    return SchedulerConfig(
        **{"max_num_batched_tokens": 64, "max_num_seqs": seqs, "max_model_len": 400, **more}, policy=policy
    )


def test_a_static_batch_takes_its_longest_answer_and_a_continuous_one_fills_the_seats():
    lengths = [2, 3, 9, 4, 5, 1, 2, 2]
    static, _ = dry_run(requests(lengths), config("static"), CACHE)
    continuous, _ = dry_run(requests(lengths), config(), CACHE)
    assert static.steps == 9 + 5
    assert continuous.steps == 9  # 28 tokens on 4 seats take 7 steps at least; the 9 tokens of one answer take 9
    assert static.backlog_rate() == 18 / 9
    assert {name: len(times) for name, times in static.times.items()} == {f"r{i}": n for i, n in enumerate(lengths)}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=24), st.sampled_from(["fcfs", "static", "prefill_first"]))
def test_every_request_gets_its_tokens_and_none_twice(lengths, policy):
    run, _ = dry_run(requests(lengths, prompt=3), config(policy), CACHE)
    assert [len(run.times[f"r{i}"]) for i in range(len(lengths))] == lengths
    assert sum(run.sampled) == sum(lengths)
    assert sum(run.tokens) == sum(lengths) + 2 * len(lengths)  # the last token of an answer is never computed
    assert run.clock == sorted(run.clock) and all(gap >= 1 for gap in run.gaps())


def test_the_clock_runs_on_seconds_and_waits_for_arrivals():
    run, _ = dry_run(
        requests([2, 1], arrivals=[0.0, 10.0]), config(), CACHE, seconds=lambda plan: 0.5 * plan.num_tokens
    )
    assert run.times == {"r0": [0.5, 1.0], "r1": [10.5]}
    assert run.ttft() == [0.5, 0.5] and run.latencies() == [1.0, 0.5] and run.gaps() == [0.5]


def test_a_recording_ends_with_an_empty_pool():
    _, recorder = dry_run(requests([3, 2], prompt=5), config(), CACHE, record=True)
    blocks = trace(recorder.blocks("dry", "a test"))
    assert blocks.steps[-1].counters["free_blocks"] == CACHE.num_blocks - 1
    assert trace(recorder.gantt("dry", "a test")).steps[0].events[0]["kind"] == "prefill"


def test_a_backlog_needs_waiting_requests():
    run, _ = dry_run(requests([3]), config(), CACHE)
    with pytest.raises(InputError, match="no request ever waited"):
        run.backlog_rate()


def test_preemptions_are_counted():
    small = CacheConfig(9, block_size=4, enable_prefix_caching=False)
    run, _ = dry_run(requests([20] * 4), config(watermark=0.0), small)
    assert run.preemptions > 0
    assert sum(run.sampled) == 80 and sum(run.tokens) > 80


def test_requests_are_as_long_as_asked_and_share_nothing():
    made = requests_of([3, 4], 5, priorities=[1, 0], tenants=["a", "b"])
    assert [(r.num_prompt_tokens, r.max_total_tokens) for r in made] == [(3, 8), (4, 9)]
    assert [(r.priority, r.tenant) for r in made] == [(1, "a"), (0, "b")]
    cached = CacheConfig(200, block_size=4)
    dry_run(made, config(), cached)
    dry_run(again := requests_of([9, 9], 1), config(), cached)
    assert [r.num_cached_tokens for r in again] == [0, 0]


def test_latencies_stand_in_the_order_of_arrival_whoever_was_served_first():
    run, _ = dry_run(requests_of(1, [5, 3, 1]), config("shortest_first", seqs=1), CACHE)
    assert list(run.times) == ["r2", "r1", "r0"]
    assert run.ttft() == [5, 2, 1] and run.latencies() == [9, 4, 1]
