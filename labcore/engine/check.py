"""Invariants of the allocator and the scheduler, checked from outside: slow, plain, independent of how they are kept.

`check_state` may be called between any two steps, `check_plan` on a plan before it runs. Each raises Violation naming
the invariant. Nothing here is needed to serve requests; tests and labs run it after every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from labcore.core.request import Request, RequestStatus
from labcore.core.step_plan import Move, ScheduledRequest, StepPlan
from labcore.engine.scheduler import Scheduler
from labcore.kv.block_pool import NULL_BLOCK


class Violation(AssertionError):
    """An invariant does not hold. name: "A1" … "S9", "E6"."""

    def __init__(self, name: str, what: str):
        super().__init__(f"{name}: {what}")
        self.name, self.what = name, what


def check_state(scheduler: Scheduler) -> None:
    """A1–A3, A5 and S2–S4, and what each request may own."""
    check_blocks(scheduler)
    check_index(scheduler)
    check_requests(scheduler)


def check_blocks(scheduler: Scheduler) -> None:
    """Every block is free or held, never both; its holders are the table entries that name it."""
    pool, host = scheduler.manager.block_pool, scheduler.host
    held = Counter(chain.from_iterable(scheduler.manager.block_tables.values()))
    del held[NULL_BLOCK]
    free = [block.block_id for block in pool.free_queue]
    if not held.keys().isdisjoint(free):
        raise Violation("A3", f"blocks {sorted(held.keys() & set(free))} are in a table and free")
    if sorted([NULL_BLOCK, *free, *held]) != list(range(len(pool.blocks))) or len(free) != pool.num_free_blocks:
        raise Violation(
            "A1", f"free queue {free}, counted {pool.num_free_blocks}, and tables {dict(held)}: not all, once"
        )
    counted = {block.block_id: block.ref_cnt for block in pool.blocks if block.ref_cnt}
    if counted != held:
        raise Violation("A2", f"reference counts {counted}, table entries {dict(held)}")
    kept = [block for _, blocks in host.saved.values() for block in blocks if block is not None]
    if sorted(kept + host.free_blocks) != list(range(host.num_blocks)):
        raise Violation("A1", f"host blocks {kept} kept and {host.free_blocks} free: not all, once")


def check_index(scheduler: Scheduler) -> None:
    """The hash index and the hashes of the blocks say the same; free blocks without a hash come first."""
    pool = scheduler.manager.block_pool
    hashed = {(block.block_hash, block.block_id) for block in pool.blocks if block.block_hash is not None}
    indexed = {(block_hash, number) for block_hash, numbers in pool.cached.items() for number in numbers}
    if hashed != indexed:
        raise Violation("A4", f"blocks {sorted(n for _, n in hashed ^ indexed)} and the index disagree")
    kinds = [block.block_hash is not None for block in pool.free_queue]
    if kinds != sorted(kinds):
        raise Violation("A8", "a cached block would be reused before one that holds nothing")


def check_requests(scheduler: Scheduler) -> None:
    """Every unfinished request is in exactly one place, and owns what that place allows."""
    manager, running = scheduler.manager, scheduler.running
    idle = scheduler.waiting + [child for request in scheduler.requests.values() for child in request.forks]
    if sorted(r.request_id for r in idle + running) != sorted(scheduler.requests):
        raise Violation("S2", "a request is lost, or in two places")
    if len(running) > scheduler.config.max_num_seqs:
        raise Violation("S1", f"{len(running)} requests run; max_num_seqs={scheduler.config.max_num_seqs}")
    names = {request.request_id for request in running}
    if manager.block_tables.keys() != names or scheduler.host.saved.keys() & names:
        raise Violation("A10", "blocks belong to a request that does not run, or host blocks to one that does")
    for request in running:
        if request.status is not RequestStatus.RUNNING:
            raise Violation("S2", f"{request} is among the running")
        if len(manager.block_tables[request.request_id]) * manager.block_size < request.num_computed_tokens:
            raise Violation("S4", f"{request} has {len(manager.block_tables[request.request_id])} blocks")
        if manager.num_cached_blocks[request.request_id] * manager.block_size > request.num_tokens:
            raise Violation("A5", f"{request} gave blocks to the cache whose tokens are not certain")
    for request in idle:
        if request.status not in (RequestStatus.WAITING, RequestStatus.PREEMPTED):
            raise Violation("S2", f"{request} is waiting")
        if request.num_computed_tokens or request.spec_token_ids:
            raise Violation("S3", f"{request} waits and has computed tokens or drafts")


def check_plan(scheduler: Scheduler, plan: StepPlan) -> None:
    """A1, A6, A7, S1, S3, S4, S5 and S7 of a plan that has not run yet."""
    if any(move.kind != Move.SWAP_OUT and move.target == NULL_BLOCK for move in plan.moves):
        raise Violation("A1", "a move writes to the null block, which stands for no token and belongs to nobody")
    if plan.num_tokens != sum(row.num_tokens for row in plan.scheduled):
        raise Violation("S1", f"the plan counts {plan.num_tokens} tokens, its rows do not")
    if plan.num_tokens > scheduler.config.max_num_batched_tokens:
        raise Violation("S1", f"{plan.num_tokens} tokens; max_num_batched_tokens allows fewer")
    todo = [request for request in scheduler.running if request.num_tokens_with_spec > request.num_computed_tokens]
    if not plan.scheduled and (todo or (scheduler.requests and not scheduler.running)):
        raise Violation("S5", "an empty plan, though requests are unfinished")
    planned = {row.request.request_id for row in plan.scheduled}
    if len(planned) != len(plan.scheduled):
        raise Violation("S1", "a request is planned twice")
    for row in plan.scheduled:
        check_row(scheduler, row)
    check_sharing(scheduler, plan)
    idle = [request for request in todo if request.request_id not in planned]
    joined = any(row.request.admitted_step == scheduler.num_steps for row in plan.scheduled)
    prompts = joined or any(row.num_tokens > row.num_draft_tokens + 1 or not row.wants_token for row in plan.scheduled)
    if idle and (scheduler.policy.mixes or not prompts):
        raise Violation("S7", f"{idle} run and get no token")


def check_row(scheduler: Scheduler, row: ScheduledRequest) -> None:
    """A row computes at least one token that is there, has room for it, and says rightly whether it gets the next."""
    request, end = row.request, row.start + row.num_tokens
    before = request.num_pending_tokens - row.wants_token if scheduler.config.async_scheduling else 0
    known = request.num_tokens + before
    if row.block_ids is not scheduler.manager.block_tables.get(request.request_id):
        raise Violation("S2", f"{request} is planned and has lost its blocks")
    if row.num_tokens < 1 or row.start >= known:
        raise Violation("A6", f"{request} has nothing to compute")
    if end > request.num_tokens_with_spec + before or row.wants_token != (end >= known):
        raise Violation("S1", f"{request} computes up to {end}, wants_token={row.wants_token}")
    if end != request.num_computed_tokens:
        raise Violation("S3", f"{request} computes up to {end}")
    slots = min(end + scheduler.config.num_lookahead_tokens, request.max_total_tokens)
    if len(row.block_ids) * scheduler.manager.block_size < slots:
        raise Violation("S4", f"{request} has {len(row.block_ids)} blocks for {slots} slots")


def check_sharing(scheduler: Scheduler, plan: StepPlan) -> None:
    """A block that is written has one holder, apart from requests that join in this step because it fills it."""
    pool, size = scheduler.manager.block_pool, scheduler.manager.block_size
    for row in plan.scheduled:
        for index in range(row.start // size, -(-(row.start + row.num_tokens) // size)):
            block = row.block_ids[index]
            if pool.blocks[block].ref_cnt == 1:
                continue
            joined = [
                other
                for other in plan.scheduled
                if other is not row and block in other.block_ids and other.start >= (index + 1) * size
                if other.request.admitted_step == scheduler.num_steps
            ]
            if pool.blocks[block].ref_cnt != len(joined) + 1:
                raise Violation("A7", f"{row.request} writes block {block}, which others hold")


def check_victims(scheduler: Scheduler, plan: StepPlan, before: Sequence[Request]) -> None:
    """S6, given who ran `before` the plan: under FCFS the youngest go first, and stand before all that never ran."""
    if scheduler.config.policy != "fcfs" or not plan.preempted:
        return
    youngest = [r.request_id for r in sorted(before, key=lambda r: -r.order)][: len(plan.preempted)]
    if plan.preempted != youngest:
        raise Violation("S6", f"{plan.preempted} were preempted, {youngest} are the youngest")
    started = [r.num_preemptions > 0 for r in scheduler.waiting if r.fork_of is None]
    if started != sorted(started, reverse=True):
        raise Violation("S6", "a preempted request waits behind one that never ran")


def check_empty(scheduler: Scheduler) -> None:
    """A10: with all requests gone the pools are full and nothing remembers a request."""
    pool, manager, host = scheduler.manager.block_pool, scheduler.manager, scheduler.host
    left = [*scheduler.requests, *manager.block_tables, *manager.num_cached_blocks, *manager.moves, *host.saved]
    if left or scheduler.waiting or scheduler.running:
        raise Violation("A10", f"{left} remain")
    if pool.num_free_blocks != pool.num_usable_blocks or len(host.free_blocks) != host.num_blocks:
        raise Violation("A10", "blocks are missing")
