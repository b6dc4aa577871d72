"""What a run did, step by step: tokens, cached tokens attended to, blocks moved, and the time of each stage."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from labcore.core.step_plan import Move, ScheduledRequest, StepPlan

STAGES = "schedule", "model", "sample", "draft", "update"
KEPT_STEPS = 2**16  # of a server that never ends


@dataclass(slots=True)
class StepRecord:
    """One step. tokens: computed; context: cached tokens attended to, each request's once; pairs: queries times the
    keys they see; sampled: answer tokens; drafted: draft tokens computed, in so many rows as `verified` says; accepted:
    of these; decode: everybody had an answer already and got its next token; moved: blocks copied; swapped: blocks
    moved between device and host; seconds: of each of STAGES."""

    tokens: int = 0
    context: int = 0
    pairs: int = 0
    sampled: int = 0
    drafted: int = 0
    verified: int = 0
    accepted: int = 0
    decode: bool = True
    moved: int = 0
    swapped: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def duration(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def count(self, plan: StepPlan, window: int | None = None) -> None:
        """Take down what `plan` asks for, with or without a sliding window."""
        self.tokens = plan.num_tokens
        self.swapped = sum(move.kind is not Move.COPY for move in plan.moves)
        self.moved = len(plan.moves) - self.swapped
        for one in plan.scheduled:
            self._count_row(one, window)

    def _count_row(self, one: ScheduledRequest, window: int | None) -> None:
        new, end = one.num_tokens, one.start + one.num_tokens
        self.drafted += one.num_draft_tokens
        if window is None:
            self.context += end
            self.pairs += new * (one.start + 1 + end) // 2
        else:
            self.context += min(end, window + new - 1)
            self.pairs += sum(min(position + 1, window) for position in range(one.start, end))
        self.decode &= one.start >= one.request.num_prompt_tokens and new == 1 + one.num_draft_tokens


class RunStats:
    """The steps of one run. Decode steps are those in which every request had an answer already and got its next token;
    all others, prompts and mixtures, are prefill. decode_context: cached tokens that decode steps attended to, summed.
    """

    def __init__(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.preemptions = 0
        self.steps: deque[StepRecord] = deque(maxlen=KEPT_STEPS)

    def total(self, name: str, decode: bool | None = None) -> float:
        """A field of the step records, summed over all steps, or over those that are decode steps or are not."""
        return sum(getattr(step, name) for step in self.steps if decode is None or step.decode == decode)

    @property
    def new_tokens(self) -> int:
        return self.total("sampled")

    @property
    def prefill_seconds(self) -> float:
        return self.total("duration", decode=False)

    @property
    def decode_seconds(self) -> float:
        return self.total("duration", decode=True)

    @property
    def decode_tokens(self) -> int:
        return self.total("sampled", decode=True)

    @property
    def decode_passes(self) -> int:
        return sum(step.decode for step in self.steps)

    @property
    def decode_context(self) -> int:
        return self.total("context", decode=True)

    @property
    def acceptance_length(self) -> float:
        """Tokens that came of verifying one draft, the target's own included; 0 where nothing was drafted."""
        verified = self.total("verified")
        return 1 + self.total("accepted") / verified if verified else 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second of prefill steps; 0 before a run."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens per second over all requests, in decode steps; 0 when one token was all."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    def read_rate(self, weight_bytes: float, kv_bytes_per_token: float) -> float:
        """Bytes per second that decoding read: all weights once a step, and every cached key and value once."""
        read = self.decode_passes * weight_bytes + self.decode_context * kv_bytes_per_token
        return read / self.decode_seconds if self.decode_seconds else 0.0
