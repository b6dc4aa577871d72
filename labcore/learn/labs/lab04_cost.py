"""Lab 4, what is measured: the bias of a lossy rule, and the acceptance of a draft from what was kept."""

from __future__ import annotations

import numbers

import numpy as np
import torch
from torch import Tensor

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab04_references as ref
from labcore.learn.labs.lab04_tools import drawn_law, law

LAB = "lab04"


def bias_of(
    p, q, epsilon, delta, *, entropy=None, smaller=min, refill=True, half=0.5, sign=-1.0, above=torch.gt
) -> float:
    """`typical_bias` with a part to be got wrong on purpose."""
    uncertain = float(torch.special.entr(p).sum() if entropy is None else entropy(p))
    passes = above(p, smaller(epsilon, delta * float(torch.tensor(sign * uncertain).exp())))
    kept = torch.where(passes, q, 0)
    out = kept + (1 - kept.sum()) * p if refill else kept / kept.sum().clamp(min=1e-300)
    return float(half * (out - p).abs().sum())


def drawn_pair(generator: np.random.Generator) -> tuple:
    seed, vocab = int(generator.integers(1 << 30)), int(generator.integers(2, 9))
    p, q = (drawn_law(seed + i, vocab, float(generator.uniform(0.5, 3)), bool(generator.integers(2))) for i in range(2))
    return p, q, float(generator.uniform(0.01, 0.5)), float(generator.uniform(0.02, 0.6))


def recovers(alpha: float, length: int) -> object:
    """A stage: from simulated verifications the estimate is alpha, to within five standard deviations."""

    def stage(attempt: Attempt) -> None:
        generator = np.random.default_rng(3)
        kept = (generator.random((4_000, length)) < alpha).cumprod(1).sum(1).tolist()
        tried = sum(kept) + sum(count < length for count in kept)
        found, slack = attempt(kept, length), 5 * (alpha * (1 - alpha) / tried) ** 0.5
        found = found.item() if isinstance(found, Tensor | np.generic) and found.ndim == 0 else found
        if not isinstance(found, numbers.Real) or not abs(found - alpha) < slack:
            raise Fault(
                f"4,000 verifications of {length} drafts, each kept with {alpha:g}, kept {sum(kept):,} of "
                f"{4_000 * length:,}; your estimate is {describe(found)}. How many drafts were really put to the test?"
            )

    return stage


EXERCISES = (
    Exercise(
        id="spec.typical",
        lab=LAB,
        title="What typical acceptance does to the distribution",
        asked="Medusa keeps more drafts at temperature 0.7 than rejection sampling would. Where does it come from?",
        spec="Write `typical_bias(p, q, epsilon, delta)`. Typical acceptance keeps a draft x ~ `q` if p(x) > "
        "min(ε, δ·exp(−H)), where H = −Σ p log p (natural logarithm, 0·log 0 = 0); otherwise the token is drawn from "
        "`p`. Return the **total variation** between the law of the token that comes out and `p`: half the sum of the "
        "absolute differences, a float. `p` and `q` are float64 [vocab] and may contain zeros.",
        reference=ref.typical_bias,
        stages=(
            oracle(law(0.4, 0.35, 0.25), law(1.0, 0.0, 0.0), 0.3, 0.09, gives=0.6),
            oracle(law(0.5, 0.5, 0.0), law(0.0, 0.0, 1.0), 0.3, 0.09, gives=0.0),
            trap(law(0.4, 0.32, 0.28), law(0.0, 0.0, 1.0), 0.3, 0.09, says="0.28 is above δ·exp(−H) = 0.03"),
            trap(law(0.4, 0.35, 0.25), law(0.0, 0.0, 1.0), 0.3, 0.09, says="0.25 is above δ·exp(−H) = 0.03"),
            trap(law(0.75, 0.25, 0.0), law(0.0, 1.0, 0.0), 0.3, 0.09, says="0.25 is above δ·exp(−H) = 0.05"),
            trap(
                law(0.98, 0.01, 0.01),
                law(0.98, 0.01, 0.01),
                0.3,
                0.09,
                says="even q = p is biased: the tail is drawn anew",
            ),
            trap(law(0.05, 0.95), law(1.0, 0.0), 0.02, 0.09, says="the smaller of the two is the bar, here ε = 0.02"),
            trap(law(0.5, 0.5), law(1.0, 0.0), 0.5, 1.5, says="p(x) = ε is not above the bar: strictly >"),
            agrees(drawn_pair, n=60),
        ),
        mistakes=(
            Mistake("a token on the bar is not above it: strictly >", lambda *a: bias_of(*a, above=torch.ge)),
            Mistake(
                "0·log 0 is 0 here and must not become nan, in which every comparison fails",
                lambda *a: bias_of(*a, entropy=lambda p: -(p * p.log()).sum()),
            ),
            Mistake("an uncertain target lowers the bar: exp(−H), not exp(+H)", lambda *a: bias_of(*a, sign=1.0)),
            Mistake("the total variation is half the sum of |difference|", lambda *a: bias_of(*a, half=1.0)),
            Mistake("the bar is the smaller of ε and δ·exp(−H)", lambda *a: bias_of(*a, smaller=max)),
            Mistake(
                "exp goes with the natural logarithm: H in bits lowers the bar",
                lambda *a: bias_of(*a, entropy=lambda p: torch.special.entr(p).sum() / np.log(2)),
            ),
            Mistake(
                "what does not pass is drawn from p: that share of p is part of the output",
                lambda *a: bias_of(*a, refill=False),
            ),
        ),
        hints=(
            "Write the output's law as a sum over what the draft said: a token that passes comes out as it is, and all "
            "that does not pass turns into one draw from p.",
            "passes = p > min(ε, δ·exp(−H)); out = q where it passes, plus (Σ q where it does not) · p. Half "
            "the sum of |out − p|.",
            "`H = torch.special.entr(p).sum()`",
        ),
        difficulty=2,
        importance=2,
        minutes=(8, 12),
    ),
    Exercise(
        id="spec.estimate",
        lab=LAB,
        title="Which acceptance was that?",
        asked="The log says that 45 % of the drafted tokens were accepted. So α is 0.45?",
        spec="Write `estimate_alpha(accepted, length)`: `accepted` lists how many of its `length` drafts each "
        "verification kept, one number or more. Return the maximum-likelihood estimate of α, the probability that a "
        "draft is kept **when it is put to the test**: kept drafts over tested drafts. A verification stops at its "
        "first rejection, so the drafts behind it were never tested.",
        reference=ref.estimate_alpha,
        stages=(
            oracle([2, 0, 4], 4, gives=0.75),
            trap([3, 3], 3, says="all kept: nothing was rejected"),
            trap([0, 0, 0, 0], 2, says="four tested, four rejected"),
            recovers(0.8, 4),
            agrees(lambda g: (g.integers(0, 5, size=int(g.integers(1, 9))).tolist(), 4), n=40),
        ),
        mistakes=(
            Mistake(
                "kept over drafted counts drafts that nobody tested: behind a rejection the rest is thrown away unread",
                lambda a, n: sum(a) / (n * len(a)),
            ),
            Mistake(
                "a verification that kept everything contains no rejection",
                lambda a, n: sum(a) / (sum(a) + len(a)),
            ),
            Mistake(
                "the token that the target adds is not a draft",
                lambda a, n: (sum(a) + len(a)) / ((n + 1) * len(a)),
            ),
            Mistake(
                "the mean of the shares is not the share: long verifications test more drafts",
                lambda a, n: sum(k / min(k + 1, n) for k in a) / len(a),
            ),
        ),
        hints=(
            "Line up the coin flips: each tested draft is one. How many does a verification make that kept 2 of 4?",
            "Flips that came up “kept”: the sum. Flips that came up “rejected”: one for each verification that kept "
            "fewer than all.",
            "`rejections = sum(count < length for count in accepted)`",
        ),
        difficulty=1,
        importance=3,
        minutes=(4, 6),
        rel_tol=1e-6,  # integer tensors divide in float32
    ),
)
