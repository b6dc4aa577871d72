"""Lab 4, drafts: how many, and from where if there is no model to ask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab04_references as ref

LAB = "lab04"


def best(longest: int, speedup: Callable[[int], float]) -> tuple[int, float]:
    """`plan_drafts` with another speed-up."""
    K = max(range(1, longest + 1), key=speedup)
    return (K, speedup(K)) if speedup(K) > 1 else (0, 1.0)


def tokens(alpha: float, K: int) -> float:
    return sum(alpha**i for i in range(K + 1))


def earlier(text: list[int], n: int) -> list[int]:
    """Where the last n tokens begin before they do at the end."""
    return [i for i in range(len(text) - n) if text[i : i + n] == text[len(text) - n :]]


def search(text, count, low, high, *, order=None, place=-1, wrap=True) -> list[int]:
    """`prompt_lookup` with a part to be got wrong on purpose."""
    for n in order or range(min(high, len(text) - 1), low - 1, -1):
        if found := earlier(text, n):
            follows = text[found[place] + n :]
            return [follows[i % len(follows)] for i in range(count)] if wrap else follows[:count]
    return []


def copied(*args, says: str = "") -> Callable[[Attempt], None]:
    """A stage: the draft is the reference's, however long; `says` explains a wrong one."""

    def stage(attempt: Attempt) -> None:
        want, got, call = ref.prompt_lookup(*args), attempt(*args), attempt.call(args)
        if not isinstance(got, list):
            raise Fault(f"{call} returned {describe(got)}, expected a list of token ids")
        if got != want:
            reason = attempt.likely_mistake(args, got, want) or says
            raise Fault(f"{call} gave {describe(got)}, expected {describe(want)}{': ' if reason else ''}{reason}")

    return stage


def random_copies(attempt: Attempt) -> None:
    """A stage: eighty random texts of three words."""
    generator = np.random.default_rng(0)
    for _ in range(80):
        size, count, low, high = (int(generator.integers(*span)) for span in ((1, 20), (1, 5), (1, 3), (3, 5)))
        copied(generator.integers(0, 3, size=size).tolist(), count, low, high)(attempt)


EXERCISES = (
    Exercise(
        id="spec.plan",
        lab=LAB,
        title="How many drafts?",
        asked="Acceptance is 0.8 and the draft costs a twentieth of the target. How many tokens do you draft?",
        spec="Write `plan_drafts(alpha, c, longest)`: each draft is kept with probability `alpha` if those before it "
        "were; a draft step takes `c` plain steps, and a verification one. A round of K drafts takes 1 + cK plain "
        "steps and yields 1 + α + … + α^K tokens. Return **(K, speed-up)** for the K from 1 to `longest` with the "
        "largest speed-up, the shortest of several, or **(0, 1.0)** if no K is faster than not drafting. `alpha` may "
        "be 0 or 1.",
        reference=ref.plan_drafts,
        stages=(
            oracle(0.75, 0.125, 8, gives=(4, 3.05078125 / 1.5)),
            oracle(0.5, 0.25, 1, gives=(1, 1.2)),
            trap(0.3, 0.5, 8, says="0.3 < c: every draft costs more than it brings, so draft nothing"),
            trap(1.0, 0.1, 4, says="α = 1: all K + 1 tokens, and no division by zero"),
            trap(0.5, 0.0, 6, says="free drafts: the longest yields most"),
            trap(0.5, 0.2, 4, says="K = 1 and K = 2 both give 1.25: the shortest of several"),
            trap(0.5, 0.5, 4, says="α = c: one draft just pays for itself, and nothing is faster"),
            agrees(lambda g: (float(g.uniform(0, 0.99)), float(g.uniform(0, 0.5)), int(g.integers(1, 12))), n=60),
        ),
        mistakes=(
            Mistake(
                "those are the accepted drafts: a verification yields one token more, the correction or the bonus",
                lambda a, c, n: best(n, lambda K: (tokens(a, K) - 1) / (1 + c * K)),
            ),
            Mistake("the drafts take time as well: divide by 1 + cK", lambda a, c, n: best(n, lambda K: tokens(a, K))),
            Mistake(
                "the sum runs to α^K: K drafts can yield K + 1 tokens, so the exponent in the closed form is K + 1",
                lambda a, c, n: best(n, lambda K: tokens(a, K - 1) / (1 + c * K)),
            ),
            Mistake(
                "αK is not the mean number kept: a later draft counts only if all before it were kept",
                lambda a, c, n: best(n, lambda K: (1 + a * K) / (1 + c * K)),
            ),
            Mistake(
                "drafts are made one after the other: K of them take cK, not c",
                lambda a, c, n: best(n, lambda K: tokens(a, K) / (1 + c)),
            ),
        ),
        hints=(
            "The first draft is kept with α, the second with α². One token comes in any case.",
            "speedup(K) = (1 + α + … + α^K) / (1 + cK), with the sum written as a sum. Take the best K, and "
            "compare its speed-up with 1.",
            "`speedup = lambda K: sum(alpha**i for i in range(K + 1)) / (1 + c * K)`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
    ),
    Exercise(
        id="spec.lookup",
        lab=LAB,
        title="A draft without a model",
        asked="Your users ask for edits of documents they paste. Can you speculate without training anything?",
        spec="Write `prompt_lookup(token_ids, count, min_n, max_n)`: find the longest suffix of `token_ids`, of "
        "`max_n` down to `min_n` tokens, that also occurs **earlier**, take its **latest** earlier occurrence, and "
        "return the "
        "`count` tokens that follow it, as a list. An occurrence may overlap the suffix; if what follows ends with the "
        "text, go on with what you have just copied. No occurrence: `[]`.",
        reference=ref.prompt_lookup,
        stages=(
            copied([1, 2, 3, 1, 2], 2, 1, 3, says="(1, 2) occurs at the front; the suffix itself does not count"),
            copied([1, 2, 3, 4], 2, 1, 3, says="4 does not occur before"),
            copied([1, 2, 8, 1, 2, 9, 1, 2], 1, 1, 3, says="(1, 2) occurs twice before: the latest is followed by 9"),
            copied([1, 2, 3, 8, 2, 3, 9, 1, 2, 3], 1, 1, 3, says="(1, 2, 3) is longer than (2, 3)"),
            copied(
                [2, 3, 6, 1, 2, 3, 8, 9, 2, 3, 7, 1, 2, 3],
                1,
                1,
                2,
                says="max_n is 2: (2, 3) is looked up, not (1, 2, 3), and 7 follows its latest earlier occurrence",
            ),
            copied([5, 1, 6, 2, 1], 2, 2, 3, says="only (1) occurs before, and min_n is 2"),
            copied([4, 7, 7], 4, 1, 2, says="7 follows 7, and so on: what was just copied counts as text"),
            copied([3], 2, 1, 3, says="a text of one token has no earlier occurrence of anything"),
            random_copies,
        ),
        mistakes=(
            Mistake(
                "the longest suffix first: more context, fewer wrong drafts",
                lambda t, c, low, high: search(t, c, low, high, order=range(low, high + 1)),
            ),
            Mistake("that is the first occurrence; take the latest", lambda *a: search(*a, place=0)),
            Mistake(
                "the draft stops where the text ends: go on with what was just copied",
                lambda *a: search(*a, wrap=False),
            ),
            Mistake(
                "suffixes shorter than min_n do not count",
                lambda t, c, low, high: search(t, c, 1, high),
            ),
        ),
        hints=(
            "The suffix itself does not count: it ends where the text ends. Everything else is a search in a list.",
            "For n from max_n down to min_n (never more than len − 1): the last i < len − n with token_ids[i:i+n] "
            "equal to the suffix. Then copy token by token from i + n, appending to a copy of the text as you go.",
            "`for n in range(min(max_n, len(token_ids) - 1), min_n - 1, -1):`",
        ),
        difficulty=2,
        importance=2,
        minutes=(8, 12),
    ),
)
