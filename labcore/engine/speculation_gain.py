"""What a run with drafts yielded and cost, and what that says of the next one.

Not the same run: a row of `bench_speculation` predicts its rounds from a run before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labcore.bench.record import RunBuilder
from labcore.engine.stats import RunStats
from labcore.formulas import formula
from labcore.model.llama import Llama
from labcore.model.stats import kv_bytes_per_token, layer_parameters, weight_bytes_per_pass


@dataclass
class Decoded:
    """One run: answers by prompt, and the engine's records."""

    answers: dict[tuple[int, ...], list[int]]
    stats: RunStats

    @property
    def rate(self) -> float:
        """Answer tokens per second of decode steps."""
        return self.stats.decode_rate

    @property
    def tokens_per_pass(self) -> float:
        """What a pass yields for a request, passes without a draft counted."""
        tokens, accepted = self.stats.decode_tokens, self.stats.total("accepted", decode=True)
        return tokens / (tokens - accepted)

    @property
    def drafting_share(self) -> float:
        """Share of the passes of a request that verified a draft."""
        verified, accepted = (self.stats.total(name, decode=True) for name in ("verified", "accepted"))
        return verified / (self.stats.decode_tokens - accepted)

    @property
    def draft_length(self) -> float:
        """Tokens of a draft, on average; 0 if there was none."""
        verified = self.stats.total("verified", decode=True)
        return self.stats.total("drafted", decode=True) / verified if verified else 0.0

    def step_seconds(self, stage: str | None = None) -> float:
        """Mean time of a decode step, or of a stage of it; of those that verified drafts, if any did."""
        steps = [step for step in self.stats.steps if step.decode]
        steps = [step for step in steps if step.drafted] or steps
        return sum(step.duration if stage is None else step.seconds[stage] for step in steps) / len(steps)

    def share_right(self, prompt: Sequence[int], expected: Sequence[int]) -> float:
        """Share of the answer's tokens that are the expected ones."""
        return float(np.mean([a == b for a, b in zip(self.answers[tuple(prompt)], expected, strict=True)]))

    def agreement(self, other: Decoded) -> float:
        """Share of the answers' tokens up to the first that differs."""
        same = [
            next((i for i, (a, b) in enumerate(zip(one, other.answers[prompt], strict=True)) if a != b), len(one))
            / len(one)
            for prompt, one in self.answers.items()
        ]
        return sum(same) / len(same)


@dataclass(frozen=True)
class Prediction:
    """What one run says of the next. alpha: acceptance of a place, from the tokens of a pass; c, v: times of a draft
    step and of a verification, in plain steps; gains with v = 1, with the roofline's v, and with the measured one."""

    alpha: float
    c: float
    v: float
    free: float
    roofline: float
    measured: float

    @classmethod
    def of(cls, run: RunBuilder, model: Llama, plain: Decoded, spec: Decoded, batch: int, length: int) -> Prediction:
        """A tree counts as a chain of as many tokens, with the alpha that gives the same tokens a pass. Where only a
        share of the passes had a draft, the others cost a plain step each."""
        length_of, share = spec.draft_length, spec.drafting_share
        if not share:
            return cls(0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
        step, drafting = plain.step_seconds(), spec.step_seconds("draft")
        alpha = acceptance(spec.stats.acceptance_length, length_of)
        c, v = drafting / length_of / step, (spec.step_seconds() - drafting) / step
        weights = weight_bytes_per_pass(model)
        parameters = layer_parameters(model) + model.config.vocab * model.config.hidden
        machine = {"F": run.ceiling("matmul.fp32"), "beta": run.ceiling("read_bandwidth")}
        sizes = {"P": parameters, "b_w": weights / parameters, "kappa": kv_bytes_per_token(model)}
        shared = {"alpha": alpha, "K": length_of, "c": c}
        gains = (
            formula["speculation.speedup"](**shared),
            formula["speculation.batch_gain"](**shared, **sizes, **machine, B=batch, L=length),
            formula["speculation.gain"](**shared, v=v),
        )
        costs = (spec.stats.acceptance_length / gain for gain in gains)  # of a pass with a draft, in plain steps
        return cls(alpha, c, v, *(spec.tokens_per_pass / (1 - share + share * cost) for cost in costs))


def acceptance(tokens_per_pass: float, drafted: float) -> float:
    """alpha of equation 4.4, found by bisection: with so many drafted tokens a pass yields `tokens_per_pass`."""
    low, high = 1e-6, 1 - 1e-6
    for _ in range(50):
        middle = (low + high) / 2
        yields = formula["speculation.expected_tokens"](alpha=middle, K=drafted)
        low, high = (middle, high) if yields < tokens_per_pass else (low, middle)
    return low
