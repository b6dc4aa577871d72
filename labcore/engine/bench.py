"""`labcore bench` suite of the engine's control half: what scheduling costs, how fast random traces check it, and what
reserving KV memory wastes.

No model runs here. On a small model and a fast GPU a step lasts less than a millisecond, and the scheduler is in it.
"""

from __future__ import annotations

import time

import numpy as np

from labcore.bench.record import Row, RunBuilder
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import StepOutput
from labcore.engine.check import check_state
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.random_traces import run_trace
from labcore.engine.scheduler import Scheduler
from labcore.facts.workloads import workload
from labcore.formulas import formula
from labcore.kv.waste import stored_slots, utilization

RUNNING, PROMPT, ROUNDS, STEPS = 256, 100, 9, 32
TRACES = 400  # a round
WORKLOADS = "sharegpt-300", "azure-2023-conv", "azure-2023-code"
REQUESTS, BLOCK = 20_000, 16


def suite(run: RunBuilder) -> None:
    """Seconds a scheduled row, seconds a random trace, and a row of waste for each trace of real traffic."""
    scheduler_row(run)
    traces_row(run)
    for id in WORKLOADS:
        waste_row(run, id)


class Decoding:
    """`RUNNING` requests in the middle of their answers: one token each a step, and a block every 16 steps."""

    def __init__(self) -> None:
        blocks = 1 + RUNNING * -(-(PROMPT + (ROUNDS + 1) * STEPS + 2) // 16)
        config = SchedulerConfig(max_num_batched_tokens=RUNNING * PROMPT, max_num_seqs=RUNNING)
        self.scheduler = Scheduler(config, CacheConfig(blocks))
        params = SamplingParams(max_tokens=(ROUNDS + 2) * STEPS)
        for number in range(RUNNING):
            self.scheduler.add_request(Request(str(number), [number] * PROMPT, params))
        self.rows = 0
        self.steps(STEPS)  # prompts, and the first of everything

    def steps(self, count: int) -> float:
        """Make and answer `count` plans; the seconds that the scheduler took of it."""
        took = 0.0
        for _ in range(count):
            start = time.perf_counter()
            plan = self.scheduler.schedule()
            took += time.perf_counter() - start
            output = StepOutput({row.request.request_id: [7] for row in plan.scheduled})
            start = time.perf_counter()
            self.scheduler.update_from_output(plan, output)
            took += time.perf_counter() - start
            self.rows += len(plan.scheduled)
        return took


def scheduler_row(run: RunBuilder) -> None:
    """schedule() and update_from_output() together, prefix caching on."""
    decoding = Decoding()
    decoding.rows = 0
    samples = [decoding.steps(STEPS) / (RUNNING * STEPS) for _ in range(ROUNDS)]
    check_state(decoding.scheduler)
    whole = decoding.rows == RUNNING * STEPS * ROUNDS
    run.add(
        Row(
            key="cpu.scheduler_us_per_row",
            what=f"planning and answering a step of {RUNNING} running requests, for each of them",
            ours=[samples],
            unit="s",
            kind="value",
            correct={
                "pass": whole,
                "how": "every running request is in every plan, and the invariants hold afterwards",
            },
            target={"must": 5e-6, "target": 3e-6},
            threads=1,
            shape={"running": RUNNING, "block_size": 16},
            method=f"{STEPS} steps a sample, one after the other",
        )
    )


def traces_row(run: RunBuilder) -> None:
    """Random traces with a shadow KV: what `make test` runs for some seconds and `make soak` for a million steps."""
    samples, steps, seed = [], 0, 0
    for _ in range(5):
        start = time.perf_counter()
        steps += sum(run_trace(seed + n).steps for n in range(TRACES))
        samples.append((time.perf_counter() - start) / TRACES)
        seed += TRACES
    run.add(
        Row(
            key="cpu.shadow_trace",
            what="one random trace, every invariant checked after every step",
            ours=[samples],
            unit="s",
            kind="value",
            correct={"pass": steps > seed, "how": f"{steps} steps without a violation, which would have ended the run"},
            target={"must": 60 / 5_000, "target": 60 / 10_000},
            threads=1,
            shape={"traces": seed, "steps": steps},
            method=f"{TRACES} traces a sample, one after the other",
        )
    )


def waste_row(run: RunBuilder, id: str) -> None:
    """Share of the reserved slots that hold no token, over the lives of requests with a trace's lengths.

    Prompts and answers are drawn apart, as the trace's facts keep them.
    """
    trace = workload(id)
    prompts, outputs = trace.prompt.sample(REQUESTS, seed=1), np.maximum(trace.output.sample(REQUESTS, seed=2), 1)
    longest = int((prompts + outputs).max())
    sizes = {"max": longest, "power_of_two": 1, "oracle": 1, "paged": BLOCK}
    waste = {scheme: 1 - utilization(scheme, prompts, outputs, size) for scheme, size in sizes.items()}
    live = stored_slots(prompts, outputs) / int(outputs.sum())  # tokens of a request in an average step
    predicted = 1 - float(formula["kv.paging.utilization"](n=live, S=BLOCK))
    run.add(
        Row(
            key=f"kv.waste.{id}",
            what=f"reserved KV slots without a token, blocks of {BLOCK}: {trace.name}",
            ours=[[waste["paged"]]],
            unit="1",
            kind="value",
            correct={
                "pass": abs(waste["paged"] - predicted) < 5e-4 and sorted(waste, key=waste.get)[0] == "paged",
                "how": "within 0.05 % of all slots of the formula's, and less than with every other scheme",
            },
            predicted=predicted,
            predicted_by="kv.paging.utilization",
            shape={"requests": REQUESTS, "block_size": BLOCK, "longest": longest},
            config={scheme: round(share, 4) for scheme, share in waste.items()},
            method="closed sums over every step of every request",
        )
    )
