"""Lab 6, attention of one head: in tiles, for one query with a defect to find, and put together from parts."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_softmax import INF, stays_inside
from labcore.learn.labs.lab06_tools import drawn, fenced

LAB = "lab06"


def attended(q, k, v, block, *, scale=None, offset=None, causal=True, base=math.e, sums=True):
    """`tiled_attention` with a part to be got wrong on purpose."""
    queries, keys = len(q), len(k)
    s = q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale(q.shape[1]))
    offset = keys - queries if offset is None else offset(queries, keys)
    if causal:
        place = torch.arange(keys, device=q.device)[None, :] - torch.arange(queries, device=q.device)[:, None]
        s = s.masked_fill(place > offset, -INF)
    lse = s.logsumexp(1) if sums else s.amax(1)
    return s.softmax(1).nan_to_num() @ v, lse / math.log(base)


def in_tiles(q, k, v, block, *, decay_l=True, decay_acc=True, divide=True, early=False, largest=True):
    """`tiled_attention` tile by tile with a part to be got wrong: decays, division, where keys end, m in lse."""
    key, query = torch.arange(len(k), device=q.device)[None, :], torch.arange(len(q), device=q.device)[:, None]
    seen = (key <= query + len(k) - len(q)) & (not early or key < (query // block + 1) * block)
    scores = (q @ k.T * q.shape[1] ** -0.5).masked_fill(~seen, -INF)
    m, l, acc = q.new_full((len(q), 1), -INF), q.new_zeros(len(q), 1), torch.zeros_like(q)
    for start in range(0, len(k), block):
        s = scores[:, start : start + block]
        new = torch.maximum(m, s.amax(1, keepdim=True))
        decay, p = torch.exp(m - new), torch.exp(s - new)
        l = l * (decay if decay_l else 1) + p.sum(1, keepdim=True)
        m, acc = new, acc * (decay if decay_acc else 1) + p @ v[start : start + block]
    return acc / (l if divide else 1), (largest * m + l.log())[:, 0]


def attention_case(seed: int, queries: int, keys: int, block: int = 16) -> tuple:
    return drawn(seed, queries, 32, scale=2.0), drawn(seed + 1, keys, 32), drawn(seed + 2, keys, 32), block


def one_of(dim: int, *rows: float) -> torch.Tensor:
    """float32 [rows, dim]: a number in column 0, zeros beside it."""
    values = torch.zeros(len(rows), dim)
    values[:, 0] = torch.tensor(rows)
    return fenced(values)


# ---- the defect ------------------------------------------------------------------------------------------------------


def row_of(q, k, v, tile, *, ghosts=0.0, floor=False, twice=False):
    """`decode_row` with a part to be got wrong: what a missing key scores, whole tiles only, the last key
    repeated."""
    n, empty = len(k), -len(k) % tile
    if floor:
        k, v = k[: n - n % tile], v[: n - n % tile]
    elif twice and empty:
        k, v = (torch.cat((x, x[-1:].expand(empty, -1))) for x in (k, v))
    s = k @ q * len(q) ** -0.5
    if not floor and not twice and empty:
        s, v = torch.cat((s, s.new_full((empty,), ghosts))), torch.cat((v, v.new_zeros(empty, v.shape[1])))
    return s.softmax(0) @ v


@functools.cache
def _long() -> tuple:
    return drawn(70, 16), drawn(71, 4097, 16), drawn(72, 4097, 16)


def right_at(keys: int, says: str):
    """A stage: the first `keys` of 4097 keys, tiles of 512."""

    def stage(attempt: Attempt) -> None:
        q, k, v = _long()
        args = q, fenced(k[:keys].cpu()), fenced(v[:keys].cpu()), 512
        got, want = attempt(*args), (args[1] @ q / 4).softmax(0) @ args[2]
        if bool(got.isnan().any()):
            raise Fault(
                f"with {keys} keys in tiles of 512 the output is nan: −inf in k makes ±inf and nan of a score, and nan "
                "in v stays nan at weight 0; fill both with 0 and put −inf into the scores"
            )
        if not (float((got - want).abs().max()) < 1e-5 * float(want.abs().max())):
            mistake = attempt.likely_mistake(args, got, want)
            off = float((got - want).norm() / want.norm())
            found = f"with {keys} key{'s' * (keys > 1)} in tiles of 512 the output is off by {off:.2%}"
            raise Fault(f"{found}: {mistake or says}")

    return stage


# ---- the merge -------------------------------------------------------------------------------------------------------


def merged(o, lse, *, shift=True, base=math.e, weigh=None, total=None):
    """`merge` with a part to be got wrong on purpose."""
    o = torch.where(lse[:, None] > -INF, o, 0.0)
    top = lse.max() if shift else lse.new_zeros(())
    top = torch.where(top == -INF, 0.0, top)
    weights = base ** (lse - top) if weigh is None else weigh(lse)
    whole = top + torch.log(weights.sum()) if total is None else total(lse)
    return weights @ o / torch.where(weights.sum() > 0, weights.sum(), 1.0), whole


def parts(seed: int, n: int, dim: int = 3, *, spread: float = 3.0, far: float = 0.0) -> tuple:
    many = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=many, dtype=torch.float64)  # noqa: E731
    return random(n, dim), far + spread * random(n)


def drawn_parts(generator: np.random.Generator) -> tuple:
    return parts(int(generator.integers(1 << 30)), int(generator.integers(1, 7)))


def to_twelve_digits(*seeds: int):
    """A stage: parts of one row of 24 keys, merged, are the row, to 1e-12 in float64, in whatever order."""

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
        id="kernels.tiled",
        lab=LAB,
        title="Attention in tiles",
        asked="Write FlashAttention's forward pass: no score ever reaches memory.",
        spec="Write `attention_kernel` and `tiled_attention(q, k, v, block)` for one head, float32: `q` [queries, D], "
        "`k` and `v` [keys, D], queries ≤ keys. The queries are the **last** positions: query i sees the keys up to i "
        "+ keys − queries. Scores are q·k/√D. A program owns `block` queries and goes through the keys in tiles of "
        "`block` as far as any of its queries can see; D and block are at least 16, for `tl.dot` (give it "
        'input_precision="ieee"). Return **(o [queries, D], lse [queries])**, lse being the natural logarithm of Σ '
        "exp(score).",
        reference=ref.tiled_attention,
        stages=(
            oracle(
                one_of(16, 0.0),
                one_of(16, 0.0, 0.0, 0.0),
                one_of(16, 1.0, 3.0, 5.0),
                16,
                gives=(one_of(16, 3.0), fenced(torch.tensor([math.log(3)]))),
            ),
            trap(
                one_of(16, 4.0),
                one_of(16, math.log(3), 0.0),
                one_of(16, 0.0, 4.0),
                16,
                says="the scores are ln 3 and 0: what scales q·k?",
            ),
            trap(one_of(16, 0.0, 0.0), one_of(16, 0.0, 0.0), one_of(16, 1.0, 3.0), 16, says="query 0 sees key 0 alone"),
            trap(
                one_of(16, 0.0, 0.0),
                one_of(16, *[0.0] * 4),
                one_of(16, 1.0, 2.0, 3.0, 4.0),
                16,
                says="of 4 keys, 2 new: query 0 is position 2",
            ),
            trap(*attention_case(3, 20, 20), says="20 queries in tiles of 16: the second tile is part full"),
            trap(*attention_case(6, 3, 37), says="a few queries behind many keys"),
            stays_inside(*attention_case(6, 3, 37)),
        ),
        mistakes=(
            Mistake("the scores are not divided by √D", lambda *a: attended(*a, scale=lambda d: 1.0)),
            Mistake("divide the scores by √D, not by D", lambda *a: attended(*a, scale=lambda d: 1 / d)),
            Mistake("every query sees every key: the causal mask is missing", lambda *a: attended(*a, causal=False)),
            Mistake(
                "the queries are the last positions, not the first: key ≤ query + keys − queries",
                lambda *a: attended(*a, offset=lambda n, m: 0),
            ),
            Mistake("a query sees its own position too", lambda *a: attended(*a, offset=lambda n, m: m - n - 1)),
            Mistake("lse is in base 2: multiply it by ln 2", lambda *a: attended(*a, base=2)),
            Mistake("lse is m + ln l, not the maximum alone", lambda *a: attended(*a, sums=False)),
            Mistake("lse is m + ln l: l was measured against m", lambda *a: in_tiles(*a, largest=False)),
            Mistake("the accumulator is not divided by l at the end", lambda *a: in_tiles(*a, divide=False)),
            Mistake(
                "acc was summed against the old maximum: multiply it by exp(m − m′) in every tile, as l",
                lambda *a: in_tiles(*a, decay_acc=False),
            ),
            Mistake(
                "l was summed against the old maximum: multiply it by exp(m − m′) in every tile, as acc",
                lambda *a: in_tiles(*a, decay_l=False),
            ),
            Mistake(
                "neither sum shrank when the maximum rose: multiply l and acc by exp(m − m′)",
                lambda *a: in_tiles(*a, decay_l=False, decay_acc=False),
            ),
            Mistake(
                "the loop ends too early: the last query of a tile sees the keys up to itself + keys − queries",
                lambda *a: in_tiles(*a, early=True),
            ),
        ),
        hints=(
            "`absorb` for a tile of queries at once: m and l become [BLOCK], acc becomes [BLOCK, D].",
            "Load q once, times scale. For every tile of keys: s = tl.dot(q, tl.trans(k)); −inf where key > query + "
            "keys − queries, which takes care of the keys past the end too; new maximum, decay, p, l, acc = acc · "
            "decay + tl.dot(p, v). At the end o = acc/l and lse = m + log(l).",
            "`query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)`",
        ),
        difficulty=3,
        importance=3,
        minutes=(20, 30),
        rel_tol=1e-5,
    ),
    Exercise(
        id="kernels.tail",
        lab=LAB,
        title="Right at 4096, wrong at 4097",
        asked="This decode kernel passes every test at 4096 tokens. At 4097 the model turns vague. Where is the "
        "defect?",
        spec="`decode_row(q, k, v, tile)` is attention of one query `q` [D] over `k` and `v` [n, D], in one program, "
        "`tile` keys at a time. It is right whenever n is a multiple of the tile. **Repair the kernel** and hand in "
        "the function; for any n ≥ 1.",
        reference=ref.decode_row,
        starter=ref.broken_decode_row,
        stages=(
            right_at(4096, "it was right here before"),
            right_at(4097, "511 lanes of the last tile hold no key; what do they weigh?"),
            right_at(1, "one key: its value is the answer"),
            trap(
                one_of(16, 40.0)[0],
                one_of(16, -12.0, -12.1, -12.2),
                one_of(16, 1.0, 2.0, 3.0),
                16,
                says="all scores lie near −120: what else is in the maximum?",
            ),
        ),
        mistakes=(
            Mistake(
                "a masked load gives k = 0, and q·0 = 0 is a score like any other: such a lane must score −inf",
                lambda *a: row_of(*a),
            ),
            Mistake("the keys of the last tile, which is not full, were dropped", lambda *a: row_of(*a, floor=True)),
            Mistake(
                "the last key fills up the tile, and counts once for every lane", lambda *a: row_of(*a, twice=True)
            ),
        ),
        hints=(
            "Compare the sum of the weights with 1 at 4096 and at 4097. The output is too small, as if somebody with "
            "value 0 had been listened to.",
            "`other=0.0` is the right filling for v, whose weight then does not matter. For k it gives the score 0, "
            "and exp(0 − m) is a weight. Put −inf into the scores before the maximum is taken.",
            '`s = tl.where(key < n, s, float("-inf"))`',
        ),
        difficulty=2,
        importance=3,
        minutes=(6, 12),
        rel_tol=1e-5,
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
                torch.tensor([1.0, -INF]).double(),
                says="0 · NaN is NaN: an empty part's o must not be used",
            ),
            trap(
                torch.full((2, 1), math.nan).double(),
                torch.full((2,), -INF).double(),
                says="no part has a key: −inf − (−inf) is NaN",
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
