"""Invariants of the allocator and the scheduler, checked from outside: slow, plain, independent of how they are kept.

`check_state` may be called between any two steps, `check_plan` on a plan before it runs. Each raises Violation naming
the invariant. Nothing here is needed to serve requests; tests and labs run it after every step.
"""

from __future__ import annotations

from collections import Counter

from labcore.core.request import RequestStatus
from labcore.core.step_plan import ScheduledRequest, StepPlan
from labcore.engine.scheduler import Scheduler
from labcore.kv.block_pool import NULL_BLOCK


class Violation(AssertionError):
    """An invariant does not hold. name: "A1" … "S9", "E6"."""

    def __init__(self, name: str, what: str):
        super().__init__(f"{name}: {what}")
        self.name = name


def require(holds: bool, name: str, what: str) -> None:
    """Raise Violation unless `holds`."""
    if not holds:
        raise Violation(name, what)


def check_state(scheduler: Scheduler) -> None:
    """A1–A3, A5 and S2, and what each request may own."""
    check_blocks(scheduler)
    check_requests(scheduler)


def check_blocks(scheduler: Scheduler) -> None:
    """Every block is free or held, never both; its holders are the table entries that name it."""
    pool, tables = scheduler.manager.block_pool, scheduler.manager.block_tables
    free = [block.block_id for block in pool.free_queue]
    held = Counter(block for table in tables.values() for block in table if block != NULL_BLOCK)
    require(len(free) == len(set(free)) == pool.num_free_blocks, "A1", f"the free queue {free} repeats or miscounts")
    require(held.keys().isdisjoint(free), "A3", f"blocks {sorted(held.keys() & set(free))} are in a table and free")
    everything = {NULL_BLOCK, *free, *held}
    require(everything == set(range(len(pool.blocks))), "A1", "some block is neither free nor in a table")
    for block in pool.blocks:
        counted = held[block.block_id]
        require(block.ref_cnt == counted, "A2", f"block {block.block_id} counts {block.ref_cnt} holders of {counted}")
        indexed = block.block_id in pool.cached.get(block.block_hash, ())
        require(indexed == (block.block_hash is not None), "A4", f"block {block.block_id} and the index disagree")
    indexed = sum(map(len, pool.cached.values()))
    hashed = sum(block.block_hash is not None for block in pool.blocks)
    require(indexed == hashed, "A4", f"the index names {indexed} blocks, {hashed} have a hash")
    host = [b for _, kept in scheduler.host.saved.values() for b in kept if b is not None] + scheduler.host.free_blocks
    require(sorted(host) == list(range(scheduler.host.num_blocks)), "A1", "host blocks are lost or owned twice")


def check_requests(scheduler: Scheduler) -> None:
    """Every unfinished request is in exactly one place, and owns what that place allows."""
    forks = [child for request in scheduler.requests.values() for child in request.forks]
    places = Counter(r.request_id for r in [*scheduler.waiting, *scheduler.running, *forks])
    require(places == Counter(scheduler.requests.keys()), "S2", "a request is lost, or in two places")
    require(len(scheduler.running) <= scheduler.config.max_num_seqs, "S1", "more requests run than max_num_seqs")
    for request in scheduler.running:
        require(request.status == RequestStatus.RUNNING, "S2", f"{request} is among the running")
        computed, size = request.num_computed_tokens, scheduler.manager.block_size
        table = scheduler.manager.block_tables[request.request_id]
        require(len(table) * size >= computed, "S4", f"{request} has {len(table)} blocks of {size}")
        full = scheduler.manager.num_cached_blocks[request.request_id]
        require(full * size <= request.num_tokens, "A5", f"{request} gave {full} blocks to the cache")
    for request in [*scheduler.waiting, *forks]:
        require(request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED), "S2", f"{request} is waiting")
        require(request.num_computed_tokens == 0, "S3", f"{request} waits and has something computed")
        require(not request.spec_token_ids, "S3", f"{request} waits and has drafts")
    running = {request.request_id for request in scheduler.running}
    require(scheduler.manager.block_tables.keys() == running, "A10", "a request that does not run owns blocks")
    require(scheduler.host.saved.keys() <= scheduler.requests.keys() - running, "A10", "host blocks of nobody")


def check_plan(scheduler: Scheduler, plan: StepPlan) -> None:
    """A6, A7, S1, S4 and S7 of a plan that has not run yet."""
    config, size, rows = scheduler.config, scheduler.manager.block_size, plan.scheduled
    require(sum(row.num_tokens for row in rows) == plan.num_tokens, "S1", "the plan miscounts its tokens")
    require(plan.num_tokens <= config.max_num_batched_tokens, "S1", f"{plan.num_tokens} tokens exceed the budget")
    require(bool(rows) or not scheduler.requests, "S5", "an empty plan, though requests are unfinished")
    planned = [row.request.request_id for row in rows]
    require(len(planned) == len(set(planned)), "S1", "a request is planned twice")
    for row in rows:
        request, end = row.request, row.start + row.num_tokens
        name = request.request_id
        require(row.num_tokens >= 1 and row.start < request.num_tokens, "A6", f"{name} has nothing to compute")
        require(end <= request.num_tokens_with_spec, "S1", f"{name} computes tokens that are not there")
        require(end == request.num_computed_tokens, "S3", f"{name} computes up to {end}, counted {request}")
        slots = min(end + config.num_lookahead_tokens, request.max_total_tokens)
        require(len(row.block_ids) * size >= slots, "S4", f"{name} has {len(row.block_ids)} blocks for {slots} slots")
        require(row.wants_token == (end >= request.num_tokens), "S1", f"{name}: wants_token={row.wants_token}")
    check_sharing(scheduler, plan)
    if scheduler.policy.mixes:
        absent = {request.request_id for request in scheduler.running} - set(planned)
        require(not absent, "S7", f"{sorted(absent)} run and get no token")


def check_sharing(scheduler: Scheduler, plan: StepPlan) -> None:
    """A block that is written has one holder, apart from requests that join in this step because it fills it."""
    size = scheduler.manager.block_size
    holders: dict[int, list[ScheduledRequest]] = {}
    for row in plan.scheduled:
        for block in row.block_ids:
            holders.setdefault(block, []).append(row)
    for row in plan.scheduled:
        for index in range(row.start // size, -(-(row.start + row.num_tokens) // size)):
            block = row.block_ids[index]
            others = [other for other in holders[block] if other is not row]
            count = scheduler.manager.block_pool.blocks[block].ref_cnt
            joined = all(
                o.request.admitted_step == scheduler.num_steps and o.start >= (index + 1) * size for o in others
            )
            require(count == len(others) + 1 and joined, "A7", f"{row.request.request_id} writes shared block {block}")


def check_empty(scheduler: Scheduler) -> None:
    """A10: with all requests gone the pools are full and nothing remembers a request."""
    pool, manager, host = scheduler.manager.block_pool, scheduler.manager, scheduler.host
    require(not scheduler.requests and not scheduler.waiting and not scheduler.running, "A10", "requests remain")
    require(pool.num_free_blocks == pool.num_usable_blocks, "A10", "blocks are missing")
    left = [*manager.block_tables, *manager.num_cached_blocks, *manager.moves, *host.saved]
    require(not left, "A10", f"{left} remain")
    require(len(host.free_blocks) == host.num_blocks, "A10", "host blocks are missing")
