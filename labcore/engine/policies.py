"""Who runs first, who is admitted, who is preempted: everything about scheduling that is a matter of taste.

The scheduler asks a policy at a few points and does the rest itself. Each policy below changes what it must and nothing
else. None may starve the request that is first by `key` among those it lets run: that request is never preempted, so
every trace ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from labcore.core.request import Request
from labcore.core.step_plan import StepPlan


class FCFS:
    """First come, first served, vLLM's default: running requests go on, then waiting ones join in order of arrival."""

    mixes = True  # False: a step computes prompts or answers, never both, and prompts go first

    def key(self, request: Request):
        """Sorts the waiting and the running requests; the last running one is preempted first."""
        return request.order

    def order(self, running: Sequence[Request]) -> list[Request]:
        """Running requests in the order in which they are served; a new list. Victims are taken from its end."""
        return list(running)

    def may_admit(self, running: Sequence[Request]) -> bool:
        """Whether anything may be admitted in this step."""
        return True

    def pick(self, waiting: Sequence[Request]) -> Request:
        """The request to admit next; `waiting` is sorted and not empty."""
        return waiting[0]

    def arrived(self, request: Request, unfinished: Iterable[Request]) -> None:
        """`request` joins those `unfinished`."""

    def charge(self, plan: StepPlan) -> None:
        """`plan` is about to run."""


class Priority(FCFS):
    """A smaller `priority` goes first; arrival decides among equals. vLLM's policy "priority"."""

    def key(self, request: Request):
        return request.priority, request.arrival, request.order


class ShortestFirst(FCFS):
    """Shortest job first, by the length a request may grow to: the best mean latency, unfair to the long."""

    def key(self, request: Request):
        return request.max_total_tokens, request.order


class PrefillFirst(FCFS):
    """A step computes prompts or answers, never both, and prompts have precedence: the state before chunked prefill.

    Good for the newcomer's time to first token, paid by gaps in everybody else's answer. A prompt gets all its blocks
    on admission; if it could preempt answers, those would come back as prompts and preempt it in turn, for ever.
    """

    mixes = False

    def order(self, running: Sequence[Request]) -> list[Request]:
        return sorted(running, key=lambda request: not is_prefill(request))

    def may_admit(self, running: Sequence[Request]) -> bool:
        return not any(map(is_prefill, running))


class DecodeFirst(FCFS):
    """Answers before prompts, whatever came first: stall-free batching, Sarathi-Serve, arXiv:2403.02310.

    FCFS with chunked prefill nearly does this, since what is unfinished came last; here drafts and blocks, too, go to
    answers first. Only the oldest request keeps its place, or newcomers could take the blocks of its prompt for ever.
    """

    def order(self, running: Sequence[Request]) -> list[Request]:
        return [*running[:1], *sorted(running[1:], key=is_prefill)]


class StaticBatching(FCFS):
    """The baseline: a batch is admitted together and the next one only when its last request has finished."""

    def may_admit(self, running: Sequence[Request]) -> bool:
        return not running


class FairShare(FCFS):
    """Per tenant: the one who has been served least is admitted next. Virtual token counter, arXiv:2401.00588.

    A computed token costs 1 and a sampled one 2 more. Who was away resumes with the least-served of those present, or
    of the last step if nobody is, so absence saves nothing up.
    """

    def __init__(self) -> None:
        self.served: dict[str, float] = defaultdict(float)
        self.level = 0.0  # of the least served in the last step

    def pick(self, waiting: Sequence[Request]) -> Request:
        return min(waiting, key=lambda request: (self.served[request.tenant], request.order))

    def arrived(self, request: Request, unfinished: Iterable[Request]) -> None:
        present = {other.tenant for other in unfinished}
        if request.tenant not in present:
            level = min((self.served[tenant] for tenant in present), default=self.level)
            self.served[request.tenant] = max(self.served[request.tenant], level)

    def charge(self, plan: StepPlan) -> None:
        for row in plan.scheduled:
            self.served[row.request.tenant] += row.num_tokens + 2 * row.wants_token
        if plan.scheduled:
            self.level = min(self.served[row.request.tenant] for row in plan.scheduled)


def is_prefill(request: Request) -> bool:
    """More than the last known token is still to be computed."""
    return request.num_tokens - request.num_computed_tokens > 1


POLICIES: dict[str, Callable[[], FCFS]] = {
    "fcfs": FCFS,
    "priority": Priority,
    "shortest_first": ShortestFirst,
    "prefill_first": PrefillFirst,
    "decode_first": DecodeFirst,
    "static": StaticBatching,
    "fair": FairShare,
}
