"""What the scheduler asks of the model runner for one step, and what the runner hands back.

    plan = scheduler.schedule()                         # bookkeeping only; num_computed_tokens already include the step
    output = runner.execute(plan)                       # moves, one forward pass, sampling
    for request, new_ids in scheduler.update_from_output(plan, output): ...

Everything between the two sides is in these classes. The scheduler never sees a tensor; the runner never sees the pool.
After vLLM V1's SchedulerOutput and ModelRunnerOutput (0.9.2, vllm/v1/core/sched/output.py, vllm/v1/outputs.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from labcore.core.request import Request

if TYPE_CHECKING:
    from labcore.core.draft import Draft

PENDING = -1  # stands for a token that the plan before has sampled and nobody has read yet


class Move(Enum):
    """Kinds of whole-block transfers."""

    COPY = "copy"  # device -> device, before a shared block is written
    SWAP_OUT = "swap out"  # device -> host
    SWAP_IN = "swap in"  # host -> device


class BlockMove(NamedTuple):
    """Copy block `source` to block `target`, all layers, keys and values; each counted in its own pool."""

    kind: Move
    source: int
    target: int


@dataclass(slots=True)
class ScheduledRequest:
    """One row of the batch: compute `num_tokens` tokens of `request`, from position `start` on.

    They are (all_token_ids + spec_token_ids)[start : start + num_tokens], the last `num_draft_tokens` of them drafts.
    Token at position p goes to slot block_ids[p // S] * S + p % S and attends to positions 0..p (or the window's). In a
    draft tree the nodes take these places one after the other, and a node attends to the known tokens and its branch.
    block_ids: the request's whole block table as it is after the plan's moves. It is the manager's own list: read it
    before the next schedule(), never change it. Block 0 is the null block: never written, and read by nobody (a sliding
    window's forgotten blocks; padding). first_new_block: table entries before this index are those of the request's
    previous row, so a runner with persistent rows copies block_ids[first_new_block:] only; 0 on (re)admission.
    wants_token: sample after the last token; with drafts, verify them, copy the keys and values of the accepted ones
    to the places behind the known tokens, and return 1 to num_draft_tokens + 1 tokens.
    False for a chunk that does not reach the last known token.
    """

    request: Request
    start: int
    num_tokens: int
    block_ids: list[int]
    first_new_block: int
    num_draft_tokens: int
    wants_token: bool

    @property
    def token_ids(self) -> list[int]:
        """The tokens to feed, [num_tokens]; PENDING where the plan before samples it and has not been answered."""
        known = self.request.all_token_ids[self.start : self.start + self.num_tokens - self.num_draft_tokens]
        return (known or [PENDING]) + self.request.spec_token_ids[: self.num_draft_tokens]

    @property
    def parents(self) -> list[int] | None:
        """Each draft's parent (see core.draft), [num_draft_tokens]; None where they are a chain."""
        parents = self.request.spec_parents
        return None if parents is None or not self.num_draft_tokens else parents[: self.num_draft_tokens]

    def slots(self, block_size: int) -> list[int]:
        """The slot of every token to feed, [num_tokens]."""
        positions = range(self.start, self.start + self.num_tokens)
        return [self.block_ids[p // block_size] * block_size + p % block_size for p in positions]


@dataclass(slots=True)
class StepPlan:
    """One step. An empty plan (nothing scheduled) is legal; the runner then only applies moves and drops rows.

    The runner does, in this order:
    1. forget the rows of `preempted` and `finished` request ids (both happened since the previous plan);
    2. carry out `moves` one after the other: a later one may overwrite what an earlier one read;
    3. one forward pass over `scheduled`. In every layer it stores all new keys and values before anything attends: a
       row may read a block that another row of the same step fills.
    4. sample for each row that wants a token.
    """

    step: int = 0  # plans are numbered from 1
    scheduled: list[ScheduledRequest] = field(default_factory=list)
    moves: list[BlockMove] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    num_tokens: int = 0


@dataclass(slots=True)
class StepOutput:
    """What came of a plan, by request id.

    sampled: for each row that wanted a token, the accepted drafts followed by the one sampled token (so 1 to
    num_draft_tokens + 1 ids; more drafts rejected, fewer ids). logprobs: for each sampled id of a request that asked,
    token id -> its Logprob (labcore.sampling). drafts: proposals for the request's next step, optional. failed: one
    sentence for each request whose row could not be finished (its sampler raised); the others go on. If the whole
    forward pass raised there is no StepOutput: call scheduler.fail_step(plan, reason).
    """

    sampled: dict[str, list[int]] = field(default_factory=dict)
    logprobs: dict[str, list[dict]] = field(default_factory=dict)
    drafts: dict[str, Draft] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
