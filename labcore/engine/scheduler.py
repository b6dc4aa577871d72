"""The scheduler: which requests compute how many tokens in the next step.

There are no phases. Every request has num_computed_tokens, which catches up with num_tokens_with_spec, and a step hands
out a budget of tokens: first to those that run, then to those that wait. A prompt in chunks, a prefix hit, a draft to
verify, a request that resumes after preemption: each is only a different distance to catch up.
After vLLM 0.9.2, vllm/v1/core/sched/scheduler.py. Two guarantees go beyond it: every running request gets at least one
token in every step, and a victim is never one that the step has planned already.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.step_plan import Move, ScheduledRequest, StepOutput, StepPlan
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.policies import POLICIES, is_prefill
from labcore.kv.manager import KVCacheManager
from labcore.kv.sliding_manager import SlidingWindowManager
from labcore.kv.swap import HostPool


class Scheduler:
    """requests: everything unfinished, by id; waiting and running: sorted by the policy's key.

    manager: the block tables; host: where preempted requests keep what they computed; num_steps: plans made so far.
    """

    def __init__(self, config: SchedulerConfig, cache: CacheConfig):
        if config.policy not in POLICIES:
            raise InputError(f"policy={config.policy!r}: must be one of {', '.join(POLICIES)}")
        self.config, self.policy = config, POLICIES[config.policy]()
        shape = cache.num_blocks, cache.block_size, cache.enable_prefix_caching
        window = cache.sliding_window
        self.manager = KVCacheManager(*shape) if window is None else SlidingWindowManager(*shape, window=window)
        self.host = HostPool(cache.num_host_blocks)
        self.watermark_blocks = int(config.watermark * cache.num_blocks)
        self.requests: dict[str, Request] = {}
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.num_steps = self._num_added = 0
        self._finished: list[str] = []

    def add_request(self, request: Request) -> None:
        """Queue `request`. Raises InputError, and nothing changes, if it could never be served."""
        self._check(request)
        request.max_total_tokens = min(request.max_total_tokens, self.config.max_model_len)
        request.order, self._num_added = self._num_added, self._num_added + 1
        self.policy.arrived(request, self.requests.values())
        self.requests[request.request_id] = request
        parent = request.fork_of
        if parent is not None and parent.request_id in self.requests and parent.num_output_tokens == 0:
            parent.forks.append(request)  # until the parent's prompt is computed there is nothing to share
        else:
            insort(self.waiting, request, key=self.policy.key)

    def _check(self, request: Request) -> None:
        name, config = f"request {request.request_id!r}", self.config
        if request.request_id in self.requests:
            raise InputError(f"{name} is being served already; give every request an id of its own")
        if request.num_prompt_tokens >= config.max_model_len:
            raise InputError(
                f"{name} has a prompt of {request.num_prompt_tokens} tokens, and max_model_len={config.max_model_len} "
                "leaves no room for an answer; shorten the prompt"
            )
        longest = min(request.max_total_tokens, config.max_model_len)
        stored = min(longest - 1 + config.num_lookahead_tokens, longest)  # the last token is never fed back
        stored += config.num_branch_tokens
        step = config.max_num_batched_tokens + config.num_lookahead_tokens if self.policy.mixes else stored
        needed, there = self.manager.most_blocks(stored, step), self.manager.block_pool.num_usable_blocks
        if needed > there:
            raise InputError(
                f"{name} may grow to {longest} tokens, {needed} blocks of {self.manager.block_size}, and the cache has "
                f"{there}; shorten the prompt, lower max_tokens or raise num_blocks"
            )

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def schedule(self) -> StepPlan:
        """Plan one step; counts it as computed. An empty plan means that there is nothing to compute."""
        self.num_steps += 1
        plan, self._finished = StepPlan(self.num_steps, finished=self._finished), []
        budget = self.config.max_num_batched_tokens
        if self.policy.mixes:
            budget = self._continue(plan, budget)
            if not plan.preempted:
                self._admit(plan, budget)
        else:
            self._admit(plan, budget)
            if not plan.scheduled:
                self._continue(plan, budget)
        for row in plan.scheduled:
            row.request.num_computed_tokens += row.num_tokens
            # async scheduling plans the next step before this one's token is read; else + 0
            row.request.num_pending_tokens += row.wants_token and self.config.async_scheduling
            plan.num_tokens += row.num_tokens
        plan.moves = self.manager.take_moves()
        self.policy.charge(plan)
        return plan

    def _continue(self, plan: StepPlan, budget: int) -> int:
        """Give every running request tokens; preempt from the end of the order while blocks are short."""
        manager, mixes = self.manager, self.policy.mixes
        limit, lookahead = self.config.long_prefill_token_threshold or budget, self.config.num_lookahead_tokens
        order, index = self.policy.order(self.running), 0
        while index < len(order):
            request, index = order[index], index + 1
            if not mixes and plan.scheduled and is_prefill(plan.scheduled[0].request) and not is_prefill(request):
                break
            computed, pending = request.num_computed_tokens, request.num_pending_tokens
            known = len(request.all_token_ids) + pending
            if pending and known >= request.max_total_tokens:
                continue  # the token that is being sampled is its last
            new = known + len(request.spec_token_ids) - computed
            if new != 1:
                new = min(new, limit, budget - len(order) + index)  # one token each is for those after it
            if new == 0:
                continue  # its last token is being computed by a plan that has not been answered yet
            drafts = computed + new - known if computed + new > known else 0
            while (first := manager.allocate_slots(request, new, (), 0, drafts + pending, lookahead)) is None:
                self._preempt(victim := order.pop(), plan)
                if victim is request:
                    return budget
            if request.spec_token_ids:
                del request.spec_token_ids[drafts:]
            table, wants = manager.block_tables[request.request_id], computed + new >= known
            plan.scheduled.append(ScheduledRequest(request, computed, new, table, first, drafts, wants))
            budget -= new
        return budget

    def _admit(self, plan: StepPlan, budget: int) -> None:
        """Let waiting requests join while the budget, the places and the blocks last."""
        if not self.policy.may_admit(self.running):
            return
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.policy.pick(self.waiting)
            hits, computed = self._computed(request)
            missing = request.num_tokens - computed
            new = min(missing, budget, self.config.long_prefill_token_threshold or budget)
            if new < missing and not self.config.enable_chunked_prefill:
                break
            reserved = self.watermark_blocks if self.running else 0
            lookahead = self.config.num_lookahead_tokens + (0 if self.policy.mixes else missing - new)
            if self.manager.allocate_slots(request, new, hits, computed, 0, lookahead, reserved) is None:
                break
            table = self.manager.block_tables[request.request_id]
            self.manager.moves += self.host.swap_in(request.request_id, table, len(hits))
            if request.status == RequestStatus.WAITING:
                request.num_cached_tokens = computed
            request.move_to(RequestStatus.RUNNING)
            request.num_computed_tokens, request.admitted_step = computed, self.num_steps
            self.waiting.remove(request)
            insort(self.running, request, key=self.policy.key)
            plan.scheduled.append(ScheduledRequest(request, computed, new, table, 0, 0, new == missing))
            budget -= new

    def _computed(self, request: Request) -> tuple[list[int], int]:
        """Tokens of a waiting request that need not be computed, and the blocks that are there for them already.

        They are cached, or shared with the request that this one forks, or in host memory; whichever are most.
        """
        hits, computed = self.manager.get_computed_blocks(request)
        parent = request.fork_of
        # blocks of a parent that was itself admitted in this step may be filled by this very step: too early to copy
        if parent and parent.status == RequestStatus.RUNNING and parent.admitted_step < self.num_steps:
            forked, shared = self.manager.fork(parent, request)
            if shared > computed:
                hits, computed = forked, shared
        swapped = min(self.host.num_tokens(request.request_id), request.num_tokens - 1)
        if swapped > computed:
            hits, computed = hits[: computed // self.manager.block_size], swapped  # only full blocks may precede more
        return hits, computed

    def _preempt(self, victim: Request, plan: StepPlan) -> None:
        """Take the blocks of `victim`; it keeps what it computed in host memory if that has room."""
        name, table = victim.request_id, self.manager.block_tables[victim.request_id]
        kept = self.host.swap_out(name, victim.num_computed_tokens, table, self.manager.block_size)
        self.manager.moves += kept or []
        self.manager.free(victim)
        self.running.remove(victim)
        victim.move_to(RequestStatus.PREEMPTED)
        victim.num_computed_tokens, victim.spec_token_ids = 0, []
        victim.num_pending_tokens = 0  # what is being sampled for it is passed over, and sampled again
        victim.num_preemptions += 1
        insort(self.waiting, victim, key=self.policy.key)
        plan.preempted.append(name)

    def update_from_output(self, plan: StepPlan, output: StepOutput) -> list[tuple[Request, list[int]]]:
        """Take what came of `plan`: each request that got tokens, with those it keeps. Some of them are finished now.

        Requests that ended, or were preempted, while the plan ran are passed over.
        """
        advanced = []
        for row in plan.scheduled:
            request = row.request
            if request.status != RequestStatus.RUNNING or request.admitted_step > plan.step:
                continue
            name = request.request_id
            request.num_pending_tokens -= row.wants_token and self.config.async_scheduling
            if name in output.failed:
                self.manager.forget_prefix(request)  # keys and values that gave no finite logits must not be hit
                self.finish_requests([name], RequestStatus.FINISHED_ERROR, output.failed[name])
                continue
            if not row.wants_token:
                continue
            tokens = output.sampled[name]
            if row.num_draft_tokens:
                self.manager.rollback(request, row.num_draft_tokens + 1 - len(tokens))
                request.spec_token_ids = []
            ended = None
            for count, token in enumerate(tokens, 1):
                ended = request.append_token(token)
                if ended is not None:
                    tokens = tokens[:count]
                    break
            advanced.append((request, tokens))
            if request.forks:
                self._release_forks(request)
            if ended is not None:
                self.finish_requests([name], ended)
            elif name in output.drafts:
                room = request.max_total_tokens - request.num_tokens - 1 + self.config.num_branch_tokens
                request.take_draft(output.drafts[name], room)
        return advanced

    def finish_requests(self, names: str | Iterable[str], status: RequestStatus, error: str | None = None) -> None:
        """End one request or several, wherever they are. Unknown ids are passed over: they may have ended already."""
        for name in [names] if isinstance(names, str) else names:
            request = self.requests.pop(name, None)
            if request is None:
                continue
            if request.status == RequestStatus.RUNNING:
                self.running.remove(request)
            elif request in self.waiting:
                self.waiting.remove(request)
            else:
                request.fork_of.forks.remove(request)
            self.manager.free(request)
            self.host.drop(name)
            request.move_to(status)
            request.error, request.spec_token_ids = error, []
            self._release_forks(request)
            self._finished.append(name)

    def fail_step(self, plan: StepPlan, error: str) -> None:
        """The forward pass of `plan` raised: end its requests, trust nothing it was to write. Fail later plans, too."""
        for row in plan.scheduled:
            self.manager.forget_prefix(row.request, row.start // self.manager.block_size)
        self.manager.discard(move.target for move in plan.moves if move.kind is not Move.SWAP_OUT)
        for name in plan.preempted:
            self.host.drop(name)
        names = [row.request.request_id for row in plan.scheduled if not row.request.finished]  # ids come again
        self.finish_requests(names, RequestStatus.FINISHED_ERROR, error)

    def _release_forks(self, parent: Request) -> None:
        while parent.forks:
            insort(self.waiting, parent.forks.pop(), key=self.policy.key)
