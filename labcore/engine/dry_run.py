"""Serving without a model: the scheduler plans, every row that wants a token gets one, a virtual clock runs.

What is left is scheduling itself, and it is exact: the same requests give the same steps on every machine. With
`seconds` a step takes what a cost model says; without it a step is the unit of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import StepOutput, StepPlan
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.scheduler import Scheduler
from labcore.engine.trace import TraceRecorder

TOKEN = 1  # what the missing model always says


@dataclass
class DryRun:
    """What happened. One entry a step: clock, its end; tokens, computed in it; rows, requests in it; sampled, answer
    tokens that came of it; waiting, requests that were not in it; free_blocks. One entry a request: arrivals; times,
    when it got each of its tokens. preemptions: all of them.
    """

    clock: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    free_blocks: list[int] = field(default_factory=list)
    arrivals: dict[str, float] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    preemptions: int = 0

    @property
    def steps(self) -> int:
        return len(self.clock)

    def backlog_rate(self) -> float:
        """Answer tokens a step while requests were waiting: the rate of a service that always has more to do.

        Raises InputError if nothing ever waited.
        """
        busy = [sampled for sampled, waiting in zip(self.sampled, self.waiting, strict=True) if waiting]
        if not busy:
            raise InputError("no request ever waited; a rate under a backlog needs more requests than max_num_seqs")
        return sum(busy) / len(busy)

    def ttft(self) -> list[float]:
        """From arrival to first token, one a request, in the order of arrival."""
        return [self.times[name][0] - arrival for name, arrival in self.arrivals.items()]

    def latencies(self) -> list[float]:
        """From arrival to last token, one a request, in the order of arrival."""
        return [self.times[name][-1] - arrival for name, arrival in self.arrivals.items()]

    def gaps(self) -> list[float]:
        """Between consecutive tokens of a request, all requests together: the inter-token latencies."""
        return [b - a for times in self.times.values() for a, b in pairwise(times)]


def requests_of(
    prompts: ArrayLike,
    outputs: ArrayLike,
    arrivals: ArrayLike = 0.0,
    priorities: ArrayLike = 0,
    tenants: Sequence[str] = (),
) -> list[Request]:
    """Requests "r0", "r1", … of these lengths in tokens; one value stands for all. Their prompts share no prefix."""
    columns = np.broadcast_arrays(prompts, outputs, arrivals, priorities)
    return [
        Request(
            f"r{i}",
            [TOKEN + 1 + i] * int(prompt),
            SamplingParams(max_tokens=int(output)),
            arrival=float(arrival),
            priority=int(priority),
            tenant=tenants[i] if tenants else "",
        )
        for i, (prompt, output, arrival, priority) in enumerate(zip(*map(np.atleast_1d, columns), strict=True))
    ]


def dry_run(
    requests: Iterable[Request],
    config: SchedulerConfig,
    cache: CacheConfig,
    seconds: Callable[[StepPlan], float] = lambda plan: 1.0,
    record: bool = False,
) -> tuple[DryRun, TraceRecorder | None]:
    """Serve `requests`, each of which joins the queue at its `arrival`, to their ends.

    record: also follow the scheduler with a TraceRecorder, for the Player. Raises InputError for a request that could
    never be served, and when a step without work leaves requests behind.
    """
    scheduler, run = Scheduler(config, cache), DryRun()
    recorder = TraceRecorder(scheduler) if record else None
    late = deque(sorted(requests, key=lambda request: request.arrival))
    now = 0.0
    while late or scheduler.has_unfinished_requests():
        if not scheduler.has_unfinished_requests():
            now = max(now, late[0].arrival)
        while late and late[0].arrival <= now:
            request = late.popleft()
            run.arrivals[request.request_id] = request.arrival
            scheduler.add_request(request)
        plan = scheduler.schedule()
        if recorder is not None:
            recorder.record(plan)
        if not plan.scheduled:
            raise InputError(f"step {plan.step} has no work, and {len(scheduler.requests)} requests are unfinished")
        now += seconds(plan)
        _answer(scheduler, plan, run, now)
    if recorder is not None:
        recorder.record(scheduler.schedule())  # what the last requests free
    return run, recorder


def _answer(scheduler: Scheduler, plan: StepPlan, run: DryRun, now: float) -> None:
    """Give every row that wants one its token at time `now`, and take the step down."""
    wanted = [row.request.request_id for row in plan.scheduled if row.wants_token]
    for name in wanted:
        run.times.setdefault(name, []).append(now)
    run.clock.append(now)
    run.tokens.append(plan.num_tokens)
    run.rows.append(len(plan.scheduled))
    run.sampled.append(len(wanted))
    run.waiting.append(len(scheduler.waiting))
    run.free_blocks.append(scheduler.manager.block_pool.num_free_blocks)
    run.preemptions += len(plan.preempted)
    scheduler.update_from_output(plan, StepOutput({name: [TOKEN] for name in wanted}))
