"""The engine loop: schedule, run, sample, update; and what can go wrong in it.

    while core.has_unfinished_requests():
        for progress in core.step(): ...

Not safe for threads: one thread adds, steps and aborts (`async_engine` gives it one).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.step_plan import StepOutput, StepPlan
from labcore.engine.answer import Answer, Progress
from labcore.engine.runner import ModelRunner
from labcore.engine.scheduler import Scheduler
from labcore.engine.stats import RunStats, StepRecord
from labcore.model.tokenizer import Tokenizer
from labcore.sampling.logprobs import Logprobs

if TYPE_CHECKING:
    from labcore.engine.trace import TraceRecorder

log = logging.getLogger(__name__)
T = TypeVar("T")


class EngineCore:
    """stats: of all steps since it was last replaced; recorder: an event trace of every step, where one is wanted."""

    def __init__(self, scheduler: Scheduler, runner: ModelRunner, tokenizer: Tokenizer | None = None):
        self.scheduler, self.runner, self.tokenizer = scheduler, runner, tokenizer
        self.answers: dict[str, Answer] = {}
        self.stats = RunStats()
        self.recorder: TraceRecorder | None = None

    def add_request(self, request: Request) -> Answer:
        """Queue a request; its answer grows with the steps. Raises InputError if it can never be served."""
        vocab = self.runner.model.config.vocab
        if bad := [token for token in request.all_token_ids if not 0 <= token < vocab]:
            raise InputError(f"request {request.request_id!r} has token id {bad[0]}; this model has 0 to {vocab - 1}")
        self.scheduler.add_request(request)
        params = request.sampling_params
        detokenizer = self.tokenizer and self.tokenizer.detokenizer(skip_special=params.skip_special_tokens)
        answer = self.answers[request.request_id] = Answer(params, detokenizer)
        return answer

    def has_unfinished_requests(self) -> bool:
        return self.scheduler.has_unfinished_requests()

    def step(self) -> list[Progress]:
        """One step of everything that runs: each new token, and each request that failed."""
        plan, record = self.plan_step()
        return self.answer_step(plan, record, self.guarded(plan, lambda: self.runner.execute(plan, record)))

    def plan_step(self) -> tuple[StepPlan, StepRecord]:
        """The next plan, and a record of its times."""
        record = StepRecord()
        with record.timed("schedule"):
            plan = self.scheduler.schedule()
            if self.recorder is not None:
                self.recorder.record(plan)
        return plan, record

    def answer_step(self, plan: StepPlan, record: StepRecord, output: StepOutput | None) -> list[Progress]:
        """Hand out what came of a plan: None if it raised."""
        with record.timed("update"):
            progress = self._failed(plan) if output is None else list(self._update(plan, output))
        if plan.scheduled:
            record.count(plan, self.runner.storage.shape.window)
            record.sampled = sum(one.token_id is not None for one in progress)
            self.stats.preemptions += len(plan.preempted)
            self.stats.steps.append(record)
        return progress

    def guarded(self, plan: StepPlan, run: Callable[[], T]) -> T | None:
        """What came of running the plan; None, with its requests ended, if that raised. Interruptions are passed on."""
        try:
            return run()
        except BaseException as error:
            self.scheduler.fail_step(plan, f"the forward pass raised {type(error).__name__}: {error}")
            if not isinstance(error, Exception):
                raise
            log.exception("the forward pass of a step raised")
            return None

    def _update(self, plan: StepPlan, output: StepOutput) -> Iterator[Progress]:
        for request, tokens in self.scheduler.update_from_output(plan, output):
            yield from self._advance(request, tokens, output.logprobs.get(request.request_id, ()))
        yield from self._failed(plan)

    def _advance(self, request: Request, tokens: list[int], logprobs) -> Iterator[Progress]:
        """The new tokens of a request, up to one that completes a stop string."""
        name = request.request_id
        answer = self.answers[name]
        for index, token in enumerate(tokens):
            ends = request.finished and index == len(tokens) - 1
            text = answer.append(token, ends and request.status == RequestStatus.FINISHED_STOPPED)
            entry = self._readable(logprobs[index]) if logprobs else None
            if entry is not None:
                answer.logprobs.append(entry)
            reason = "stop" if answer.stopped else request.finish_reason if ends else None
            if reason is not None:
                text += answer.finish(reason)
                del self.answers[name]
            yield Progress(name, token, text, reason, entry)
            if answer.stopped:
                self.scheduler.finish_requests([name], RequestStatus.FINISHED_STOPPED)
                return

    def _readable(self, logprobs: Logprobs) -> Logprobs:
        """With the text of every token, where there is a tokenizer."""
        if self.tokenizer is None:
            return logprobs
        return {token: replace(one, decoded_token=self.tokenizer.decode([token])) for token, one in logprobs.items()}

    def _failed(self, plan: StepPlan) -> list[Progress]:
        """The requests of a plan that ended with an error."""
        failed = []
        for one in plan.scheduled:
            request = one.request
            name = request.request_id
            if name in self.scheduler.requests:  # another request by now, if this one has ended
                continue
            if request.status == RequestStatus.FINISHED_ERROR and name in self.answers:
                text = self.answers.pop(name).finish("error", request.error)
                failed.append(Progress(name, None, text, "error", error=request.error))
        return failed

    def abort(self, request_ids: str | Iterable[str]) -> None:
        """End requests at once, wherever they are; ids that are not there are passed over."""
        request_ids = [request_ids] if isinstance(request_ids, str) else request_ids
        names = [name for name in request_ids if name in self.answers]
        self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)
        for name in names:
            self.answers.pop(name).finish("abort")
