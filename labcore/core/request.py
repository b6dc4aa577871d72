"""One generation request: its tokens, how far their keys and values are computed, and where it stands in its life.

Names and semantics are those of vLLM V1 (0.9.2, vllm/v1/request.py). There is no prefill and no decode state: a request
wants `num_tokens` (prompt and answer) and its drafts computed, has `num_computed_tokens`, and the scheduler lets the
second catch up with the first. Only the scheduler changes status, drafts and num_computed_tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from labcore.core.draft import is_chain
from labcore.core.errors import InputError
from labcore.core.sampling_params import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from labcore.core.draft import Draft


class RequestStatus(IntEnum):
    """Where a request is. It owns blocks only while RUNNING (a swapped one owns host blocks while PREEMPTED)."""

    WAITING = 0
    RUNNING = 1
    PREEMPTED = 2
    FINISHED_STOPPED = 3
    FINISHED_LENGTH_CAPPED = 4
    FINISHED_ABORTED = 5
    FINISHED_ERROR = 6

    @property
    def finished(self) -> bool:
        return self > RequestStatus.PREEMPTED


FINISH_REASONS = {
    RequestStatus.FINISHED_STOPPED: "stop",
    RequestStatus.FINISHED_LENGTH_CAPPED: "length",
    RequestStatus.FINISHED_ABORTED: "abort",
    RequestStatus.FINISHED_ERROR: "error",
}
NEXT_STATUS = {  # besides these, whatever is not finished may finish
    RequestStatus.WAITING: RequestStatus.RUNNING,
    RequestStatus.RUNNING: RequestStatus.PREEMPTED,
    RequestStatus.PREEMPTED: RequestStatus.RUNNING,
}


class Request:
    """What a caller asked for and how far it is.

    all_token_ids: prompt and answer, append-only; spec_token_ids: drafts to verify behind them, with spec_parents and
    spec_laws (see core.draft; where a draft was cut, their first entries count); num_computed_tokens: leading tokens
    whose keys and values are stored, once the plan that was made last has run. block_hashes: one per
    full block of all_token_ids, extended by the cache manager. num_pending_tokens: sampled by plans that have not been
    answered yet, so they are on the device and nobody has read them (vLLM's num_output_placeholders).
    num_cached_tokens: prompt tokens that the first admission found computed. arrival: seconds on the caller's clock,
    for metrics; order: place in the queue, set by the scheduler. fork_of: a request with the same prompt whose blocks
    this one may share (parallel sampling); forks: those that wait for this one's prompt. error: one sentence, set with
    FINISHED_ERROR. Raises InputError for an empty prompt, and for parameters that stand for several answers or for
    texts: `engine.processor` turns those into requests.
    """

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        sampling_params: SamplingParams,
        *,
        eos_token_ids: Iterable[int] = (),
        priority: int = 0,
        tenant: str = "",
        cache_salt: str = "",
        arrival: float = 0.0,
        fork_of: Request | None = None,
    ):
        if not prompt_token_ids:
            raise InputError(f"request {request_id!r}: the prompt is empty; give at least one token")
        if sampling_params.n > 1 or any(isinstance(words, str) for words in sampling_params.bad_words):
            raise InputError(
                f"request {request_id!r}: n > 1 and bad words as text are for Processor.requests to resolve"
            )
        try:
            cache_salt.encode()  # here, and not in the scheduler, where it would end every request
        except (AttributeError, UnicodeEncodeError):
            raise InputError(
                f"request {request_id!r}: cache_salt={cache_salt!r} must be text, without lone surrogates"
            ) from None
        self.request_id, self.sampling_params = request_id, sampling_params
        self.num_prompt_tokens = len(prompt_token_ids)
        self.all_token_ids = list(prompt_token_ids)
        self.spec_token_ids: list[int] = []
        self.spec_parents: list[int] | None = None
        self.spec_laws: Tensor | None = None
        self.num_computed_tokens = 0
        self.max_total_tokens = self.num_prompt_tokens + sampling_params.max_tokens  # the scheduler caps it
        eos = () if sampling_params.ignore_eos else eos_token_ids
        self.stop_ids = frozenset(sampling_params.stop_token_ids).union(eos)
        self.priority, self.tenant, self.cache_salt, self.fork_of = priority, tenant, cache_salt, fork_of
        self.arrival, self.order = arrival, 0
        self.block_hashes: list[bytes] = []
        self.forks: list[Request] = []
        self.num_cached_tokens = self.num_preemptions = self.admitted_step = self.num_pending_tokens = 0
        self.status = RequestStatus.WAITING
        self.error: str | None = None

    def __repr__(self) -> str:
        return (
            f"Request({self.request_id!r}, {self.status.name}, "
            f"{self.num_computed_tokens} of {self.num_tokens} tokens computed)"
        )

    @property
    def num_tokens(self) -> int:
        """Tokens known for certain: prompt and answer, without drafts."""
        return len(self.all_token_ids)

    @property
    def num_tokens_with_spec(self) -> int:
        """What num_computed_tokens is catching up with."""
        return len(self.all_token_ids) + len(self.spec_token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.all_token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> list[int]:
        """The answer so far; a copy."""
        return self.all_token_ids[self.num_prompt_tokens :]

    @property
    def finished(self) -> bool:
        return self.status.finished

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length", "abort" or "error"; None while it runs."""
        return FINISH_REASONS.get(self.status)

    def move_to(self, status: RequestStatus) -> None:
        """Change the status. Raises RuntimeError for a transition that a request's life does not have."""
        if self.status.finished or not (status.finished or NEXT_STATUS[self.status] == status):
            raise RuntimeError(f"request {self.request_id!r} cannot go from {self.status.name} to {status.name}")
        self.status = status

    def take_draft(self, draft: Draft, room: int) -> None:
        """Verify the first `room` tokens of `draft` in the next step."""
        draft = draft.first(room)
        self.spec_token_ids, self.spec_laws = draft.token_ids, draft.laws
        self.spec_parents = None if draft.parents is None or is_chain(draft.parents) else draft.parents

    def append_token(self, token_id: int) -> RequestStatus | None:
        """Add one sampled token to the answer; the status it ends with if that was the last, else None."""
        self.all_token_ids.append(token_id)
        if token_id in self.stop_ids and self.num_output_tokens >= self.sampling_params.min_tokens:
            return RequestStatus.FINISHED_STOPPED
        if len(self.all_token_ids) >= self.max_total_tokens:
            return RequestStatus.FINISHED_LENGTH_CAPPED
        return None
