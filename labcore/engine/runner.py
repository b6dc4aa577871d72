"""The model runner: carries out step plans. Moves, one forward pass over everything scheduled, sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, Backend
from labcore.attention.select import fastest
from labcore.core.step_plan import ScheduledRequest, StepOutput, StepPlan
from labcore.engine.batch import InputBatch
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.stats import StepRecord
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.sampling.sampler import SamplingRow, new_generator, sample


class PagedAttend:
    """The `attend` of one pass: stores the new keys and values of a layer, then attends through the block tables.

    decode_pass: the compiled kernel for a pass with one new token per request, all layers; a fast model runs the whole
    step through it (`model.compiled`). None where it does not apply.
    """

    def __init__(self, storage: KVStorage, metadata: AttentionMetadata, backend: Backend | None):
        self.storage, self.slots = storage, metadata.slot_mapping
        self.decode_pass = storage.decode_pass(metadata) if backend is None else None
        if self.decode_pass is None:
            metadata, shape, self.read = storage.view(metadata)
            self.attend = (backend or fastest(shape, storage.dtype, metadata.block_table.device))(metadata, shape)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.decode_pass is not None:
            return self.decode_pass(layer, q.float(), k.float(), v.float()).to(q.dtype)
        self.storage.write(layer, self.slots, k, v)
        return self.attend(q, *self.read(layer))


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
        self.batch.forget(plan.preempted)
        self.batch.forget(plan.finished)
        for name in plan.finished:
            self.generators.pop(name, None)
        with record.timed("model"):
            self.storage.move(plan.moves)
            if not plan.scheduled:
                return StepOutput()
            logits = self.forward(plan.scheduled)
            if logits.is_cuda:
                torch.cuda.synchronize()  # so that the model's time is not counted as sampling
        with record.timed("sample"):
            return self.sample(plan.scheduled, logits)

    def forward(self, scheduled: list[ScheduledRequest]) -> Tensor:
        """Logits [wanted tokens, vocab] of one pass."""
        inputs = self.batch.build(scheduled)
        attend = PagedAttend(self.storage, inputs.metadata, self.backend)
        return self.model(inputs.token_ids, inputs.positions, attend, wanted=inputs.wanted)

    def sample(self, scheduled: list[ScheduledRequest], logits: Tensor) -> StepOutput:
        """A token for each request that wants one. A draft that is the token sampled in its place is accepted, and the
        next place is sampled, too; so whatever proposed the drafts, the answer is as if nobody had.
        """
        output, first = StepOutput(), 0
        places: list[tuple[ScheduledRequest, int]] = []  # a request, and the logits that choose its next token
        for one in scheduled:
            if one.wants_token:
                places.append((one, first))
                first += 1 + one.num_draft_tokens
        depth = 0
        while places:
            rows = [self._row(one, depth) for one, _ in places]
            chosen = logits if len(rows) == len(logits) else logits[[first + depth for _, first in places]]
            accepted = []
            for place, outcome in zip(places, sample(chosen, rows), strict=True):
                one, name = place[0], place[0].request.request_id
                if outcome.error is not None:
                    output.failed[name] = outcome.error
                    continue
                output.sampled.setdefault(name, []).append(outcome.token_id)
                if outcome.logprobs is not None:
                    output.logprobs.setdefault(name, []).append(outcome.logprobs)
                if depth < one.num_draft_tokens and one.request.spec_token_ids[depth] == outcome.token_id:
                    accepted.append(place)
            places, depth = accepted, depth + 1
        return output

    def _row(self, one: ScheduledRequest, depth: int) -> SamplingRow:
        """What sampling has to know when the first `depth` drafts have been accepted."""
        request = one.request
        name, params, tokens = request.request_id, request.sampling_params, request.all_token_ids
        if name not in self.generators:
            self.generators[name] = new_generator(params)
        if depth:
            tokens = tokens + request.spec_token_ids[:depth]
        return SamplingRow(params, tokens, request.num_prompt_tokens, request.stop_ids, self.generators[name])
