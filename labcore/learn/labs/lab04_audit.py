"""Lab 4, the test: tell a sampler that is lossless from one that is nearly so, by its tokens alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labcore.learn.exercises import Attempt, Exercise, Fault
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab04_references as ref
from labcore.learn.labs.lab04_tools import MISTAKES, drawn_law, draws, law

LAB = "lab04"


def judged(attempt: Attempt, tokens: Tensor, p: Tensor) -> bool:
    """The verdict of the reader's test. Fault unless it is True or False."""
    verdict = attempt(tokens, p)
    verdict = verdict.item() if isinstance(verdict, Tensor | np.generic) and verdict.ndim == 0 else verdict
    if not isinstance(verdict, bool):
        raise Fault(f"is_biased returned {describe(verdict)}, expected True or False")
    return verdict


def honest(count: int, times: int = 12) -> Callable[[Attempt], None]:
    """A stage: draws from p itself are never called biased."""

    def stage(attempt: Attempt) -> None:
        for seed in range(times):
            p = drawn_law(seed, 6)
            tokens = draws(p, count, seed)
            if judged(attempt, tokens, p):
                off = float((torch.bincount(tokens, minlength=6) / count - p).abs().sum() / 2)
                raise Fault(
                    f"{count:,} honest draws from p were called biased: their shares are {off:.4f} away from it, and "
                    "that is what chance does at this n"
                )

    return stage


def catches(name: str, count: int) -> Callable[[Attempt], None]:
    """A stage: so many tokens of a wrong sampler are called biased."""

    def stage(attempt: Attempt) -> None:
        p, q = drawn_law(3, 6, 1.5), drawn_law(4, 6, 1.5)
        out = MISTAKES[name](p, q)
        if not judged(attempt, draws(out, count, 5), p):
            off = float((out - p).abs().sum() / 2)
            raise Fault(f"a sampler passed that {name}: {count:,} tokens from a law {off:.3f} away from p")

    return stage


def same_mean(attempt: Attempt) -> None:
    """A stage: two laws with one mean."""
    p, out = law(0.4, 0.1, 0.1, 0.4), law(0.1, 0.4, 0.4, 0.1)
    if not judged(attempt, draws(out, 10_000, 0), p):
        raise Fault(
            "10,000 tokens with the shares 0.1, 0.4, 0.4, 0.1 passed for 0.4, 0.1, 0.1, 0.4: compare each token"
        )


PAIRS = (  # the same share of token 0 and of the likeliest; the same mean and variance
    (law(0.1, 0.5, 0.3, 0.1), law(0.1, 0.5, 0.1, 0.3)),
    (law(0.2, 0.3, 0.3, 0.2), law(0.25, 0.15, 0.45, 0.15)),
    (law(0.0, 0.5, 0.5), law(0.0, 0.6, 0.4)),  # behind a token that cannot be
)


def every_token(attempt: Attempt) -> None:
    """A stage: laws that agree in one token, or in two moments, differ."""
    for p, out in PAIRS:
        if not judged(attempt, draws(out, 10_000, 0), p):
            raise Fault(
                f"10,000 tokens from {out.tolist()} passed for {p.tolist()}: one token or a moment is not the law"
            )


def impossible(attempt: Attempt) -> None:
    """A stage: one token that cannot be."""
    p = law(0.5, 0.5, 0.0)
    tokens = torch.cat((draws(p, 199, 1), torch.tensor([2])))
    if not judged(attempt, tokens, p):
        raise Fault("one of 200 tokens has p = 0, and the test passed: what cannot happen is proof, however rare it is")


def unseen(attempt: Attempt) -> None:
    """A stage: a token that cannot be, and never came."""
    p = law(0.5, 0.5, 0.0)
    if judged(attempt, draws(p, 1_000, 1), p):
        raise Fault(
            "1,000 honest draws from [0.5, 0.5, 0] were called biased: what has p = 0 never came, as it should be"
        )


def slight(attempt: Attempt) -> None:
    """A stage: a small bias shows in many draws."""
    p, q = drawn_law(7, 6), drawn_law(8, 6)
    share = 0.03 / float((p - q).abs().sum() / 2)
    if not judged(attempt, draws((1 - share) * p + share * q, 100_000, 2), p):
        raise Fault("100,000 tokens from a law 0.03 away from p passed: at this n chance explains about 0.003")


EXERCISES = (
    Exercise(
        id="spec.biased",
        lab=LAB,
        title="The test that catches a biased sampler",
        asked="Somebody sends you a speculative sampler. How do you test that it is lossless?",
        spec="Write `is_biased(tokens, p)`: `tokens`, int64 [n], came out of a sampler that should draw from `p`, "
        "float64 [vocab]. Return **True** if chance does not explain their shares, **False** if it does. It will see "
        "honest samples of 50 to 100,000 tokens and must call none of them biased, and samplers with mistakes in them, "
        "20,000 tokens each. A bound that you can defend beats one that you tuned.",
        reference=ref.is_biased,
        stages=(
            honest(50),
            honest(1_000),
            honest(100_000, times=6),
            catches("keeps every draft", 20_000),
            catches("keeps with min(1, q/p)", 20_000),
            same_mean,
            every_token,
            catches("resamples from p after a rejection", 20_000),
            catches("residual |p - q|", 20_000),
            unseen,
            impossible,
            slight,
        ),
        hints=(
            "How far are the shares of n honest draws from p? Each is p ± √(p(1−p)/n). A test is a distance, and a "
            "threshold that falls with √n.",
            "Distance: half the sum of |share − p|. Its mean is at most half the sum of √(p(1−p)/n), and it is t "
            "above its mean with probability exp(−2 n t²) at most (McDiarmid): choose t for one false alarm in a "
            "million. A token with p = 0 needs no statistics.",
            "`shares = torch.bincount(tokens, minlength=len(p)) / len(tokens)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(10, 15),
    ),
)
