"""Lab 6, attention of one head: in tiles, and for one query with a defect to find."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, oracle, trap
from labcore.learn.exercises.compare import kind_problem
from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_softmax import stays_inside, writes_all
from labcore.learn.labs.lab06_tools import SECONDS, drawn, fenced

LAB = "lab06"


def attended(q, k, v, block, *, scale=None, offset=None, causal=True, base=math.e, sums=True):
    """`tiled_attention` with a part to be got wrong on purpose."""
    queries, keys = len(q), len(k)
    s = q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale(q.shape[1]))
    offset = keys - queries if offset is None else offset(queries, keys)
    if causal:
        place = torch.arange(keys, device=q.device)[None, :] - torch.arange(queries, device=q.device)[:, None]
        s = s.masked_fill(place > offset, -torch.inf)
    lse = s.logsumexp(1) if sums else s.amax(1)
    return s.softmax(1).nan_to_num() @ v, lse / math.log(base)


def in_tiles(q, k, v, block, *, decay_l=True, decay_acc=True, divide=True, early=False, largest=True):
    """`tiled_attention` tile by tile with a part to be got wrong: decays, division, where keys end, m in lse."""
    key, query = torch.arange(len(k), device=q.device)[None, :], torch.arange(len(q), device=q.device)[:, None]
    seen = (key <= query + len(k) - len(q)) & (not early or key < (query // block + 1) * block)
    scores = (q @ k.T * q.shape[1] ** -0.5).masked_fill(~seen, -torch.inf)
    m, l, acc = q.new_full((len(q), 1), -torch.inf), q.new_zeros(len(q), 1), torch.zeros_like(q)
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


def right_at(keys: int, says: str) -> Callable[[Attempt], None]:
    """A stage: the first `keys` of 4097 keys, tiles of 512."""

    def stage(attempt: Attempt) -> None:
        q, k, v = _long()
        args = q, fenced(k[:keys].cpu()), fenced(v[:keys].cpu()), 512
        got, want = attempt(*args), (args[1] @ q / 4).softmax(0) @ args[2]
        if torch.is_tensor(got) and bool(got.isnan().any()):
            raise Fault(
                f"with {keys} keys in tiles of 512 the output is nan: −inf in k makes ±inf and nan of a score, and nan "
                "in v stays nan at weight 0; fill both with 0 and put −inf into the scores"
            )
        if problem := kind_problem(got, want):
            raise Fault(f"{attempt.call(args)} {problem}")
        if not (float((got - want).abs().max()) < 1e-5 * float(want.abs().max())):
            mistake = attempt.likely_mistake(args, got, want)
            off = float((got - want).norm() / want.norm())
            found = f"with {keys} key{'s' * (keys > 1)} in tiles of 512 the output is off by {off:.2%}"
            raise Fault(f"{found}: {mistake or says}")

    return stage


def reads_no_further(attempt: Attempt) -> None:
    """A stage: the program of the first tile of queries reads no values behind it, where NaN lies."""
    q, k, v, block = attention_case(12, 32, 32)
    v[block:] = torch.nan
    o, _ = attempt(q, k, v, block)
    if bool(o[:block].isnan().any()):
        raise Fault(
            f"queries 0 to {block - 1} see as many keys, yet their program read on: the values behind are NaN here "
            "and 0 · NaN is NaN; the loop ends at the last key that the last query of the tile sees"
        )


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
        '`input_precision="ieee"`). Return **(o [queries, D], lse [queries])**, lse being the natural logarithm of Σ '
        "exp(score).",
        reference=ref.tiled_attention,
        stages=(
            writes_all(*attention_case(3, 20, 20)),
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
            trap(
                one_of(16, 4000.0),
                one_of(16, -30.0, -30.0),
                one_of(16, 1.0, 3.0),
                16,
                says="both scores are −30,000: the maximum of nothing is −inf",
            ),
            trap(*attention_case(3, 20, 20), says="20 queries in tiles of 16: the second tile is part full"),
            trap(*attention_case(6, 3, 37), says="a few queries behind many keys"),
            stays_inside(*attention_case(6, 3, 37)),
            trap(
                one_of(16, 4.0),
                one_of(16, *[100.0] * 16, -100.0),
                one_of(16, *map(float, range(17))),
                16,
                says="m is the largest score so far, and never falls again",
            ),
            trap(
                *attention_case(9, 40, 57),
                says="40 queries behind 17 keys: query 15, the last of the first tile, sees key 32",
            ),
            reads_no_further,
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
            "`absorb` for a tile of queries at once: m and l become [BLOCK], acc becomes [BLOCK, D]. They start as "
            "tl.full([BLOCK], float('-inf'), tl.float32) and tl.zeros(…).",
            "Load q once, times scale. For every tile of keys: s = tl.dot(q, tl.trans(k)); −inf where key > query + "
            "keys − queries, which takes care of the keys past the end too; new maximum, decay, p, l, acc = acc · "
            "decay + tl.dot(p, v). At the end o = acc/l and lse = m + log(l).",
            "`query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)`",
        ),
        difficulty=3,
        importance=3,
        minutes=(20, 30),
        rel_tol=1e-5,
        seconds=SECONDS,
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
            writes_all(drawn(70, 16), drawn(71, 5, 16), drawn(72, 5, 16), 16),
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
            trap(
                one_of(16, 4000.0)[0],
                one_of(16, -30.0, -30.0, -30.0),
                one_of(16, 1.0, 2.0, 3.0),
                16,
                says="all scores are −30,000: only −inf lies below whatever a real key may score",
            ),
        ),
        mistakes=(
            Mistake("−10,000 is a score too: only −inf is below all of them", lambda *a: row_of(*a, ghosts=-1e4)),
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
        seconds=SECONDS,
    ),
)
