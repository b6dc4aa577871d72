"""Lab 4, several candidates for one place: which of them may stay, so that the token has the target's law."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake
from labcore.learn.exercises.compare import describe
from labcore.learn.labs.lab04_rule import point
from labcore.learn.labs.lab04_tools import drawn_law, draws, law, laws
from labcore.sampling.rejection import accept_candidates, accepts, without_replacement

LAB = "lab04"


def candidates_of(p, qs, tokens, numbers, *, left_of=None, last=None, scale=True, keep=accepts, row=None):
    """`accept_candidates` with a part to be got wrong on purpose."""
    left = p
    for i, token in enumerate(tokens):
        if keep(left if left_of is None else left_of(p, left), qs[i], token, float(numbers[i])):
            return i, token
        rest = (left - qs[i if row is None else row]).clamp(min=0)
        left = rest / rest.sum() if scale and rest.sum() > 0 else rest
    return None, point(left if last is None else last(p), float(numbers[-1]))


def _whole(got: tuple) -> bool:
    """Whether the token is one number, and the index, too, unless it is None."""
    try:
        return int(got[1]) is not None and (got[0] is None or int(got[0]) is not None)
    except (TypeError, ValueError, RuntimeError):  # None, a text, several elements
        return False


def picks(*args, says: str = "") -> Callable[[Attempt], None]:
    """A stage: (index or None, token) is the reference's; `says` explains a wrong one."""

    def stage(attempt: Attempt) -> None:
        want, got, call = attempt.exercise.reference(*args), attempt(*args), attempt.call(args)
        if not isinstance(got, tuple) or len(got) != 2 or isinstance(got[0], bool | float) or not _whole(got):
            raise Fault(f"{call} returned {describe(got)}, expected (index or None, token)")
        if (None if got[0] is None else int(got[0]), int(got[1])) != want:
            reason = attempt.likely_mistake(args, got, want) or says
            raise Fault(f"{call} gave {describe(got)}, expected {describe(want)}{': ' if reason else ''}{reason}")

    return stage


def drawn_candidates(generator: np.random.Generator) -> tuple:
    vocab, count, seed = (int(generator.integers(*span)) for span in ((3, 7), (1, 4), (0, 1 << 30)))
    p, q = drawn_law(seed, vocab), drawn_law(seed + 1, vocab)
    if generator.integers(2):
        tokens = torch.multinomial(q, count, generator=torch.Generator().manual_seed(seed)).tolist()
        qs = without_replacement(q, tokens)
    else:
        qs, tokens = q.expand(count, -1).clone(), draws(q, count, seed).tolist()
    return p, qs, tokens, torch.tensor(generator.random(count + 1))


def random_candidates(attempt: Attempt) -> None:
    """A stage: sixty random cases, with and without replacement."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        picks(*drawn_candidates(generator))(attempt)


EXERCISES = (
    Exercise(
        id="spec.candidates",
        lab=LAB,
        title="Several candidates for one place",
        asked="A draft tree offers three tokens for one place. Try one after the other with min(1, p/q): lossless?",
        spec="Write `accept_candidates(p, qs, token_ids, uniforms)`: `p` [vocab] is the target's law at one place; "
        "candidate i was drawn from row i of `qs` [n, vocab]. Try them in order with one number of `uniforms` [n+1] "
        "each. A rejected candidate leaves its residual, and **the next one is held against that residual** in place "
        "of `p`. Return **(i, token)** of the candidate that is kept, or **(None, token)** with a token drawn, with "
        "the last number, from what is left. Numbers and draws as in `accept_or_replace`.",
        reference=accept_candidates,
        stages=(
            picks(law(0.5, 0.5, 0.0), laws((1.0, 0.0, 0.0)), [0], law(0.4, 0.5), says="0.4 < p/q = 0.5: kept"),
            picks(law(0.5, 0.5, 0.0), laws((1.0, 0.0, 0.0)), [0], law(0.6, 0.5), says="the residual is (0, 1, 0)"),
            picks(
                law(0.5, 0.5, 0.0),
                laws((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
                [0, 0],
                law(0.6, 0.4, 0.5),
                says="the first rejection has used up all of token 0: nothing is left of it to accept",
            ),
            picks(
                law(0.4, 0.4, 0.2),
                laws((0.8, 0.1, 0.1), (0.1, 0.8, 0.1)),
                [0, 1],
                law(0.7, 0.92, 0.1),
                says="what is left after the first is (0, 0.3, 0.1)/0.4: its 0.75 against 0.8",
            ),
            picks(law(0.5, 0.3, 0.2), laws((0.2, 0.2, 0.6)), [2], law(0.6, 0.85), says="0.85 is beyond the first 0.75"),
            picks(law(0.2, 0.8), laws((1.0, 0.0))[:0], [], law(0.5), says="no candidate: a plain draw from p"),
            picks(
                law(0.4, 0.4, 0.2),
                laws((0.8, 0.1, 0.1), (0.1, 0.8, 0.1)),
                [0, 1],
                law(0.7, 0.95, 0.5),
                says="(0, 0.75, 0.25) − (0.1, 0.8, 0.1) leaves token 2 alone",
            ),
            picks(
                law(0.5, 0.5, 0.0),
                laws((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
                [0, 0],
                law(0.6, 0.0, 0.0),
                says="nothing is left of token 0: it is neither kept for u = 0 nor drawn for w = 0",
            ),
            random_candidates,
        ),
        mistakes=(
            Mistake("each rejection takes off its own row of qs", lambda *a: candidates_of(*a, row=0)),
            Mistake(
                "nothing is left of such a token, so it is not kept, not even for u = 0: strictly <",
                lambda *a: candidates_of(*a, keep=lambda p, q, t, u: u * float(q[t]) <= float(p[t])),
            ),
            Mistake(
                "the later candidates are held against what is left, not against p: p would be paid twice",
                lambda *a: candidates_of(*a, left_of=lambda p, left: p),
            ),
            Mistake(
                "where none is kept the token comes from what is left in the end, not from p",
                lambda *a: candidates_of(*a, last=lambda p: p),
            ),
            Mistake(
                "what is left has to sum to 1 before the next candidate is held against it",
                lambda *a: candidates_of(*a, scale=False),
            ),
            Mistake(
                "the numbers of a rejected candidate are spent: each candidate has its own, the draw the last",
                lambda p, qs, t, n: candidates_of(p, qs, t, n[:1].expand(len(n))),
            ),
        ),
        hints=(
            "One candidate is the rule you know. After its rejection a new game begins, with another target: the "
            "residual. Losslessness follows by induction.",
            "left = p. For each candidate: if u · q[token] < left[token] return (i, token); else left = (left − q) "
            "clamped at 0 and normalised. In the end (None, a draw from left).",
            "`left = p`",
        ),
        difficulty=2,
        importance=2,
        minutes=(8, 12),
    ),
)
