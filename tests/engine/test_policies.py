"""What each policy changes, on the same few requests; and that none of them starves anybody."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import StepOutput
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.policies import POLICIES
from labcore.engine.random_traces import Life, random_requests
from labcore.engine.scheduler import Scheduler


def scheduler_for(policy, num_blocks=100, **config):
    config = {"max_num_batched_tokens": 12, "max_num_seqs": 4, "max_model_len": 64, "watermark": 0.0} | config
    return Scheduler(SchedulerConfig(policy=policy, **config), CacheConfig(num_blocks, 4, enable_prefix_caching=False))


def request(name, prompt, answer, **named):
    return Request(name, [1] * prompt, SamplingParams(max_tokens=answer), **named)


def step(scheduler):
    """One step; its rows as {id: tokens}."""
    plan = scheduler.schedule()
    scheduler.update_from_output(plan, StepOutput({r.request.request_id: [1] for r in plan.scheduled if r.wants_token}))
    return {row.request.request_id: row.num_tokens for row in plan.scheduled}


def finishing_order(scheduler):
    order, unfinished = [], list(scheduler.requests)
    while unfinished:
        step(scheduler)
        order += [name for name in unfinished if name not in scheduler.requests]
        unfinished = [name for name in unfinished if name in scheduler.requests]
    return order


def test_fcfs_serves_in_order_of_arrival():
    scheduler = scheduler_for("fcfs", max_num_seqs=1)
    for name, answer in [("a", 5), ("b", 1), ("c", 3)]:
        scheduler.add_request(request(name, 4, answer, priority=-ord(name)))
    assert finishing_order(scheduler) == ["a", "b", "c"]


def test_priority_overtakes_and_its_victim_is_the_least_important():
    scheduler = scheduler_for("priority", max_num_seqs=1)
    for name, priority, arrival in [("low", 5, 0.0), ("late", 1, 3.0), ("early", 1, 2.0), ("high", 0, 4.0)]:
        scheduler.add_request(request(name, 4, 2, priority=priority, arrival=arrival))
    assert finishing_order(scheduler) == ["high", "early", "late", "low"]
    scheduler = scheduler_for("priority", num_blocks=5)
    scheduler.add_request(request("low", 4, 8, priority=5))
    step(scheduler)
    scheduler.add_request(request("high", 7, 8, priority=0))
    step(scheduler)  # low has 2 blocks and high 2: the pool is full
    assert set(step(scheduler)) == {"high", "low"}
    assert set(step(scheduler)) == {"high"} and scheduler.waiting[0].request_id == "low"


def test_shortest_first_halves_the_mean_time_to_finish():
    def mean_finish(policy):
        scheduler, steps, times = scheduler_for(policy, max_num_seqs=1), 0, []
        for name, answer in [("long", 30), ("short", 2), ("shorter", 1)]:
            scheduler.add_request(request(name, 4, answer))
        while scheduler.requests:
            before = len(scheduler.requests)
            step(scheduler)
            steps += 1
            times += [steps] * (before - len(scheduler.requests))
        return sum(times) / len(times)

    assert mean_finish("fcfs") == (30 + 32 + 33) / 3
    assert mean_finish("shortest_first") == (1 + 3 + 33) / 3


def test_prefill_first_never_mixes_and_lets_answers_wait():
    scheduler = scheduler_for("prefill_first")
    scheduler.add_request(request("a", 4, 6))
    assert step(scheduler) == {"a": 4} and step(scheduler) == {"a": 1}
    scheduler.add_request(request("b", 20, 6))
    assert step(scheduler) == {"b": 12} and step(scheduler) == {"b": 8}
    assert step(scheduler) == {"a": 1, "b": 1}
    mixed = scheduler_for("fcfs")
    mixed.add_request(request("a", 4, 6))
    step(mixed)
    mixed.add_request(request("b", 20, 6))
    assert step(mixed) == {"a": 1, "b": 11}


def test_prefill_first_gives_a_prompt_all_its_blocks_on_admission():
    scheduler = scheduler_for("prefill_first")
    scheduler.add_request(request("a", 30, 2))
    plan = scheduler.schedule()
    assert plan.num_tokens == 12 and len(plan.scheduled[0].block_ids) == 8


def test_decode_first_serves_answers_before_an_older_prompt():
    scheduler = scheduler_for("decode_first", long_prefill_token_threshold=6)
    scheduler.add_request(request("oldest", 3, 9))
    scheduler.add_request(request("prompt", 30, 2))
    scheduler.add_request(request("answer", 3, 6))
    assert step(scheduler) == {"oldest": 3, "prompt": 6, "answer": 3}
    assert list(step(scheduler)) == ["oldest", "answer", "prompt"]


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"shortest_first", "fair"}))  # who comes later may be first
def test_who_came_first_is_served_while_others_never_stop_coming(policy):
    scheduler = scheduler_for(policy, num_blocks=17, max_num_batched_tokens=8, long_prefill_token_threshold=2)
    scheduler.add_request(request("first", 40, 4))
    for number in range(150):
        if len(scheduler.requests) < 4:
            scheduler.add_request(request(f"later {number}", 1, 22))
        step(scheduler)
    assert "first" not in scheduler.requests


def test_a_static_batch_admits_nobody_until_its_last_request_has_finished():
    scheduler = scheduler_for("static", max_num_seqs=2)
    for name, answer in [("a", 1), ("b", 4), ("c", 1)]:
        scheduler.add_request(request(name, 4, answer))
    seen = [sorted(step(scheduler)) for _ in range(5)]
    assert seen == [["a", "b"], ["b"], ["b"], ["b"], ["c"]]


def test_fair_share_serves_who_has_had_least_and_absence_saves_nothing_up():
    scheduler = scheduler_for("fair", max_num_seqs=1)
    for number in range(6):
        scheduler.add_request(request(f"a{number}", 8, 2, tenant="a"))
    for number in range(2):
        scheduler.add_request(request(f"b{number}", 8, 2, tenant="b"))
    assert finishing_order(scheduler) == ["a0", "b0", "a1", "b1", "a2", "a3", "a4", "a5"]
    scheduler.add_request(request("a6", 8, 2, tenant="a"))
    scheduler.add_request(request("new", 8, 2, tenant="c"))
    policy = scheduler.policy
    assert policy.served["c"] == policy.served["a"] > policy.served["b"]


@pytest.mark.parametrize("first", ["old", "new"])
def test_fair_share_saves_nothing_up_over_a_pause_of_everybody(first):
    scheduler = scheduler_for("fair", max_num_seqs=1)
    for number in range(5):
        scheduler.add_request(request(f"before {number}", 8, 2, tenant="old"))
    finishing_order(scheduler)
    second = {"old": "new", "new": "old"}[first]
    for number in range(3):
        for tenant in (first, second):
            scheduler.add_request(request(f"{tenant} {number}", 8, 2, tenant=tenant))
    assert [name.split()[0] for name in finishing_order(scheduler)] == [first, second] * 3


def test_fair_share_charges_two_more_for_a_sampled_token():
    scheduler = scheduler_for("fair")
    scheduler.add_request(request("a", 20, 3, tenant="t"))
    assert [step(scheduler) and scheduler.policy.served["t"] for _ in range(3)] == [12, 12 + 8 + 2, 12 + 8 + 2 + 3]


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_every_policy_serves_everybody_in_a_pool_that_is_far_too_small(policy, seed):
    rng = Random(seed)
    size = rng.choice((1, 2, 4))
    config = SchedulerConfig(rng.randint(6, 20), 6, 40, policy=policy, watermark=0.0)
    life = Life(rng, config, CacheConfig(1 + 40 // size + rng.randint(0, 3), size), events=False)
    requests = random_requests(rng, 8, 2)
    assert len(life.run(requests).answers) == 8
