"""What lab 3 gives its reader: the engine with places left open for the reader's functions, and small random lives."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from random import Random

from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import BlockMove, Move, ScheduledRequest, StepOutput, StepPlan
from labcore.engine.check import Violation, check_empty, check_plan, check_state, check_victims
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.random_traces import random_requests
from labcore.engine.scheduler import Scheduler
from labcore.engine.shadow import ShadowRunner
from labcore.kv.manager import KVCacheManager
from labcore.learn.exercises import Fault, NotAttempted


class LabScheduler(Scheduler):
    """The engine's scheduler with its two decisions left open: `step(self, budget)`, what to compute now, and
    `make_room(self, request, num_tokens)`, whom to preempt for it.

    plan: the step being planned. First come, first served; no drafts, no swapping, no admission watermark.
    """

    step: Callable[..., None]
    make_room: Callable[..., bool]

    def schedule(self) -> StepPlan:
        """Plan one step; counts it as computed."""
        self.num_steps += 1
        self.plan, self._finished = StepPlan(self.num_steps, finished=self._finished), []
        self.step(self.config.max_num_batched_tokens)
        for row in self.plan.scheduled:
            row.request.num_computed_tokens += row.num_tokens
            self.plan.num_tokens += row.num_tokens
        self.plan.moves = self.manager.take_moves()
        return self.plan

    def missing(self, request: Request) -> int:
        """Tokens of `request` that are known and not computed; of a waiting one those that no cache holds."""
        running = request.status == RequestStatus.RUNNING
        return request.num_tokens - (request.num_computed_tokens if running else self._computed(request)[1])

    def allocate(self, request: Request, num_tokens: int) -> bool:
        """Give `request` blocks for its next `num_tokens` tokens, and a row in the plan; a waiting one runs from now
        on. False, with nothing changed, if too few blocks are free. InputError for tokens that are not missing."""
        running, name = request.status == RequestStatus.RUNNING, request.request_id
        if any(row.request is request for row in self.plan.scheduled):
            raise InputError(f"{name} is in this step's plan already")
        if not 1 <= num_tokens <= self.missing(request):
            raise InputError(f"{name} has {self.missing(request)} tokens to compute, so it cannot compute {num_tokens}")
        hits, start = ((), 0) if running else self._computed(request)
        first = self.manager.allocate_slots(request, num_tokens, hits, start)
        if first is None:
            return False
        if not running:
            self.waiting.remove(request)
            insort(self.running, request, key=self.policy.key)
            request.num_cached_tokens = start if request.status == RequestStatus.WAITING else request.num_cached_tokens
            request.move_to(RequestStatus.RUNNING)
            request.num_computed_tokens, request.admitted_step = start, self.num_steps
        start, table = request.num_computed_tokens, self.manager.block_tables[name]
        wants = start + num_tokens == request.num_tokens
        self.plan.scheduled.append(ScheduledRequest(request, start, num_tokens, table, first, 0, wants))
        return True

    def release(self, victim: Request) -> None:
        """Take the blocks of a running request, and its place among the running."""
        self.manager.free(victim)
        self.running.remove(victim)
        victim.move_to(RequestStatus.PREEMPTED)
        victim.num_preemptions += 1
        self.plan.preempted.append(victim.request_id)


class LabManager(KVCacheManager):
    """The engine's block tables with `grow(pool, table, num_computed, num_new, block_size)` left open."""

    grow: Callable[..., list[tuple[int, int]] | None]

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        new_computed_blocks: Sequence[int] = (),
        num_new_computed_tokens: int = 0,
    ) -> int | None:
        """As the engine's: all of it or nothing; the first table entry that changed, or None."""
        pool, size, name = self.block_pool, self.block_size, request.request_id
        computed, table = request.num_computed_tokens + num_new_computed_tokens, self.block_tables.get(name)
        starts = table is None
        if starts:
            table = list(new_computed_blocks)
            needed = -(-(computed + num_new_tokens) // size) - len(table) + (computed % size > 0)
            if needed + sum(map(pool.is_free, table)) > pool.num_free_blocks:
                return None
            pool.touch(table)  # only now: an allocation that fails must not have taken its hits
            self.block_tables[name], self.num_cached_blocks[name] = table, computed // size
        before = list(table)
        copies = self.grow(pool, table, computed, num_new_tokens, size)
        if copies is None:
            return None
        self.moves += [BlockMove(Move.COPY, source, target) for source, target in copies]
        full = (computed + num_new_tokens) // size
        if self.enable_caching and full > self.num_cached_blocks[name]:
            self._cache_blocks(request, table, full)
        changed = (i for i, (old, new) in enumerate(zip(before, table, strict=False)) if old != new)
        return 0 if starts else next(changed, len(before))


def new_request(name: str, prompt: int | Sequence[int], answer: int = 4, **options) -> Request:
    """A request with a prompt (token ids, or so many that nobody else has) and an answer of `answer` tokens."""
    if isinstance(prompt, int):
        first = 1000 * (1 + sum(map(ord, name)))
        prompt = range(first, first + prompt)
    return Request(name, list(prompt), SamplingParams(max_tokens=answer), **options)


def new_scheduler(kind: type[Scheduler], *, budget: int, places: int, blocks: int, block_size: int) -> Scheduler:
    """A scheduler of that kind: tokens a step, running requests, blocks that can be used, tokens in each."""
    limits = SchedulerConfig(max_num_batched_tokens=budget, max_num_seqs=places, max_model_len=4096, watermark=0.0)
    return kind(limits, CacheConfig(num_blocks=blocks + 1, block_size=block_size))


def answer(scheduler: Scheduler, plan: StepPlan, token: Callable[[], int] = lambda: 7) -> None:
    """Give every row that wants a token one, as a model would."""
    sampled = {row.request.request_id: [token()] for row in plan.scheduled if row.wants_token}
    scheduler.update_from_output(plan, StepOutput(sampled))


def random_life(seed: int, kind: type[Scheduler] = Scheduler) -> Iterator[tuple[Scheduler, StepPlan]]:
    """The steps of one small random life, each before its plan is answered: shared prefixes, forks, few blocks.

    Raises Violation("S5") if the scheduler raises, or never comes to an end.
    """
    rng = Random(seed)
    block_size, places, longest = rng.choice((1, 2, 3, 4)), rng.randint(1, 5), rng.randint(8, 24)
    limits = SchedulerConfig(rng.randint(places, 12), places, longest, watermark=0.0)
    scheduler = kind(limits, CacheConfig(1 + -(-longest // block_size) + rng.randint(0, 3), block_size))
    late = random_requests(rng, rng.randint(2, 7), 2)[::-1]
    for _ in range(2000):
        while late and rng.random() < 0.7:
            try:
                scheduler.add_request(late.pop())
            except InputError:
                continue  # larger than the pool: refused, as it should be
        plan = _alive(scheduler.schedule)
        yield scheduler, plan
        _alive(answer, scheduler, plan, lambda: rng.randrange(2))
        if not late and not scheduler.has_unfinished_requests():
            return
    raise Violation("S5", "no end after 2000 steps")


def _alive(work: Callable, *args):
    """work(*args); whatever it raises is a violation, for a scheduler that raises makes no progress."""
    try:
        return work(*args)
    except (Violation, Fault, NotAttempted):
        raise
    except Exception as error:
        raise Violation("S5", f"{type(error).__name__}: {error}") from error


def watched_life(seed: int, kind: type[Scheduler] = Scheduler) -> Iterator[tuple[Scheduler, StepPlan]]:
    """`random_life`, everything checked: the state and the plan, every block that is read, and the end.

    Raises Violation; the step that shows it is yielded before.
    """
    shadow, running, scheduler = None, [], None  # running: after the step before
    for scheduler, plan in random_life(seed, kind):
        yield scheduler, plan
        check_state(scheduler)
        check_plan(scheduler, plan)
        check_victims(scheduler, plan, [request for request in running if not request.finished])
        shadow = shadow or ShadowRunner(scheduler.manager, vocabulary=2)
        shadow.execute(plan)
        running = list(scheduler.running)
    scheduler.schedule()
    check_empty(scheduler)


def told(scheduler: Scheduler, plan: StepPlan) -> str:
    """One step in words: who computes what into which blocks, what is copied, who lost everything, what is free."""
    lines = [f"step {plan.step}"]
    lines[0] += f"   preempted: {', '.join(plan.preempted)}" * bool(plan.preempted)
    lines[0] += "   copied: " * bool(plan.moves) + ", ".join(f"{source} to {to}" for _, source, to in plan.moves)
    for row in plan.scheduled:
        last, table = row.start + row.num_tokens - 1, " ".join(map(str, row.block_ids))
        places = f"position {last}" if row.num_tokens == 1 else f"positions {row.start} to {last}"
        lines.append(f"  {row.request.request_id} computes {places}; its blocks: {table}")
    pool = scheduler.manager.block_pool
    cached = [block.block_id for block in pool.blocks if block.block_hash is not None]
    free = " ".join(str(block.block_id) for block in pool.free_queue)
    lines.append(f"  free: {free or 'none'}; findable by hash: {' '.join(map(str, cached)) or 'none'}")
    return "\n".join(lines)
