"""The model runner with speculation: verifies the drafts of a step and asks a proposer for those of the next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.attention.metadata import Backend
from labcore.core.draft import Draft
from labcore.core.request import Request
from labcore.core.step_plan import BlockMove, ScheduledRequest, StepOutput, StepPlan
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.runner import ModelRunner, PagedAttend
from labcore.engine.stats import StepRecord
from labcore.engine.tree_rows import accepted_slots
from labcore.engine.verify import Verdict, verify
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep


class SpeculativeRunner(ModelRunner):
    """A ModelRunner whose requests may have drafts. acceptance: "exact", or "typical", which is lossy (`verify`)."""

    def __init__(
        self,
        model: Llama,
        storage: KVStorage,
        scheduler: SchedulerConfig,
        cache: CacheConfig,
        backend: Backend | None = None,
        *,
        proposer: Proposer,
        acceptance: str = "exact",
    ):
        super().__init__(model, storage, scheduler, cache, backend)
        self.proposer, self.acceptance, self.num_branch_tokens = proposer, acceptance, proposer.num_branch_tokens
        self.moves: list[BlockMove] = []  # not yet shown to the proposer
        self.step: SpeculationStep | None = None  # the pass that runs, its verdicts by request id, its likeliest tokens
        self.verdicts: dict[str, Verdict] = {}
        self.best: list[int] = []
        self.left: dict[str, int] = {}  # request id -> tokens that may still come behind the one after its last
        proposer.attach(self.storage)

    @torch.inference_mode()
    def execute(self, plan: StepPlan, record: StepRecord | None = None) -> StepOutput:
        """`ModelRunner.execute`, and drafts for the next step."""
        record = record or StepRecord()
        self.proposer.forget([*plan.preempted, *plan.finished])
        self.moves += plan.moves
        output = super().execute(plan, record)
        if plan.scheduled:
            with record.timed("draft"):
                output.drafts = self.propose(plan.scheduled)
            for one in plan.scheduled:
                if one.num_draft_tokens and one.request.request_id in output.sampled:
                    record.verified += 1
                    record.accepted += len(output.sampled[one.request.request_id]) - 1
        return output

    def forward(self, scheduled: list[ScheduledRequest]) -> Tensor:
        """`ModelRunner.forward`, with what the proposer reads along the way."""
        inputs, proposer = self.batch.build(scheduled), self.proposer
        attend = PagedAttend(self.storage, inputs.metadata, self.backend)
        if not (proposer.reads_hidden or proposer.taps):
            self.step = SpeculationStep([], inputs)
            return self.model(inputs.token_ids, inputs.positions, attend, wanted=inputs.wanted)
        x, features = self.model.run(inputs.token_ids, inputs.positions, attend, proposer.taps)
        hidden = self.model.norm(x)
        self.step = SpeculationStep([], inputs, hidden, features)
        return self.model.lm_head(hidden[inputs.wanted])

    def sample(self, scheduled: list[ScheduledRequest], logits: Tensor) -> StepOutput:
        """Verify all rows, and put the keys and values of accepted drafts where the next step looks for them."""
        verdicts = verify(scheduled, logits, self._row, self.acceptance)
        self._keep_accepted(verdicts)
        self.best = logits.argmax(-1).tolist()
        self.verdicts = {verdict.one.request.request_id: verdict for verdict in verdicts}
        output = StepOutput()
        for name, verdict in self.verdicts.items():
            if verdict.error is not None:
                output.failed[name] = verdict.error
                continue
            output.sampled[name] = verdict.tokens
            if verdict.logprobs:
                output.logprobs[name] = verdict.logprobs
        return output

    def _keep_accepted(self, verdicts: Sequence[Verdict]) -> None:
        """Copy accepted nodes of trees to the places behind the known tokens; the scheduler rolls back the rest."""
        sources, targets = [], []
        for verdict in verdicts:
            if verdict.path and verdict.one.parents is not None:
                some = accepted_slots(verdict.one, verdict.path, self.batch.block_size)
                sources += some[0]
                targets += some[1]
        if sources:
            self.storage.copy_slots(sources, targets)

    def propose(self, scheduled: Sequence[ScheduledRequest]) -> dict[str, Draft]:
        """Show the proposer the step; its drafts, none longer than there is room for."""
        step, begin, self.left = self.step, 0, {}
        for one in scheduled:
            step.rows.append(self._observed(one, begin))
            begin += one.num_tokens
        step.moves, self.moves = self.moves, []
        room, drafts = {row.request_id: row.room for row in step.rows}, {}
        for name, draft in self.proposer.propose(step).items():
            draft = draft.first(room[name] if draft.parents is not None else min(room[name], self.left[name]))
            if draft.token_ids:
                drafts[name] = draft
        return drafts

    def _observed(self, one: ScheduledRequest, begin: int) -> SpeculationRow:
        """The row whose tokens begin at `begin` of the pass, as a proposer sees it."""
        request, verdict, end = one.request, self.verdicts.get(one.request.request_id), begin + one.num_tokens
        tokens, path, chosen = [], [], []
        if verdict is not None:
            tokens, path = verdict.tokens, verdict.path
            chosen = self.best[verdict.first : verdict.first + 1 + one.num_draft_tokens]
        drafts = end - one.num_draft_tokens
        return SpeculationRow(
            request.request_id,
            request.all_token_ids + tokens,
            request.num_prompt_tokens,
            request.sampling_params,
            begin,
            end,
            [*range(begin, drafts), *(drafts + node for node in path)],
            one.block_ids,
            chosen,
            self._room(request, tokens),
            request.cache_salt,
        )

    def _room(self, request: Request, tokens: list[int]) -> int:
        """Draft tokens that can be of use behind these new tokens of `request`; `left` notes how many of a chain."""
        params, count = request.sampling_params, request.num_output_tokens
        ends = request.stop_ids.intersection(tokens[max(0, params.min_tokens - count - 1) :])
        left = self.left[request.request_id] = request.max_total_tokens - request.num_tokens - len(tokens) - 1
        if not tokens or ends or left <= 0:
            return 0
        most = self.proposer.num_tokens
        if params.num_draft_tokens is not None:
            most = min(most, params.num_draft_tokens)
        return min(most, left + self.num_branch_tokens)
