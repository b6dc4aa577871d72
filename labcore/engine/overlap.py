"""The engine loop with the host one step ahead of the device.

    plain:    | schedule 1 |  run 1  | answer 1 | schedule 2 |  run 2  | …      the device waits for the host
    overlap:  | schedule 1 |  run 1  |  run 2  |  run 3  | …                    and here the host for the device
                           | schedule 2 | answer 1, schedule 3 | …

Step n + 1 is planned and launched while step n runs. What it has to know of step n is how many tokens each request got,
which is one, and where they are: on the device, from where the next step feeds itself (`device_runner`). The host reads
them one step late, and only then learns that an answer ended.

What it costs: a request that ends with a stop token or a stop string has one row too many in the step that is already
running; that token is discarded, and its blocks are free one step later. An answer that ends by length costs nothing,
for that is known ahead. Every token reaches the caller one step later than it could; over a whole answer that is one
step, not one step a token. A request that is preempted loses the token that was being sampled, and samples it again.

Where it cannot be used: while any request's next token depends on the text so far (penalties, bad words, min_tokens,
logits processors, and with them grammars), or its log probabilities are wanted, the engine goes on in the plain order;
so it does with speculation, whose steps yield numbers of tokens that nobody knows ahead.
Sources: NanoFlow, arXiv:2408.12757; SGLang's overlap scheduler, which vLLM calls async scheduling; the token table on
the device is mini-sglang's.
"""

from __future__ import annotations

from collections.abc import Iterable

from labcore.core.request import Request
from labcore.engine.answer import Answer, Progress
from labcore.engine.device_runner import DeviceRunner, Launched
from labcore.engine.device_sampling import draws_on_device
from labcore.engine.engine_core import EngineCore
from labcore.engine.scheduler import Scheduler
from labcore.model.tokenizer import Tokenizer


class OverlappedEngine(EngineCore):
    """An EngineCore whose steps overlap; the scheduler's config has async_scheduling.

    The times of a step's record are those that the host spent on it, so that they still add up to the run's: "model"
    is launching, and waiting where the host was early.
    """

    def __init__(self, scheduler: Scheduler, runner: DeviceRunner, tokenizer: Tokenizer | None = None):
        super().__init__(scheduler, runner, tokenizer)
        self.in_flight: Launched | None = None
        self.need_host: set[str] = set()  # unfinished requests whose next token depends on the text so far

    def add_request(self, request: Request) -> Answer:
        answer = super().add_request(request)
        if draws_on_device(request.sampling_params):
            self.need_host.discard(request.request_id)  # of one that was aborted
        else:
            self.need_host.add(request.request_id)
        return answer

    def step(self) -> list[Progress]:
        """Launch the next step, then take what came of the one before."""
        self.need_host &= self.scheduler.requests.keys()
        before, self.in_flight = self.in_flight, None
        if self.need_host:
            return self._take(before) if before is not None else super().step()
        try:
            failed = self._launch()
        except BaseException:  # an interruption; what runs is still there for the next call
            self.in_flight = before
            raise
        progress = self._take(before) if before is not None else []
        self._drop_idle()  # a token too many for each request that stopped
        return progress + failed

    def abort(self, request_ids: str | Iterable[str]) -> None:
        super().abort(request_ids)
        self._drop_idle()

    def _drop_idle(self) -> None:
        """Forget a step that runs for nobody: it would be counted in the next run."""
        if not self.has_unfinished_requests():
            self.in_flight = None

    def _launch(self) -> list[Progress]:
        """Plan a step and set it running; the requests that failed if it could not be."""
        plan, record = self.plan_step()
        self.in_flight = self.guarded(plan, lambda: self.runner.launch(plan, record))
        return self._failed(plan) if self.in_flight is None else []

    def _take(self, step: Launched) -> list[Progress]:
        """Wait for a step that runs and hand out what came of it. If it raised, the one behind it is lost, too."""
        output = self.guarded(step.plan, lambda: self.runner.collect(step))
        progress = self.answer_step(step.plan, step.record, output)
        if output is None and self.in_flight is not None:
            self.scheduler.fail_step(self.in_flight.plan, "the step before it raised")
            progress += self._failed(self.in_flight.plan)
            self.in_flight = None
        return progress
