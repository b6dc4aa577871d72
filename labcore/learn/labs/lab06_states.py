"""Lab 6, the state of online softmax in PyTorch: one more tile absorbed, and parts of the keys put together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab06_references as ref

LAB = "lab06"


def normal(seed: int) -> Callable[..., torch.Tensor]:
    """normal(seed)(3, 4): float64 [3, 4]. Each call of what it returns draws on."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def number(value: float) -> torch.Tensor:
    """A float64 scalar."""
    return torch.tensor(value, dtype=torch.float64)


def vector(*values: float) -> torch.Tensor:
    """float64 [n]."""
    return torch.tensor(values, dtype=torch.float64)


def absorbed(m, l, acc, scores, values, *, decay_l=True, decay_acc=True, turned=1, own=False, guard=True):
    """`absorb` with a part to be got wrong on purpose."""
    new = scores.max() if own else torch.maximum(m, scores.max())
    if new == -torch.inf and guard:
        return m, l, acc
    decay, weights = torch.exp(turned * (m - new)), torch.exp(scores - new)
    return new, (decay if decay_l else 1) * l + weights.sum(), (decay if decay_acc else 1) * acc + weights @ values


def divided(*args):
    """`absorb` that divides by l in every tile."""
    m, l, acc = absorbed(*args)
    return m, l, acc / l


def drawn_state(generator: np.random.Generator) -> tuple:
    """(m, l, acc [dim], scores [keys], values [keys, dim]), float64."""
    seed, keys, dim = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 6), (1, 4)))
    random = normal(seed)
    return 3 * random(1)[0], 1 + random(1)[0].abs(), random(dim), 3 * random(keys), random(keys, dim)


def one_pass(*seeds: int) -> Callable[[Attempt], None]:
    """A stage: tile after tile, o = acc/l and m + ln l are those of the whole row, to 1e-12."""

    def stage(attempt: Attempt) -> None:
        for seed in seeds:
            scores, values = normal(seed)(2, 12, 3)
            scores = 20 * scores[:, 0]
            state = number(-torch.inf), number(0.0), torch.zeros(3, dtype=torch.float64)
            for tile in range(0, 12, 4):
                state = attempt(*state, scores[tile : tile + 4], values[tile : tile + 4])
                state = tuple(torch.as_tensor(part, dtype=torch.float64) for part in state)  # floats will do
            m, l, acc = state
            if not (float((acc / l - scores.softmax(0) @ values).abs().max()) < 1e-12) or not (
                abs(float(m + l.log() - scores.logsumexp(0))) < 1e-12
            ):
                raise Fault("three tiles of 4 do not give what the 12 scores together do, to 1e-12")

    return stage


# ---- the merge -------------------------------------------------------------------------------------------------------


def merged(o, lse, *, shift=True, base=math.e, weigh=None, total=None):
    """`merge` with a part to be got wrong on purpose."""
    o = torch.where(lse[:, None] > -torch.inf, o, 0.0)
    top = lse.max() if shift else lse.new_zeros(())
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = base ** (lse - top) if weigh is None else weigh(lse)
    whole = top + torch.log(weights.sum()) if total is None else total(lse)
    return weights @ o / torch.where(weights.sum() > 0, weights.sum(), 1.0), whole


def parts(seed: int, n: int, dim: int = 3, *, spread: float = 3.0, far: float = 0.0) -> tuple:
    """(o [n, dim], lse [n]) of n parts, float64, the lse `spread` wide around `far`."""
    random = normal(seed)
    return random(n, dim), far + spread * random(n)


def drawn_parts(generator: np.random.Generator) -> tuple:
    return parts(int(generator.integers(1 << 30)), int(generator.integers(1, 7)))


def to_twelve_digits(*seeds: int) -> Callable[[Attempt], None]:
    """A stage: parts of one row of 24 keys, merged, are the row, to 1e-12 in float64, however it is cut."""

    def stage(attempt: Attempt) -> None:
        for seed in seeds:
            v, s = parts(seed, 24, spread=30.0)
            for cuts in ([24], [5, 11, 8], [1] * 24):
                split = list(zip(s.split(cuts), v.split(cuts), strict=True))
                o = torch.stack([a.softmax(0) @ b for a, b in split])
                lse = torch.stack([a.logsumexp(0) for a, _ in split])
                got, whole = attempt(o, lse)
                off = max(float((got - s.softmax(0) @ v).abs().max()), abs(float(whole - s.logsumexp(0))))
                if not off < 1e-12:
                    raise Fault(f"{len(cuts)} parts of one row are {off:.1g} off the row; float64 allows 1e-12")

    return stage


EXERCISES = (
    Exercise(
        id="kernels.absorb",
        lab=LAB,
        title="One more tile",
        asked="The scores of a row arrive in tiles and are never in memory together. How do you take their softmax?",
        spec="Write `absorb(m, l, acc, scores, values)`, the step of online softmax in PyTorch. A row has seen some "
        "keys and keeps `m`, the largest score, `l` = Σ exp(score − m), and `acc` = Σ exp(score − m) · value, [D]. Now "
        "come `scores` [keys] and `values` [keys, D], float64. Return the new **(m, l, acc)**. Before the first tile m "
        "is −inf and l and acc are 0. A tile may hold nothing but −inf: it changes nothing, and must not make a NaN.",
        reference=ref.absorb,
        stages=(
            oracle(
                number(0.0),
                number(2.0),
                vector(4.0),
                vector(0.0),
                torch.ones(1, 1).double(),
                gives=(0.0, 3.0, vector(5.0)),
            ),
            trap(
                number(0.0),
                number(1.0),
                vector(1.0),
                vector(np.log(2)),
                torch.ones(1, 1).double(),
                says="the new score is the largest: what was summed before was measured against a smaller one",
            ),
            trap(
                number(5.0),
                number(1.0),
                vector(1.0),
                vector(0.0, 1.0),
                torch.ones(2, 1).double(),
                says="this tile lies below the maximum: m stays",
            ),
            trap(
                number(-torch.inf),
                number(0.0),
                vector(0.0),
                vector(3.0),
                torch.ones(1, 1).double(),
                says="the first tile: exp(−inf) is 0, so the empty state weighs nothing",
            ),
            trap(
                number(-torch.inf),
                number(0.0),
                vector(0.0),
                vector(-torch.inf, -torch.inf),
                torch.ones(2, 1).double(),
                says="no key is visible yet, and −inf − (−inf) is NaN",
            ),
            one_pass(0, 1, 2),
            trap(
                number(0.0),
                number(2.0),
                vector(4.0),
                vector(-torch.inf, 0.0),
                torch.ones(2, 1).double(),
                says="of this tile one key is masked: exp(−inf) is 0, the other counts",
            ),
            trap(
                number(5.0),
                number(2.0),
                vector(4.0),
                vector(-torch.inf, -torch.inf),
                torch.ones(2, 1).double(),
                says="a tile of −inf changes nothing: what was seen before stays",
            ),
            agrees(drawn_state, n=30),
        ),
        mistakes=(
            Mistake(
                "l was summed against the old maximum: multiply it by exp(m − m′)",
                lambda *a: absorbed(*a, decay_l=False),
            ),
            Mistake("acc was summed against the old maximum, as l was", lambda *a: absorbed(*a, decay_acc=False)),
            Mistake(
                "both sums were measured against the old maximum, and stay as they are",
                lambda *a: absorbed(*a, decay_l=False, decay_acc=False),
            ),
            Mistake("the maximum has risen, so the old sums shrink: exp(m − m′)", lambda *a: absorbed(*a, turned=-1)),
            Mistake("the maximum is that of all keys so far, not of this tile", lambda *a: absorbed(*a, own=True)),
            Mistake("acc stays a sum: the division by l comes once, after the last tile", divided),
        ),
        hints=(
            "A sum of exp(score − m) is turned into one of exp(score − m′) by one factor.",
            "m′ = max(m, max of scores); decay = exp(m − m′); weights = exp(scores − m′). Then l′ = decay · l + Σ "
            "weights and acc′ = decay · acc + weights @ values. If m′ is −inf, return what came in.",
            "`new = torch.maximum(m, scores.max())`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
        rel_tol=1e-6,
    ),
    Exercise(
        id="kernels.merge",
        lab=LAB,
        title="Put the parts together",
        asked="Two thread blocks attended to halves of the keys. Each has an output and one more number. Combine them.",
        spec="Write `merge(o, lse)` in PyTorch, float64: part i of the keys gave the output `o[i]` [D] and `lse[i]`, "
        "the natural logarithm of its Σ exp(score). Return **(o [D], lse)** over all keys together: exact to 1e-12. "
        "The lse may be near 1000. A part without keys has lse −inf, and its o can be anything, NaN too; if no part "
        "has any, return zeros and −inf.",
        reference=ref.merge,
        stages=(
            oracle(
                torch.tensor([[1.0], [6.0]]).double(),
                torch.tensor([math.log(3), math.log(2)]).double(),
                gives=(torch.tensor([3.0]).double(), math.log(5)),
            ),
            to_twelve_digits(0, 1, 2),
            trap(*parts(1, 3, far=1000.0), says="exp(1000) is infinite: subtract the largest lse first"),
            trap(*parts(2, 3, far=-2000.0), says="exp(−2000) is 0, and 0/0 is NaN"),
            trap(
                torch.tensor([[5.0], [math.nan]]).double(),
                torch.tensor([1.0, -torch.inf]).double(),
                says="0 · NaN is NaN: an empty part's o must not be used",
            ),
            trap(
                torch.full((2, 1), math.nan).double(),
                torch.full((2,), -torch.inf).double(),
                says="no part has a key: −inf − (−inf) is NaN",
            ),
            trap(
                torch.tensor([[5.0], [torch.inf]]).double(),
                torch.tensor([1000.0, -torch.inf]).double(),
                says="0 · ∞ is NaN",
            ),
            trap(
                torch.tensor([[5.0], [7.0]]).double(),
                torch.tensor([-1000.0, 1000.0]).double(),
                says="exp(1000) and exp(2000) are infinite: subtract the largest lse, no other",
            ),
            trap(
                torch.tensor([[5.0], [7.0]]).double(),
                torch.tensor([-30000.0, -30000.0]).double(),
                says="a part with lse −30,000 has keys; only −inf has none",
            ),
            agrees(drawn_parts, n=30),
        ),
        mistakes=(
            Mistake(
                "the parts do not count alike: each weighs exp(lse)",
                lambda o, lse: merged(o, lse, weigh=torch.ones_like, total=lambda lse: lse.logsumexp(0)),
            ),
            Mistake("lse is a natural logarithm: e, not 2, to its power", lambda o, lse: merged(o, lse, base=2)),
            Mistake(
                "each part weighs exp(lse), not lse",
                lambda o, lse: merged(o, lse, weigh=lambda x: x, total=lambda x: x.logsumexp(0)),
            ),
            Mistake(
                "the lse of the whole is a log of a sum of exponentials, not the largest part's",
                lambda o, lse: merged(o, lse, total=lambda lse: lse.max()),
            ),
            Mistake(
                "that adds logarithms, which multiplies sums", lambda o, lse: merged(o, lse, total=lambda x: x.sum())
            ),
            Mistake(
                "o is normalized already: divide by the sum of the weights",
                lambda o, lse: (torch.exp(lse - lse.max()) @ o, lse.logsumexp(0)),
            ),
        ),
        hints=(
            "exp(lse) is the part's sum of exponentials, and o times it is the part's unnormalized output.",
            "m = the largest lse (0 where that is −inf); weights = exp(lse − m); o where lse > −inf, else 0; weights @ "
            "o / Σ weights, and m + log Σ weights. With no key at all Σ weights is 0: divide by 1 then.",
            "`o = torch.where(lse[:, None] > -torch.inf, o, 0.0)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        rel_tol=1e-6,
    ),
)
