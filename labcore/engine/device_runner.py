"""The model runner of a GPU: a step is launched and collected apart, and nothing in between waits for the device.

    launched = runner.launch(plan)      # queues copies, kernels and the copy of the sampled tokens back
    output = runner.collect(launched)   # waits for those tokens

What a row sampled last also stays on the device, in `newest`, where the next step finds it: a plan may be launched
before the one before it was collected. Pure decoding steps are replays of `cuda_graphs`. Works on a CPU, too, where
nothing is asynchronous, which is how it is tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from labcore.attention.metadata import Backend
from labcore.attention.step_inputs import HostInputs
from labcore.attention.upload import upload
from labcore.core.step_plan import PENDING, ScheduledRequest, StepOutput, StepPlan
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.cuda_graphs import Capture, DecodeGraphs
from labcore.engine.device_sampling import NOT_FINITE, Draw, ToHost, draw, new_draw
from labcore.engine.runner import ModelRunner
from labcore.engine.stats import StepRecord
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama


@dataclass(slots=True)
class Launched:
    """A plan that runs. drawn: the rows whose `tokens` come from the device; on_host: those sampled from `logits` when
    the step is collected; record: where its times go."""

    plan: StepPlan
    record: StepRecord
    drawn: list[ScheduledRequest] = field(default_factory=list)
    tokens: ToHost | None = None
    on_host: list[ScheduledRequest] = field(default_factory=list)
    logits: Tensor | None = None


class DeviceRunner(ModelRunner):
    """A ModelRunner in two halves. graphs: replay decoding steps, which needs `backend` to be a TritonAttention;
    capture: as for DecodeGraphs."""

    def __init__(
        self,
        model: Llama,
        storage: KVStorage,
        scheduler: SchedulerConfig,
        cache: CacheConfig,
        backend: Backend | None = None,
        *,
        graphs: bool = False,
        capture: Capture | None = None,
    ):
        super().__init__(model, storage, scheduler, cache, backend)
        self.draws: dict[str, Draw | None] = {}  # how each request's tokens are drawn, None: on the host
        self.newest = torch.zeros(scheduler.max_num_seqs + 1, dtype=torch.int64, device=self.batch.device)
        self.graphs = DecodeGraphs(model, storage, scheduler, self.newest, backend, capture) if graphs else None

    def execute(self, plan: StepPlan, record: StepRecord | None = None) -> StepOutput:
        """Both halves at once."""
        return self.collect(self.launch(plan, record))

    @torch.inference_mode()
    def launch(self, plan: StepPlan, record: StepRecord | None = None) -> Launched:
        """Queue the step; see StepPlan for the order."""
        launched = Launched(plan, record or StepRecord())
        with launched.record.timed("model"):
            self.forget(plan)
            self.storage.move(plan.moves)
            if plan.scheduled:
                self._sampled(launched, self.forward(plan.scheduled))
        return launched

    @torch.inference_mode()
    def collect(self, launched: Launched) -> StepOutput:
        """The step's tokens, when they are there. A row that cannot be sampled is in `failed`."""
        record, output = launched.record, StepOutput()
        with record.timed("model"):
            tokens = launched.tokens.tolist() if launched.tokens is not None else []
        with record.timed("sample"):
            if launched.on_host:
                output = self.sample(launched.on_host, launched.logits)
            for one, token in zip(launched.drawn, tokens, strict=True):
                if token < 0:
                    output.failed[one.request.request_id] = NOT_FINITE
                else:
                    output.sampled[one.request.request_id] = [token]
        return output

    def forget(self, plan: StepPlan) -> None:
        super().forget(plan)
        for name in plan.finished:
            self.draws.pop(name, None)

    def forward(self, scheduled: list[ScheduledRequest]) -> Tensor:
        """`ModelRunner.forward`, by a replay where there can be one."""
        host = self.batch.host_inputs(scheduled)
        rows = np.array([self.batch.rows[one.request.request_id] for one in scheduled])
        if self.graphs is not None and self.graphs.fits(host):
            return self.graphs.run(host, rows)
        inputs = host.on(self.batch.device)
        self._feed(inputs.token_ids, host, rows)
        attend = PagedAttend(self.storage, inputs.metadata, self.backend)
        return self.model(inputs.token_ids, inputs.positions, attend, wanted=inputs.wanted)

    def _feed(self, token_ids: Tensor, host: HostInputs, rows: np.ndarray) -> None:
        """Put what was sampled last where the host does not know it yet."""
        pending = np.flatnonzero(host.token_ids == PENDING)
        if len(pending):
            rows = np.repeat(rows, np.diff(host.query_start_loc))[pending]
            there = upload({"places": pending, "rows": rows}, token_ids.device)
            token_ids[there["places"]] = self.newest[there["rows"]].clamp(min=0)  # a row that failed sampled -1

    def _sampled(self, launched: Launched, logits: Tensor) -> None:
        """Draw what is drawn on the device; keep the logits of the other rows."""
        wanted, split = [one for one in launched.plan.scheduled if one.wants_token], ([], [])
        for index, one in enumerate(wanted):
            split[self._draw_of(one) is None].append(index)
        here, on_host = split
        if on_host:
            places = upload({"drawn": np.array(here, np.int64), "host": np.array(on_host, np.int64)}, logits.device)
            launched.on_host, launched.logits = [wanted[i] for i in on_host], logits[places["host"]]
            logits = logits[places["drawn"]]
        if here:
            launched.drawn = [wanted[i] for i in here]
            names = [one.request.request_id for one in launched.drawn]
            positions = [one.start + one.num_tokens for one in launched.drawn]
            draws, rows = [self.draws[name] for name in names], [self.batch.rows[name] for name in names]
            launched.tokens = ToHost(draw(logits, draws, positions, rows, self.newest))

    def _draw_of(self, one: ScheduledRequest) -> Draw | None:
        name = one.request.request_id
        if name not in self.draws:
            self.draws[name] = new_draw(one.request.sampling_params)
        return self.draws[name]
