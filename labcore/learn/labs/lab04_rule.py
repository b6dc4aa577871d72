"""Lab 4, the rule: keep a drafted token or draw what is missing, once and in a chain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab04_references as ref
from labcore.learn.labs.lab04_tools import drawn_law, draws, law, laws
from labcore.sampling.rejection import accept_chain, accepts, residual

LAB = "lab04"


def point(weights: Tensor, w: float) -> int:
    """Where the cumulative weight first passes w, whatever it sums to; the last token if it never does."""
    return min(int((weights.cumsum(0) <= w).sum()), len(weights) - 1)


def one(p, q, token, u, w, *, keep=accepts, instead=residual, number=None):
    """`accept_or_replace` with a part to be got wrong on purpose."""
    return (True, token) if keep(p, q, token, u) else (False, point(instead(p, q), w if number is None else number))


def first_that_reaches(p, q, token, u, w):
    """`accept_or_replace` with the first token whose cumulative probability is w or more."""
    kept, _ = one(p, q, token, u, w)
    return (True, token) if kept else (False, int(torch.searchsorted(residual(p, q).cumsum(0), w)))


def drawn_one(generator: np.random.Generator) -> tuple:
    vocab, seed = int(generator.integers(2, 8)), int(generator.integers(1 << 30))
    p, q = (drawn_law(seed + i, vocab, 1.5, zeros=bool(generator.integers(2))) for i in range(2))
    return p, q, int(draws(q, 1, seed)), float(generator.random()), float(generator.random())


def chain_of(p, q, tokens, numbers, *, place=0, last=None, bonus=None, number=-1, stops=True, instead=residual):
    """`accept_chain` with a part to be got wrong on purpose."""
    kept, following = 0, None
    for i, token in enumerate(tokens):
        if accepts(p[i], q[i], token, float(numbers[i])):
            kept += 1
        elif following is None:
            at = min(i + place, len(p) - 1)
            following = point(instead(p[at], q[i]), float(numbers[i if number is None else number]))
            if stops:
                break
    if following is None:
        following = point((p if bonus is None else bonus(p, q))[-1], float(numbers[-1]))
    return kept, following


def drawn_chain(generator: np.random.Generator) -> tuple:
    vocab, length, seed = (int(generator.integers(*span)) for span in ((2, 6), (1, 5), (0, 1 << 30)))
    p = torch.stack([drawn_law(seed + i, vocab) for i in range(length + 1)])
    q = torch.stack([drawn_law(seed - 1 - i, vocab) / 2 + p[i] / 2 for i in range(length)])
    tokens = [int(draws(q[i], 1, seed + i)) for i in range(length)]
    return p, q, tokens, torch.tensor(generator.random(length + 1))


AB = law(0.5, 0.5), law(0.8, 0.2)
ABC = law(0.5, 0.3, 0.2), law(0.2, 0.2, 0.6)
P3 = laws((0.5, 0.5, 0.0), (0.2, 0.8, 0.0), (0.1, 0.1, 0.8))

EXERCISES = (
    Exercise(
        id="spec.accept",
        lab=LAB,
        title="Keep it, or draw what is missing",
        asked="A small model proposed this token. How can the answer still have the large model's distribution?",
        spec="Write `accept_or_replace(p, q, token, u, w)`: `p` and `q`, float64 [vocab], are the laws of target and "
        "draft at one place, `token` was drawn from `q`, `u` and `w` are random numbers from [0, 1). Keep the token if "
        "u < p(token)/q(token) and return **(True, token)**. Otherwise return **(False, other)**, where `other` is "
        "drawn with `w` from the residual, max(0, p − q) made to sum to 1: the first token at which the cumulative "
        "probability exceeds `w`.",
        reference=ref.accept_or_replace,
        stages=(
            oracle(*AB, 0, 0.6, 0.0, gives=(True, 0)),
            oracle(*AB, 0, 0.7, 0.7, gives=(False, 1)),
            trap(law(0.9, 0.1), law(0.3, 0.7), 0, 0.999, 0.5, says="p(x) > q(x), so it is always kept"),
            trap(*ABC, 2, 0.6, 0.35, says="the residual is (0.3, 0.1, 0)/0.4"),
            trap(*ABC, 2, 0.6, 0.45, says="the residual is (0.3, 0.1, 0)/0.4, and 0.45 is below its first 0.75"),
            trap(*ABC, 2, 0.5, 0.6, says="after a rejection the residual speaks, here (0.75, 0.25, 0)"),
            trap(*ABC, 2, 0.5, 0.85, says="w = 0.85 is beyond the residual's first 0.75"),
            trap(law(0.0, 1.0), law(1.0, 0.0), 0, 0.0, 0.5, says="p(x) = 0"),
            trap(
                law(0.0, 1.0),
                law(1.0, 0.0),
                0,
                0.5,
                0.0,
                says="the residual is (0, 1)",
            ),
            agrees(drawn_one, n=60),
        ),
        mistakes=(
            Mistake(
                "what lacks nothing is never drawn, not even for w = 0: its cumulative probability has to exceed w",
                lambda *a: first_that_reaches(*a),
            ),
            Mistake(
                "a token with p(x) = 0 is never kept, not even for u = 0: strictly <",
                lambda *a: one(*a, keep=lambda p, q, t, u: u * float(q[t]) <= float(p[t])),
            ),
            Mistake(
                "the ratio is upside down: a token that the draft likes too much is the one to reject, p/q",
                lambda p, q, t, u, w: one(p, q, t, u, w, keep=lambda p, q, t, u: u * float(p[t]) < float(q[t])),
            ),
            Mistake(
                "max(0, p − q) sums to less than 1: divide by its sum before you draw",
                lambda *a: one(*a, instead=lambda p, q: (p - q).clamp(min=0)),
            ),
            Mistake(
                "that draw is from p: what the draft has already delivered would be counted twice; draw from p − q",
                lambda *a: one(*a, instead=lambda p, q: p),
            ),
            Mistake(
                "u has decided already, and is large wherever the token was rejected: draw with w",
                lambda *a: one(*a, number=a[3]),
            ),
            Mistake(
                "the residual is what the target has more of, p − q, not what the draft has more of",
                lambda *a: one(*a, instead=lambda p, q: residual(q, p)),
            ),
            Mistake(
                "where the draft has too much, nothing is missing: negative differences count as 0, not as |p − q|",
                lambda *a: one(*a, instead=lambda p, q: (p - q).abs() / (p - q).abs().sum()),
            ),
        ),
        hints=(
            "The draft says x with q(x). It must come out with p(x). Where q is too large, thin it out; what is "
            "missing then is exactly where q was too small.",
            "If u · q[token] < p[token]: keep. Else left = (p − q).clamp(min=0), divided by its sum, and the first "
            "index whose cumulative sum exceeds w.",
            "`if u * q[token] < p[token]: return True, token`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
    ),
    Exercise(
        id="spec.chain",
        lab=LAB,
        title="A chain, and the token that comes free",
        asked="Four tokens are drafted and two are accepted. How many tokens does the pass yield, from which laws?",
        spec="Write `accept_chain(p, q, token_ids, uniforms)`: `token_ids`, K of them, were drawn one after the other "
        "from the rows of `q` [K, vocab]; the rows of `p` [K+1, vocab] are the target's laws at the same places, and "
        "behind the last. Go through them with the rule, one number of `uniforms` [K+1] each, and **stop at the first "
        "rejection**. Return **(number kept, next token)**: the next token is drawn with the last number, from the "
        "residual at the place of the rejection, or from p[K] if all were kept. `accept_or_replace` is at hand.",
        reference=accept_chain,
        stages=(
            oracle(P3, P3[:2], [0, 1], law(0.9, 0.9, 0.5), gives=(2, 2)),
            oracle(P3, laws((0.9, 0.1, 0.0), (0.2, 0.8, 0.0)), [0, 1], law(0.8, 0.1, 0.5), gives=(0, 1)),
            trap(
                laws((0.0, 0.6, 0.4), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
                laws((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
                [0, 2],
                law(0.5, 0.1, 0.5),
                says="token 0 was rejected, so token 1 hangs from a text that will not exist",
            ),
            trap(
                laws((0.5, 0.5, 0.0), (0.5, 0.2, 0.3), (1.0, 0.0, 0.0)),
                laws((0.5, 0.5, 0.0), (0.0, 1.0, 0.0)),
                [1, 1],
                law(0.5, 0.9, 0.7),
                says="the second was rejected: its residual is (0.5, 0, 0.3)/0.8",
            ),
            trap(
                laws((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
                laws((1.0, 0.0, 0.0)),
                [0],
                law(0.0, 0.0),
                says="p(x) = 0: token 0 is neither kept for u = 0 nor drawn for w = 0",
            ),
            trap(P3[2:], P3[:0], [], law(0.95), says="no draft at all is a plain draw from p[0]"),
            agrees(drawn_chain, n=60),
        ),
        mistakes=(
            Mistake(
                "behind a draft that was kept whole stands the target's own token: draw it from p[K], not from q",
                lambda p, q, t, n: chain_of(p, q, t, n, bonus=lambda p, q: q if len(q) else p),
            ),
            Mistake(
                "nothing behind a rejection counts: stop there, whatever the later tokens' ratios say",
                lambda *a: chain_of(*a, stops=False),
            ),
            Mistake(
                "p[i] is the law at the place of token i; the residual is p[i] − q[i], not p[i+1] − q[i]",
                lambda *a: chain_of(*a, place=1),
            ),
            Mistake(
                "the number that rejected a token is not random any more: draw with the last one",
                lambda *a: chain_of(*a, number=None),
            ),
            Mistake(
                "the token in place of the rejected one comes from the residual, not from p[i]",
                lambda *a: chain_of(*a, instead=lambda p, q: p),
            ),
            Mistake(
                "the next token is one more; the first number counts the drafts that were kept",
                lambda *a: (accept_chain(*a)[0] + 1, accept_chain(*a)[1]),
            ),
        ),
        hints=(
            "A pass always yields one token more than it keeps. What differs is its law: after a rejection something "
            "is owed, after none nothing is.",
            "For each i: kept, other = accept_or_replace(p[i], q[i], token, uniforms[i], uniforms[-1]); if it was not "
            "kept return (i, other). Behind the loop: K, and a draw from p[-1] with the last number.",
            "`for i, token in enumerate(token_ids):`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
    ),
)
