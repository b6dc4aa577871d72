"""Random lives of the engine, everything checked after every step. `make soak` runs a million steps of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.sampling_params import SamplingParams
from labcore.engine.check import check_empty, check_plan, check_state
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.policies import POLICIES
from labcore.engine.random_traces import Life, random_requests, run_trace
from labcore.engine.scheduler import Scheduler
from labcore.engine.shadow import ShadowRunner

SLICE = 8.0  # seconds of random traces in `make test`, for chains and for trees
SOAK_STEPS = 1_000_000


@pytest.mark.parametrize("trees", [False, True])
def test_a_slice_of_random_traces(trees):
    """A1–A10, S1–S8, E1, E2, E4 and E6 on traces from seed 0 on, as many as fit into the slice."""
    start, seed, preemptions, copies, hits = time.monotonic(), 0, 0, 0, 0
    while time.monotonic() - start < SLICE:
        trace = run_trace(seed, trees)
        preemptions, copies, hits = preemptions + trace.preemptions, copies + trace.copies, hits + trace.cached_tokens
        seed += 1
    assert min(preemptions, copies, hits) > 0.1 * seed, "these traces hardly ever get into trouble"


@pytest.mark.soak
def test_a_million_steps(capsys):
    start, seed, steps = time.monotonic(), 10**6, 0
    while steps < SOAK_STEPS:
        steps += run_trace(seed, trees=seed % 2 == 1).steps
        seed += 1
    with capsys.disabled():
        took = time.monotonic() - start
        print(f"\n{steps} steps of {seed - 10**6} traces without a violation, {took:.0f} s")


@st.composite
def drafts(draw):
    """Chains and trees."""
    tokens = draw(st.lists(st.integers(0, 1), max_size=5))
    parents = [draw(st.integers(-1, node - 1)) for node in range(len(tokens))]
    return Draft(tokens, draw(st.sampled_from([parents, None])))


class EngineMachine(RuleBasedStateMachine):
    """The same, driven by hypothesis: slower, but it shrinks what it finds to the smallest sequence of calls."""

    @initialize(
        size=st.integers(1, 4),
        spare=st.integers(0, 3),
        seqs=st.integers(1, 4),
        budget=st.integers(0, 8),
        caching=st.booleans(),
        host=st.sampled_from([0, 3, 20]),
        policy=st.sampled_from(list(POLICIES)),
        window=st.sampled_from([None, None, 3]),
        threshold=st.sampled_from([0, 2]),
    )
    def build(self, size, spare, seqs, budget, caching, host, policy, window, threshold):
        longest = 12
        config = SchedulerConfig(
            seqs + budget, seqs, longest, policy=policy, watermark=0.0, long_prefill_token_threshold=threshold
        )
        cache = CacheConfig(1 + -(-longest // size) + spare, size, caching, host, window)
        self.scheduler = Scheduler(config, cache)
        self.draft = Draft([])
        self.runner = ShadowRunner(self.scheduler.manager, host, 2, window, lambda request, right: self.draft)
        self.requests: list[Request] = []

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=9), answer=st.integers(1, 6), salt=st.sampled_from("ab")
    )
    def add(self, prompt, answer, salt):
        self.submit(Request(f"r{len(self.requests)}", prompt, SamplingParams(max_tokens=answer), cache_salt=salt))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def fork(self, data):
        parent = data.draw(st.sampled_from(self.requests))
        name, prompt = f"r{len(self.requests)}", parent.all_token_ids[: parent.num_prompt_tokens]
        params = SamplingParams(max_tokens=4, seed=len(self.requests))
        self.submit(Request(name, prompt, params, cache_salt=parent.cache_salt, fork_of=parent))

    def submit(self, request):
        try:
            self.scheduler.add_request(request)
        except InputError:
            return
        self.requests.append(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        names = data.draw(st.lists(st.sampled_from([request.request_id for request in self.requests]), max_size=3))
        self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)

    @rule(draft=drafts(), cancelled=st.booleans(), fails=st.integers(0, 19))
    def step(self, draft, cancelled, fails):
        self.draft = draft
        plan = self.scheduler.schedule()
        check_plan(self.scheduler, plan)
        check_state(self.scheduler)
        if fails == 0:
            return self.scheduler.fail_step(plan, "the forward pass raised")
        output = self.runner.execute(plan)
        if cancelled:
            self.scheduler.finish_requests(list(self.scheduler.requests)[-1:], RequestStatus.FINISHED_ABORTED)
        for request, _ in self.scheduler.update_from_output(plan, output):
            if request.finished:
                assert tuple(request.output_token_ids) == self.runner.answer(request)

    @invariant()
    def holds(self):
        if hasattr(self, "scheduler"):
            check_state(self.scheduler)

    def teardown(self):
        if hasattr(self, "scheduler"):
            left = sum(r.num_prompt_tokens + r.sampling_params.max_tokens for r in self.requests) * 12 + 12
            while self.scheduler.has_unfinished_requests():
                self.step(draft=Draft([]), cancelled=False, fails=1)
                left -= 1
                assert left > 0, "S5: no end"
            self.scheduler.schedule()
            check_empty(self.scheduler)


EngineMachine.TestCase.settings = settings(
    max_examples=3000 if os.environ.get("LABCORE_SOAK") else 50, stateful_step_count=30
)
TestEngine = EngineMachine.TestCase


BASE = SchedulerConfig(40, 8, 40, watermark=0.0)
VARIANTS = {
    "one at a time": (SchedulerConfig(40, 1, 40), CacheConfig(100, 4)),
    "block size 1": (BASE, CacheConfig(400, 1)),
    "block size 16": (BASE, CacheConfig(100, 16)),
    "small chunks": (SchedulerConfig(8, 8, 40, long_prefill_token_threshold=2), CacheConfig(100, 4)),
    "no chunks": (SchedulerConfig(40, 8, 40, enable_chunked_prefill=False), CacheConfig(100, 4)),
    "no prefix cache": (BASE, CacheConfig(100, 4, enable_prefix_caching=False)),
    "preempted, computed again": (BASE, CacheConfig(11, 4, enable_prefix_caching=False)),
    "preempted, swapped": (BASE, CacheConfig(11, 4, num_host_blocks=40)),
    "static": (SchedulerConfig(40, 8, 40, policy="static"), CacheConfig(100, 4)),
    "sliding window": (BASE, CacheConfig(40, 4, sliding_window=5)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(8))
def test_answers_do_not_depend_on_how_they_are_scheduled(variant, seed):
    """E1, E2: drafts of all kinds are in play, too, since a seed draws its proposer."""
    base = Life(Random(seed), BASE, CacheConfig(100, 4), 3, events=False).run(random_requests(Random(seed), 10, 3))
    config, cache = VARIANTS[variant]
    trace = Life(Random(seed + 100), config, cache, 3, events=False).run(random_requests(Random(seed), 10, 3))
    assert trace.answers == base.answers and len(base.answers) == 10
    assert trace.preemptions > 0 or not variant.startswith("preempted")


def test_the_same_seed_gives_the_same_plans_in_every_process():
    """S9: no order anywhere comes from a set of strings or from an address."""
    code = "from labcore.engine.random_traces import run_trace\nprint([run_trace(s).plans for s in range(60)])"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("0", "1")
    ]
    assert outputs[0] == outputs[1] and len(hashlib.sha256(outputs[0].encode()).hexdigest()) == 64
