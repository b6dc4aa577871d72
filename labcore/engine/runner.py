"""The model runner: carries out step plans. Moves, one forward pass over everything scheduled, sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.attention.metadata import Backend
from labcore.core.step_plan import ScheduledRequest, StepOutput, StepPlan
from labcore.engine.batch import InputBatch
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.stats import StepRecord
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.sampling.sampler import SamplingRow, new_generator, sample


class ModelRunner:
    """Runs `model` on the paged cache `storage`. backend: how to compute attention; None takes the fastest there is."""

    def __init__(
        self,
        model: Llama,
        storage: KVStorage,
        scheduler: SchedulerConfig,
        cache: CacheConfig,
        backend: Backend | None = None,
    ):
        self.model, self.storage, self.backend = model, storage, backend
        self.batch = InputBatch(scheduler, cache, model.norm.weight.device)
        self.generators: dict[str, torch.Generator | None] = {}  # they outlive preemptions

    @torch.inference_mode()
    def execute(self, plan: StepPlan, record: StepRecord | None = None) -> StepOutput:
        """Carry out `plan` (see StepPlan for the order), its times into `record`. A row that cannot be sampled is in
        `failed`; whatever the forward pass raises goes to the caller."""
        record = record or StepRecord()
        self.forget(plan)
        with record.timed("model"):
            self.storage.move(plan.moves)
            if not plan.scheduled:
                return StepOutput()
            logits = self.forward(plan.scheduled)
            if logits.is_cuda:
                torch.cuda.synchronize()  # so that the model's time is not counted as sampling
        with record.timed("sample"):
            return self.sample(plan.scheduled, logits)

    def forget(self, plan: StepPlan) -> None:
        """Drop what is kept of requests that no longer run."""
        self.batch.forget(plan.preempted)
        self.batch.forget(plan.finished)
        for name in plan.finished:
            self.generators.pop(name, None)

    def forward(self, scheduled: list[ScheduledRequest]) -> Tensor:
        """Logits [wanted tokens, vocab] of one pass."""
        inputs = self.batch.build(scheduled)
        attend = PagedAttend(self.storage, inputs.metadata, self.backend)
        return self.model(inputs.token_ids, inputs.positions, attend, wanted=inputs.wanted)

    def sample(self, scheduled: list[ScheduledRequest], logits: Tensor) -> StepOutput:
        """A token for each request that wants one. Drafts are for a `SpeculativeRunner`."""
        output = StepOutput()
        wanted = [one for one in scheduled if one.wants_token]
        outcomes = sample(logits, [self._row(one) for one in wanted]) if wanted else []
        for one, outcome in zip(wanted, outcomes, strict=True):
            name = one.request.request_id
            if outcome.error is not None:
                output.failed[name] = outcome.error
                continue
            output.sampled[name] = [outcome.token_id]
            if outcome.logprobs is not None:
                output.logprobs[name] = [outcome.logprobs]
        return output

    def _row(self, one: ScheduledRequest, accepted: Sequence[int] = ()) -> SamplingRow:
        """What sampling has to know when these drafts have been accepted."""
        request = one.request
        name, params, tokens = request.request_id, request.sampling_params, request.all_token_ids
        if name not in self.generators:
            self.generators[name] = new_generator(params)
        if accepted:
            tokens = [*tokens, *accepted]
        return SamplingRow(params, tokens, request.num_prompt_tokens, request.stop_ids, self.generators[name])
