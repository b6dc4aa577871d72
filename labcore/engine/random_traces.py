"""Random lives of an engine without a model: arrivals, shared prefixes, forks, drafts, failures, cancellations.

A seed decides everything, the configuration included. Pools are tiny and the vocabulary is smaller still, so that
prefix hits, preemptions and evictions are the rule. `run_trace(seed)` is one life with every check after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from labcore.core.draft import Draft, depths
from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import StepOutput, StepPlan
from labcore.engine.check import Violation, check_empty, check_plan, check_state, check_victims
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.policies import POLICIES
from labcore.engine.scheduler import Scheduler
from labcore.engine.shadow import ShadowRunner

PROPOSERS = "none", "right", "wrong", "mixed"


@dataclass
class Trace:
    """What happened. answers: tokens of each request that ended by itself; plans: (id, start, tokens) of each row."""

    steps: int = 0
    answers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plans: list[list[tuple[str, int, int]]] = field(default_factory=list)
    preemptions: int = 0
    copies: int = 0
    cached_tokens: int = 0


def random_config(rng: Random) -> tuple[SchedulerConfig, CacheConfig]:
    """A configuration that is likely to be in trouble."""
    max_num_seqs = rng.randint(1, 8)
    longest = rng.randint(12, 40)
    block_size = rng.choice((1, 2, 3, 4, 8))
    chunked = rng.random() < 0.8
    budget = rng.randint(max_num_seqs, 24) if chunked else longest + rng.randint(0, 8)
    scheduler = SchedulerConfig(
        max_num_batched_tokens=max(budget, max_num_seqs),
        max_num_seqs=max_num_seqs,
        max_model_len=longest,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=rng.choice((0, 0, 3, 5)) if chunked else 0,
        policy=rng.choice((*POLICIES, "fcfs", "fcfs")),
        watermark=rng.choice((0.0, 0.1, 0.3)),
        num_lookahead_tokens=rng.choice((0, 0, 2)),
    )
    cache = CacheConfig(
        num_blocks=-(-longest // block_size) + rng.randint(0, 4),  # the null block included: some requests never fit
        block_size=block_size,
        enable_prefix_caching=rng.random() < 0.8,
        num_host_blocks=rng.choice((0, 0, 3, 20, 40)),
        sliding_window=rng.choice((None, None, None, 1, 3, 8)),
    )
    return scheduler, cache


def random_requests(rng: Random, count: int, vocabulary: int) -> list[Request]:
    """Requests whose prompts often begin alike; some are parallel samples of the one before, some have a salt."""
    stems = [[rng.randrange(vocabulary) for _ in range(rng.randint(1, 12))] for _ in range(3)]
    requests: list[Request] = []
    for number in range(count):
        stem = rng.choice(stems)
        prompt = stem[: rng.randint(1, len(stem))] + [rng.randrange(vocabulary) for _ in range(rng.randint(0, 4))]
        params = SamplingParams(
            max_tokens=rng.randint(1, 20), seed=number, stop_token_ids=rng.choice(([], [], [], [0]))
        )
        salt, parent = rng.choice(("", "", "", "s")), None
        if requests and rng.random() < 0.4:
            parent = requests[-1].fork_of or requests[-1]
            prompt, salt = parent.all_token_ids, parent.cache_salt
        requests.append(
            Request(
                f"r{number}",
                prompt,
                params,
                priority=rng.randint(0, 2),
                tenant=rng.choice("abc"),
                cache_salt=salt,
                fork_of=parent,
            )
        )
    return requests


class Life:
    """One engine from first request to last, with everything checked after every step."""

    def __init__(
        self,
        rng: Random,
        config: SchedulerConfig,
        cache: CacheConfig,
        vocabulary: int = 2,
        events: bool = True,
        trees: bool = False,
    ):
        self.rng, self.events, self.vocabulary, self.trees = rng, events, vocabulary, trees
        self.proposer = rng.choice(PROPOSERS)
        self.late = int(rng.random() < 0.2)  # answers arrive this many plans late, as with overlapped scheduling
        ahead = bool(self.late) and self.proposer == "none"
        config = replace(config, num_branch_tokens=4 if trees else 0, async_scheduling=ahead)
        self.scheduler = Scheduler(config, cache)
        self.runner = ShadowRunner(
            self.scheduler.manager,
            cache.num_host_blocks,
            vocabulary,
            cache.sliding_window,
            self.propose if self.proposer != "none" else None,
            lambda request: events and rng.random() < 0.005,
        )
        self.trace = Trace()
        self.pending: list[tuple[StepPlan, StepOutput]] = []

    def propose(self, request: Request, right) -> Draft:
        count, parents = self.rng.randint(0, 4), None
        if self.trees:
            parents = [self.rng.randint(max(-1, node - 4), node - 1) for node in range(2 * count)]
            best = right(2 * count)
            tokens = [best[depth] for depth in depths(parents)]
        else:
            tokens = right(count)
        if self.proposer == "wrong":
            tokens = [(token + 1) % self.vocabulary for token in tokens]
        if self.proposer == "mixed":
            tokens = [token if self.rng.random() < 0.6 else self.rng.randrange(self.vocabulary) for token in tokens]
        return Draft(tokens, parents)

    def run(self, requests: list[Request]) -> Trace:
        """Serve `requests` until none is left. Raises Violation."""
        scheduler, waiting = self.scheduler, list(reversed(requests))
        limit = 20 + sum(r.num_prompt_tokens + r.sampling_params.max_tokens for r in requests) * (len(requests) + 4)
        while waiting or scheduler.has_unfinished_requests():
            while waiting and self.rng.random() < 0.7:
                self.add(waiting.pop())
            if self.events and self.rng.random() < 0.04:
                self.cancel()
            self.step()
            if self.trace.steps > limit:
                raise Violation("S5", f"no end after {limit} steps")
        self.step()  # delivers what finished last
        check_empty(scheduler)
        return self.trace

    def add(self, request: Request) -> None:
        try:
            self.scheduler.add_request(request)
        except InputError:
            check_state(self.scheduler)

    def cancel(self) -> None:
        """A client, or a whole storm of them, goes away."""
        names = list(self.scheduler.requests)
        storm = names if self.rng.random() < 0.1 else names[-1:] if self.rng.random() < 0.3 else names[:1]
        self.scheduler.finish_requests(storm, RequestStatus.FINISHED_ABORTED)
        check_state(self.scheduler)

    def step(self) -> None:
        """One plan: checked, run, checked."""
        scheduler, rng = self.scheduler, self.rng
        before = list(scheduler.running)
        plan = scheduler.schedule()
        check_state(scheduler)
        check_plan(scheduler, plan)
        check_victims(scheduler, plan, before)
        self.record(plan)
        if self.events and rng.random() < 0.002:
            scheduler.fail_step(plan, "the forward pass raised")
        else:
            self.pending.append((plan, self.runner.execute(plan)))
        if self.events and rng.random() < 0.02:
            self.cancel()  # while plans are in flight
        while len(self.pending) > self.late:
            for request, tokens in scheduler.update_from_output(*self.pending.pop(0)):
                if not tokens:
                    raise Violation("S5", f"{request} got no token")
                if request.finish_reason in ("stop", "length"):
                    self.check_answer(request)

    def check_answer(self, request: Request) -> None:
        """E1, E2: the answer depends on the request alone; neither company nor preemption nor drafts change it."""
        answer = self.trace.answers[request.request_id] = tuple(request.output_token_ids)
        if answer != self.runner.answer(request):
            raise Violation("E1", f"{request} answered {answer} instead of {self.runner.answer(request)}")

    def record(self, plan: StepPlan) -> None:
        trace = self.trace
        trace.steps += 1
        trace.preemptions += len(plan.preempted)
        trace.copies += sum(move.kind.value == "copy" for move in plan.moves)
        trace.plans.append([(row.request.request_id, row.start, row.num_tokens) for row in plan.scheduled])
        trace.cached_tokens += sum(row.start for row in plan.scheduled if row.first_new_block == 0)


def run_trace(seed: int, trees: bool = False) -> Trace:
    """One random life; `trees`: its drafts have branches. Raises Violation, with the seed in its text, if anything is
    ever wrong."""
    rng = Random(seed)
    vocabulary = rng.choice((2, 2, 3))
    life = Life(rng, *random_config(rng), vocabulary, trees=trees)
    requests = random_requests(rng, rng.randint(2, 12), vocabulary)
    try:
        return life.run(requests)
    except Violation as violation:
        raise Violation(violation.name, f"{violation.what}; seed {seed}") from None
    except Exception as error:  # a scheduler that raises makes no progress
        raise Violation("S5", f"{type(error).__name__}: {error}; seed {seed}") from error
