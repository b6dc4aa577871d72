"""Lab 3, sentences about engines, each to be refuted by a workload; two of them cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real

from labcore.core.errors import InputError
from labcore.core.step_plan import StepPlan
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.dry_run import DryRun, dry_run, requests_of
from labcore.learn.exercises import Attempt, Exercise, Fault
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab03_references as ref

LAB = "lab03"
Workload = list[tuple[float, int, int]]  # of each request: arrival (s), prompt (tokens), answer (tokens)
LIMITS = SchedulerConfig(max_num_batched_tokens=32, max_num_seqs=8, max_model_len=96, watermark=0.0)
CACHE = CacheConfig(num_blocks=25, block_size=4)  # 24 can be used: 96 tokens
MOST_REQUESTS, LATEST = 16, 1_000_000  # s; the clock is a float


def step_seconds(plan: StepPlan) -> float:
    """What a step takes: 1 s to read the weights, and 0.1 s for each token computed."""
    return 1 + 0.1 * plan.num_tokens


@dataclass
class Served:
    """A workload after it was served. began: when each step did; sampled: request -> the steps that gave it a token;
    planned: request -> the steps it was in; empty: reserved slots without a token after each step; preempted: who
    ever was."""

    run: DryRun
    began: list[float]
    sampled: dict[str, list[int]]
    planned: dict[str, list[int]]
    empty: list[int]
    preempted: set[str]


def serve(workload: Workload, **changes) -> Served:
    """The engine's own scheduler, with `changes` to LIMITS, on a virtual clock. InputError if it cannot serve it."""
    longest = max(prompt + answer for _, prompt, answer in workload)
    if longest > LIMITS.max_model_len:
        raise InputError(f"a request may grow to {longest} tokens, and this engine ends all at {LIMITS.max_model_len}")
    served, took = Served(DryRun(), [], {}, {}, [], set()), []

    def seconds(plan: StepPlan) -> float:
        slots = (len(row.block_ids) * CACHE.block_size - row.start - row.num_tokens for row in plan.scheduled)
        for row in plan.scheduled:
            served.planned.setdefault(row.request.request_id, []).append(len(served.empty))
            if row.wants_token:
                served.sampled.setdefault(row.request.request_id, []).append(len(served.empty))
        served.empty.append(sum(slots))
        served.preempted.update(plan.preempted)
        took.append(step_seconds(plan))
        return took[-1]

    arrivals, prompts, answers = zip(*workload, strict=True)
    requests = requests_of(prompts, answers, arrivals)
    served.run, _ = dry_run(requests, replace(LIMITS, **changes), CACHE, seconds)
    served.began = [end - lasted for end, lasted in zip(served.run.clock, took, strict=True)]
    return served


def late_starts(workload: Workload) -> float:
    """Requests that were not in the first step that began after they had arrived."""
    served, late = serve(workload), 0
    for name, arrival in served.run.arrivals.items():
        first = next(step for step, began in enumerate(served.began) if began > arrival - 1e-9)
        late += served.planned[name][0] > first
    return late


def silent_steps(workload: Workload, forgiven: bool) -> float:
    """Steps in the middle of an answer that gave it no token; `forgiven` is who was ever preempted."""
    served = serve(workload)
    return sum(
        steps[-1] - steps[0] + 1 - len(steps)
        for name, steps in served.sampled.items()
        if not (forgiven and name in served.preempted)
    )


def longest_gap(workload: Workload, budget: int) -> float:
    """Seconds between two tokens of one answer, at worst."""
    return max(serve(workload, max_num_batched_tokens=budget).run.gaps(), default=0.0)


def computed_again(workload: Workload) -> float:
    """Tokens computed, beyond once each."""
    return sum(serve(workload).run.tokens) - sum(prompt + answer - 1 for _, prompt, answer in workload)


def missing_tokens(workload: Workload) -> float:
    """Tokens that requests asked for and did not get."""
    return sum(answer for _, _, answer in workload) - sum(map(len, serve(workload).run.times.values()))


def lost_to_static(workload: Workload) -> float:
    """Seconds that static batching takes less than continuous batching; negative if it takes more."""
    return serve(workload).run.clock[-1] - serve(workload, policy="static").run.clock[-1]


@dataclass(frozen=True)
class Claim:
    """A sentence about every workload. excess: what must not be positive if it holds; why: how it fails, if it does."""

    letter: str
    text: str
    excess: Callable[[Workload], float]
    why: str = ""

    def __call__(self, workload: Workload) -> bool:
        """Whether it holds on this workload."""
        return self.excess(workload) < 1e-9

    def __repr__(self) -> str:
        return f"claim {self.letter}"

    def __deepcopy__(self, memo: dict) -> Claim:
        return self


CLAIMS = (
    Claim(
        "A",
        "Paging leaves no reserved slot empty.",
        lambda w: max(serve(w).empty),
        "the last block of a request is rarely full",
    ),
    Claim(
        "B",
        "A new request is computed in the first step that begins after its arrival.",
        late_starts,
        "it needs a place among the running, blocks, and budget",
    ),
    Claim(
        "C",
        "Once an answer has begun, every step adds a token to it until it ends.",
        lambda w: silent_steps(w, False),
        "a request that loses its blocks falls silent",
    ),
    Claim(
        "D",
        "Once an answer has begun, every step adds a token to it until it ends, unless its request is preempted.",
        lambda w: silent_steps(w, True),
    ),
    Claim(
        "E",
        "Continuous batching is never done later than static batching.",
        lost_to_static,
        "it admits whoever fits now; when the answers outgrow the cache, what is preempted is computed again",
    ),
    Claim(
        "F",
        "A request that fits into the cache alone is never preempted.",
        lambda w: len(serve(w).preempted),
        "it is not alone, and answers grow after they were admitted",
    ),
    Claim("G", "Every request that is accepted gets its whole answer, whoever else arrives.", missing_tokens),
    Claim(
        "H",
        "A budget of 32 tokens a step never makes anybody wait longer for the next token than one of 8.",
        lambda w: longest_gap(w, 32) - longest_gap(w, 8),
        "a long prompt in the same step makes the step long for every answer in it",
    ),
    Claim(
        "I",
        "With prefix caching, a preempted request computes nothing twice: its blocks are still in the cache.",
        computed_again,
        "they are the first to be reused, for they were taken because blocks were short",
    ),
)


def refutes(claim: Claim) -> Callable[[Attempt], None]:
    """A stage: any workload on which the claim fails counts; None is right only for a claim that is true."""

    def stage(attempt: Attempt) -> None:
        got, call = attempt(claim), attempt.call((claim,))
        if got is None:
            if claim.why:
                raise Fault(f"{call} gave None, but it can be refuted: {claim.why}. Which workload shows that?")
            return
        workload = _workload(got, call)
        try:
            excess = claim.excess(workload)
        except InputError as error:
            raise Fault(f"{call}: this engine cannot serve {describe(workload)}: {error}") from None
        if excess < 1e-9:
            hint = claim.why or "nothing refutes a claim that is true; the answer is None"
            raise Fault(f"{call} gave {describe(workload)}, and there the claim holds: {hint}")

    return stage


def _workload(got: object, call: str) -> Workload:
    """What the reader handed in. Raises Fault unless it is a workload of a size to be served."""
    rows = got if isinstance(got, list) else None
    if not rows or not all(isinstance(row, tuple | list) and len(row) == 3 for row in rows):
        raise Fault(f"{call} gave {describe(got)}, expected a list of (arrival, prompt, answer), or None")
    if len(rows) > MOST_REQUESTS:
        raise Fault(f"{call} gave {len(rows)} requests; {MOST_REQUESTS} are enough to refute any of these")
    for arrival, prompt, answer in rows:
        whole = isinstance(prompt, Integral) and isinstance(answer, Integral)
        if not whole or not isinstance(arrival, Real) or not 0 <= arrival <= LATEST or prompt < 1 or answer < 1:
            raise Fault(
                f"{call}: ({arrival}, {prompt}, {answer}) needs an arrival of 0 to {LATEST:,} s and whole tokens ≥ 1"
            )
    return [(float(arrival), int(prompt), int(answer)) for arrival, prompt, answer in rows]


EXERCISES = (
    Exercise(
        id="paging.refute",
        lab=LAB,
        title="Refute a sentence with one workload",
        asked="Continuous batching with paged attention never wastes memory and never waits. True?",
        spec="A `claim` is a sentence about one small engine: 24 blocks of 4 tokens, 32 tokens and 8 requests a step, "
        "prefix caching on, first come, first served; a step takes 1 s and 0.1 s for each token computed. Write "
        "`refute(claim)`: return a workload on which it fails, a **list of (arrival in seconds, prompt tokens, answer "
        "tokens)** of at most 16 requests of at most 96 tokens each, or `None` if the claim is true. "
        "`claim(workload)` serves the workload and says whether the claim holds on it; `claim.text` is the sentence. "
        "Any counterexample counts.",
        reference=ref.refute,
        stages=tuple(map(refutes, CLAIMS)),
        hints=(
            "Each false sentence is true of the workload its author had in mind. Ask what that was: one request, equal "
            "lengths, plenty of blocks, short prompts.",
            "Keep a small gallery, one workload for each way to be in trouble: alone; all alike; more than there are "
            "places; answers that outgrow the cache; a long prompt that meets a running answer. Return the first on "
            "which claim(workload) is False.",
            "`GALLERY = ([(0, 5, 1)], [(0, 4, 30)] * 6)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        seconds=60.0,
    ),
)
