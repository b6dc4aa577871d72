"""The bug museum: defects that shipped in real engines, each one line of this engine's code changed.

An exhibit says where the defect was seen, which line it is here, and which check catches it. Inside `with
exhibit.installed():` the engine has the defect; `exhibit.found()` looks for it with random traces. What an engine's own
tests missed is rarely subtle code: it is a state nobody thought of, and random traces think of all of them.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labcore.core.errors import DataError, InputError
from labcore.engine.check import Violation
from labcore.engine.random_traces import run_trace
from labcore.engine.scheduler import Scheduler
from labcore.kv import manager
from labcore.kv.block_pool import BlockPool
from labcore.kv.manager import KVCacheManager

TRACES = 150  # as many as a defect gets to show itself


@dataclass(frozen=True)
class Exhibit:
    """One defect. origin: where it was seen; story: what went wrong there and why.

    owner, function: the code it is in here; right, wrong: the line as it is and as it would be. killed_by: the name of
    the check that catches it, as in `labcore.engine.check`; seed: the random trace to begin with, for rare defects;
    trees: whether it takes traces whose drafts have branches.
    """

    id: str
    title: str
    origin: str
    story: str
    owner: object
    function: str
    right: str
    wrong: str
    killed_by: str
    seed: int = 0
    trees: bool = False

    def __str__(self) -> str:
        return self.id

    @property
    def code(self) -> str:
        """The function with the defect in it. Raises DataError if the line is no longer there exactly once."""
        code = textwrap.dedent(inspect.getsource(getattr(self.owner, self.function)))
        if code.count(self.right) != 1:
            raise DataError(f"exhibit {self.id}: {self.function} does not contain {self.right!r} exactly once")
        return code.replace(self.right, self.wrong)

    @contextmanager
    def installed(self, code: str | None = None) -> Iterator[None]:
        """The engine has the defect inside this block; or has `code`, somebody's repair, in that function's place."""
        original = getattr(self.owner, self.function)
        made: dict[str, object] = {}
        exec(compile(code or self.code, f"<exhibit {self.id}>", "exec"), original.__globals__, made)
        setattr(self.owner, self.function, made[self.function])
        try:
            yield
        finally:
            setattr(self.owner, self.function, original)

    def found(self) -> Violation | None:
        """The first violation that random traces show with the defect installed; None if there is none."""
        with self.installed():
            for seed in range(self.seed, self.seed + TRACES):
                try:
                    run_trace(seed, self.trees)
                except Violation as violation:
                    return violation
        return None


def exhibit(id: str) -> Exhibit:
    """The exhibit with that id. Raises InputError naming all of them."""
    for one in EXHIBITS:
        if one.id == id:
            return one
    raise InputError(f"exhibit {id!r} is unknown; there are {', '.join(map(str, EXHIBITS))}")


EXHIBITS = [
    Exhibit(
        "lost_chain",
        "A block after a hit is hashed as if nothing came before it",
        "github.com/GeeeekExplorer/nano-vllm, commit f64d821, mended the same day in 9fa256a",
        "A hit on a free block reset the block, and with it the hash that the next block's hash had to start from. "
        "From then on equal blocks after different prefixes had equal hashes, and requests read each other's keys.",
        manager,
        "extend_hashes",
        "parent = hashes[-1] if hashes else root_hash(request.cache_salt)",
        "parent = root_hash(request.cache_salt)",
        "A4",
    ),
    Exhibit(
        "duplicates_freed",
        "Duplicate blocks are freed and the table still names them",
        "github.com/sgl-project/mini-sglang/pull/142",
        "Two equal prompts were computed side by side. Afterwards the second copy went back to the pool, but the page "
        "table of its request was not turned to the first copy: use after free.",
        KVCacheManager,
        "_cache_blocks",
        "self.block_pool.cache_block(table[index], hashes[index])",
        "(self.block_pool.free_queue.append(self.block_pool.blocks[table[index]])"
        " if hashes[index] in self.block_pool.cached else self.block_pool.cache_block(table[index], hashes[index]))",
        "A3",
    ),
    Exhibit(
        "whole_prompt_hit",
        "A prompt found in the cache to its last token leaves nothing to compute",
        "github.com/GeeeekExplorer/nano-vllm/issues/144",
        "The next token comes from the logits of the last one, so at least one token has to be computed, however much "
        "is cached. With none the attention kernel got an empty query and crashed.",
        KVCacheManager,
        "get_computed_blocks",
        "(request.num_tokens - 1) // self.block_size",
        "request.num_tokens // self.block_size",
        "A6",
    ),
    Exhibit(
        "hashed_before_computed",
        "A block enters the cache when its tokens are known, not when they are computed",
        "nano-vllm-v1, commit 357860a: its own assertion fires as soon as a chunk ends inside a block",
        "With chunked prefill the two are different times. Whoever hits the block in between reads what was never "
        "written.",
        KVCacheManager,
        "allocate_slots",
        "full = (computed + num_new_tokens - num_draft_tokens) // size",
        "full = min(request.num_tokens // size, len(table))",
        "A5",
    ),
    Exhibit(
        "drafts_cached",
        "A block that drafts fill enters the cache before they are accepted",
        "guarded against in vLLM 0.9.2, vllm/v1/core/kv_cache_manager.py; miscounted there until "
        "github.com/vllm-project/vllm/pull/18668",
        "Rejected drafts leave slots that will be written again. If the block could be found under a hash by then, "
        "that hash was over other tokens than the block holds, or over too few.",
        KVCacheManager,
        "allocate_slots",
        "(computed + num_new_tokens - num_draft_tokens)",
        "(computed + num_new_tokens)",
        "A5",
    ),
    Exhibit(
        "stale_hits",
        "Hits are looked up once and used later",
        "github.com/GeeeekExplorer/nano-vllm/pull/233",
        "How much of a request was cached was decided at one point and relied on at another. In between, blocks were "
        "evicted and tables had the wrong length, under load only.",
        Scheduler,
        "_computed",
        "hits, computed = self.manager.get_computed_blocks(request)",
        "hits, computed = request.__dict__.setdefault('hits', self.manager.get_computed_blocks(request))",
        "A7",
    ),
    Exhibit(
        "resumed_as_decode",
        "A preempted request comes back as if it had only one token to compute",
        "github.com/GeeeekExplorer/nano-vllm/issues/144",
        "The state was inferred from the output: a request with an answer was decoding. A preempted one has an answer "
        "and no keys at all.",
        Scheduler,
        "_admit",
        "missing = request.num_tokens - computed",
        "missing = 1 if request.num_output_tokens else request.num_tokens - computed",
        "S1",
    ),
    Exhibit(
        "empty_plan",
        "A step without work kills the server",
        "github.com/a710128/nanovllm-voxcpm/pull/42; nano-vllm's scheduler has the same assertion",
        "The scheduler asserted that a step schedules something. It does, until the only client disconnects.",
        Scheduler,
        "schedule",
        "self.policy.charge(plan)",
        "self.policy.charge(plan); assert plan.scheduled",
        "S5",
    ),
    Exhibit(
        "stale_index",
        "A reused block can still be found under its old hash",
        "github.com/vllm-project/vllm/pull/4764",
        "The block that the evictor handed out stayed in the table of cached blocks. The next request with the old "
        "prefix was given a block full of someone else's tokens.",
        BlockPool,
        "get_new_blocks",
        "self.forget(block.block_id)",
        "pass",
        "A4",
    ),
    Exhibit(
        "touched_too_early",
        "An allocation that fails has taken the hits already",
        "github.com/vllm-project/vllm/issues/11562, mended in pull/11565",
        "Hits were taken out of the free queue before it was known whether the rest would fit. When it did not, they "
        "had one holder too many and never came back; in the end nothing could be scheduled.",
        KVCacheManager,
        "allocate_slots",
        "revived = sum(map(pool.is_free, new_computed_blocks))",
        "revived = pool.touch(new_computed_blocks) or 0",
        "A2",
    ),
    Exhibit(
        "free_hits_not_counted",
        "Free blocks are promised twice: as hits and as new blocks",
        "review of github.com/vllm-project/vllm/pull/11565; again in github.com/vllm-project/vllm/issues/45856",
        "A hit that nobody holds is itself in the free queue. Whoever forgets to count it finds too few blocks when it "
        "comes to taking them, and the engine dies of its own error.",
        KVCacheManager,
        "allocate_slots",
        "revived = sum(map(pool.is_free, new_computed_blocks))",
        "revived = 0",
        "S5",
    ),
    Exhibit(
        "no_copy_on_write",
        "Two requests write into one partly filled block",
        "github.com/Avarok-Cybersecurity/atlas/issues/1193",
        "The partly filled last block of a prompt was shared and nobody copied it. Equal answers hid the defect, for "
        "both wrote the same; once they differed, each read a mixture.",
        KVCacheManager,
        "allocate_slots",
        "copied = tail < unchanged and computed % size > 0 and (starts or pool.blocks[table[tail]].ref_cnt > 1)",
        "copied = False",
        "A7",
    ),
    Exhibit(
        "drafts_survive_preemption",
        "A preempted request keeps its drafts",
        "github.com/vllm-project/vllm/pull/28558",
        "The drafts were made for a position that the request no longer stands at.",
        Scheduler,
        "_preempt",
        "victim.num_computed_tokens, victim.spec_token_ids = 0, []",
        "victim.num_computed_tokens = 0",
        "S3",
    ),
    Exhibit(
        "no_rollback",
        "Rejected drafts count as computed",
        "github.com/vllm-project/vllm/pull/42722 and /pull/41356: rows whose output was empty were not rolled back",
        "Then the request has computed all it knows and more, there is nothing left to catch up with, and it is never "
        "scheduled again.",
        KVCacheManager,
        "rollback",
        "request.num_computed_tokens -= num_rejected_tokens",
        "pass",
        "A6",
    ),
    Exhibit(
        "starved_decodes",
        "A step computes prompts or answers, and answers wait while any prompt is unfinished",
        "github.com/GeeeekExplorer/nano-vllm/issues/73",
        "Every chunk of a new prompt stops all answers for the time that it takes.",
        Scheduler,
        "_continue",
        "if not mixes and plan.scheduled",
        "if plan.scheduled",
        "S7",
    ),
    Exhibit(
        "too_many_running",
        "max_num_seqs limits a step and not what runs",
        "github.com/GeeeekExplorer/nano-vllm, commit bb823b3: in 40 % of random traces",
        "Whatever is sized by max_num_seqs, buffers and captured graphs, is then too small.",
        Scheduler,
        "_admit",
        "len(self.running) < self.config.max_num_seqs",
        "len(plan.scheduled) <= self.config.max_num_seqs",
        "S1",
    ),
    Exhibit(
        "lost_place",
        "A preempted request goes to the end of the queue",
        "github.com/vllm-project/vllm/issues/41951",
        "It has waited longest, and what it computed is still in the cache, but not for long.",
        Scheduler,
        "_preempt",
        "insort(self.waiting, victim, key=self.policy.key)",
        "self.waiting.append(victim)",
        "S6",
    ),
    Exhibit(
        "planned_victim",
        "The victim is a request that this step has planned already",
        "github.com/vllm-project/vllm/issues/49097; 0.9.2 takes the lowest priority of all running requests",
        "Its row stays in the plan and its blocks go to another: two requests write to the same slots.",
        Scheduler,
        "_continue",
        "self._preempt(victim := order.pop(), plan)",
        "self._preempt(victim := order.pop(index - 2), plan)",
        "S3",
    ),
    Exhibit(
        "larger_than_the_pool",
        "A request that can never fit is queued",
        "github.com/inference-sim/inference-sim/issues/373",
        "It is admitted, runs out of blocks, preempts everybody, itself last, and starts again, for ever.",
        Scheduler,
        "_check",
        "if needed > there:",
        "if False:",
        "S5",
    ),
    Exhibit(
        "leak_on_abort",
        "What an aborted request has elsewhere is never released",
        "github.com/vllm-project/vllm/issues/46283 and github.com/vllm-project/vllm-ascend/issues/16662",
        "Blocks on the device are freed; those in another tier, of which the scheduler thinks last, are not.",
        Scheduler,
        "finish_requests",
        "self.host.drop(name)",
        "pass",
        "A10",
        seed=100,
    ),
    Exhibit(
        "head_freed_first",
        "A finished request frees the head of its chain first",
        "the order is a rule of vLLM 0.9.2, vllm/v1/core/single_type_kv_cache_manager.py free()",
        "Nothing is ever wrong, only slow: the next request in need evicts the head, and the blocks that continue it "
        "stay in memory and cannot be found.",
        KVCacheManager,
        "free",
        "reversed(self.block_tables.pop(request.request_id, ()))",
        "self.block_tables.pop(request.request_id, ())",
        "A8",
    ),
    Exhibit(
        "partial_hit_inside",
        "A partly filled block stands in the middle of a table",
        "this repository: found by these traces while the engine was written, mended in cb876a1",
        "A swapped request had more in host memory than its siblings shared with it. It took their partly filled block "
        "and continued behind it with its own, so that some positions of the block were never filled.",
        Scheduler,
        "_computed",
        "hits, computed = hits[: computed // self.manager.block_size], swapped",
        "computed = swapped",
        "E6",
        seed=390,
    ),
]
