"""Lab 6, what a kernel finds in memory: keys behind a page table, and two weights in a byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import kind_problem
from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_softmax import writes_all
from labcore.learn.labs.lab06_tools import DEVICE, SECONDS, drawn, drawn_cache, drawn_weight4, fenced

LAB = "lab06"


def paged_of(
    q,
    k_cache,
    v_cache,
    table,
    lengths,
    *,
    head=None,
    slot=None,
    pages=None,
    ghosts=0,
    unheard=0.0,
    cut=False,
    scale=True,
):
    """`paged_decode` with a part to be got wrong: the KV head of a head, the slot in the flat cache (page, position,
    page size), the pages of a request, empty slots counted and with which score, a last page left out if not full."""
    heads, dim = q.shape[1:]
    size, kv_heads = k_cache.shape[1:3]
    head = (lambda h: h // (heads // kv_heads)) if head is None else head
    slot = (lambda page, position, size: page * size + position % size) if slot is None else slot
    flat_k, flat_v = (cache.flatten(0, 1) for cache in (k_cache, v_cache))
    o, lse = torch.zeros_like(q), q.new_full(q.shape[:2], -torch.inf)
    for request, length in enumerate(lengths.tolist()):
        row = table[request].tolist() if pages is None else pages(table, request)
        count, empty = length - cut * (length % size), ghosts * (-length % size)
        if not count:
            continue
        slots = [slot(row[position // size], position, size) for position in range(count)]
        for h in range(heads):
            k, v = flat_k[slots, head(h)], flat_v[slots, head(h)]
            s = k @ q[request, h] * (dim**-0.5 if scale else 1.0)
            s, v = torch.cat((s, s.new_full((empty,), unheard))), torch.cat((v, v.new_zeros(empty, dim)))
            o[request, h], lse[request, h] = s.softmax(0) @ v, s.logsumexp(0)
    return o, lse


def with_lse(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """`paged_decode` that returns change(lse) for lse."""

    def wrong(*args):
        o, lse = paged_of(*args)
        return o, change(lse)

    return wrong


def hand_case() -> tuple:
    """Three keys with equal scores and values 1, 3, 5, on pages 2 and 0 of two slots each; other values elsewhere."""
    cache = torch.tensor([5.0, 10, 20, 40, 1, 3]).view(3, 2, 1, 1).expand(3, 2, 1, 16)
    table, lengths = torch.tensor([[2, 0, -1]], dtype=torch.int32), torch.tensor([3], dtype=torch.int32)
    return fenced(torch.zeros(1, 1, 16)), fenced(cache), fenced(cache), table.to(DEVICE), lengths.to(DEVICE)


def far_below(length: int) -> tuple:
    """The pages and values of `hand_case`, `length` keys, whose scores are all −30,000."""
    _, _, values, table, _ = hand_case()
    q, keys = torch.full((1, 1, 16), 100.0), torch.full((3, 2, 1, 16), -75.0)
    return fenced(q), fenced(keys), values, table, torch.tensor([length], dtype=torch.int32).to(DEVICE)


def falling() -> tuple:
    """The pages and values of `hand_case`; two keys score 100, the third, on the next page, −100."""
    _, _, values, table, lengths = hand_case()
    keys = torch.tensor([-100.0, 0, 0, 0, 100, 100]).view(3, 2, 1, 1).expand(3, 2, 1, 16)
    return fenced(torch.full((1, 1, 16), 0.25)), fenced(keys), values, table, lengths


def gemv_of(
    x, data, scale, group, *, low_first=True, halves=True, zero=8, late=False, transposed=False, unscaled=False
):
    """`gemv4` with a part to be got wrong on purpose."""
    first, second = (data & 15, data >> 4) if low_first else (data >> 4, data & 15)
    if halves:
        first, second = (part.unflatten(1, (-1, 1, group // 2)) for part in (first, second))
        codes = torch.cat((first, second), 2).flatten(1)
    else:
        codes = torch.stack((first, second), 2).flatten(1)
    each = scale.flatten().view(len(data), -1) if transposed else scale.t()
    each = each.repeat_interleave(group, 1)
    codes = codes.float()
    if unscaled:
        each = torch.ones_like(each)
    return (each * codes - zero if late else each * (codes - zero)) @ x


def wrapped(x, data, scale, group):
    """`gemv4` that subtracts 8 in uint8, where 7 − 8 is 255."""
    first, second = ((part - 8).unflatten(1, (-1, 1, group // 2)) for part in (data & 15, data >> 4))
    return (scale.t().repeat_interleave(group, 1) * torch.cat((first, second), 2).flatten(1).float()) @ x


def last_group(x, data, scale, group):
    """`gemv4` that keeps the last group alone."""
    return gemv_of(x[-group:], data[:, -(group // 2) :], scale[-1:], group)


def drawn_product(generator: np.random.Generator) -> tuple:
    seed, outputs, groups = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 5), (1, 4)))
    return drawn(seed, groups * 32), *drawn_weight4(seed + 1, outputs, groups * 32, 32), 32


def one_hot(*columns: int) -> Callable[[Attempt], None]:
    """A stage: x = one 1 gives that column of the weight; another code would be off by a whole scale."""

    def stage(attempt: Attempt) -> None:
        data, scale = drawn_weight4(9, 3, 64, 32)
        for column in columns:
            x = torch.zeros(64)
            x[column] = 1.0
            args = fenced(x), data, scale, 32
            got, want = attempt(*args), gemv_of(*args)
            if problem := kind_problem(got, want):
                raise Fault(f"{attempt.call(args)} {problem}")
            if not bool(((got - want).abs() < 1e-3 * scale.min()).all()):
                mistake = attempt.likely_mistake(args, got, want)
                raise Fault(
                    f"x is 1 at column {column} and 0 elsewhere, so y is that column of the weight; yours is "
                    f"another{': ' if mistake else ''}{mistake}"
                )

    return stage


def byte(value: int) -> torch.Tensor:
    """A row of 16 bytes, the first of them `value`, the others two codes of 8, which stand for 0."""
    data = torch.full((1, 16), 0x88, dtype=torch.uint8)
    data[0, 0] = value
    return data.to(DEVICE)


def ones(n: int, *, only: tuple[int, ...] = ()) -> torch.Tensor:
    """float32 [n]: 1 everywhere, or only there."""
    x = torch.zeros(n)
    x[list(only) if only else slice(None)] = 1.0
    return fenced(x)


EXERCISES = (
    Exercise(
        id="kernels.paged",
        lab=LAB,
        title="Keys behind a page table",
        asked="Write decode attention over a paged cache. Where does the key of position p lie?",
        spec="Write `paged_kernel` and `paged_decode(q, k_cache, v_cache, table, lengths)`: one new query for each "
        "request and head, `q` [B, heads, D]; caches [pages, page, kv_heads, D]; `table` int32 [B, width], the page of "
        "positions j·page … is table[request, j]; `lengths` int32 [B], the keys of each request. Head h reads KV head "
        "h // (heads / kv_heads). Unused slots hold NaN and the table is padded with −1. Return **(o [B, heads, D], "
        "lse [B, heads])**, natural; 0 and −inf where there are no keys. A program for each request and head, a tile a "
        "page.",
        reference=ref.paged_decode,
        stages=(
            writes_all(*drawn_cache(3, (0, 3), 1, 1, 2, 16)),
            oracle(
                *hand_case(),
                gives=(torch.full((1, 1, 16), 3.0, device=DEVICE), fenced(torch.tensor([[np.log(3)]]).float())),
            ),
            trap(*drawn_cache(1, (3,), 1, 1, 4, 16), says="three keys in a page of four: the fourth slot holds NaN"),
            trap(*drawn_cache(2, (8,), 1, 1, 4, 16), says="two full pages, in any order in memory"),
            trap(*drawn_cache(3, (4, 2), 1, 1, 2, 16), says="each request has a row of the table, `width` long"),
            trap(*drawn_cache(4, (4,), 4, 2, 4, 16), says="four heads share two KV heads"),
            trap(*far_below(4), says="all scores are −30,000: the maximum of nothing is −inf"),
            trap(*far_below(3), says="all scores are −30,000: a slot without a key must score −inf"),
            trap(*drawn_cache(5, (0, 1), 1, 1, 2, 16), says="a request without keys: o is 0, not 0/0"),
            trap(
                *drawn_cache(6, (3, 5), 6, 2, 2, 16),
                says="two requests of six heads: a row of q, o and lse is request · heads + "
                "head, and three heads share a KV head",
            ),
            trap(*falling(), says="m is the largest score so far, and never falls again"),
        ),
        mistakes=(
            Mistake(
                "−10,000 is a score too: a slot without a key must score −inf",
                lambda *a: paged_of(*a, ghosts=1, unheard=-1e4),
            ),
            Mistake(
                "a page id counts pages: the slot is page · page size + offset",
                lambda *a: paged_of(*a, slot=lambda page, position, size: page + position % size),
            ),
            Mistake(
                "the table was not used: position p lies where the table says, not at p",
                lambda *a: paged_of(*a, slot=lambda page, position, size: position),
            ),
            Mistake(
                "within its page a position has offset p mod page size",
                lambda *a: paged_of(*a, slot=lambda page, position, size: page * size),
            ),
            Mistake(
                "every request read the table of request 0: its row begins at request · width",
                lambda *a: paged_of(*a, pages=lambda table, request: table[0].tolist()),
            ),
            Mistake(
                "neighbouring heads share a KV head: h // (heads / kv_heads), not h mod kv_heads",
                lambda q, k, *a: paged_of(q, k, *a, head=lambda h: h % k.shape[2]),
            ),
            Mistake("all heads read KV head 0", lambda *a: paged_of(*a, head=lambda h: 0)),
            Mistake("the scores are not divided by √D", lambda *a: paged_of(*a, scale=False)),
            Mistake(
                "the slots past the last key count as scores of 0: give them −inf before the maximum is taken",
                lambda *a: paged_of(*a, ghosts=1),
            ),
            Mistake("the last page, which is not full, was left out", lambda *a: paged_of(*a, cut=True)),
            Mistake("lse is in base 2: multiply it by ln 2", with_lse(lambda lse: lse / np.log(2))),
        ),
        hints=(
            "A tile is a page, so its address needs one number from the table and the rest is a rectangle.",
            "page = table[request · width + start // PAGE]; the element (offset, d) lies at ((page · PAGE + offset) · "
            "KV_HEADS + kv_head) · D + d. Mask with start + offset < length, for k, for v (0 · NaN is NaN) and for the "
            "scores (−inf). Divide by l where l > 0, else by 1.",
            "`page = tl.load(table_ptr + request * width + start // PAGE).to(tl.int64)`",
        ),
        difficulty=3,
        importance=3,
        minutes=(15, 25),
        rel_tol=1e-5,
        seconds=SECONDS,
    ),
    Exercise(
        id="kernels.gemv",
        lab=LAB,
        title="Two weights in a byte",
        asked="A decode step multiplies a vector by a 4-bit matrix. What does the inner loop do with a byte?",
        spec="Write `gemv_kernel` and `gemv4(x, data, scale, group)`: `x`, float32 [inputs]; `data`, uint8 [outputs, "
        "inputs/2]; `scale`, float32 [inputs/group, outputs]. A group of `group` weights of a row takes group/2 bytes: "
        "**byte j holds weight j in its low four bits and weight j + group/2 in its high four**. A weight is scale · "
        "(code − 8). Return y = W x, [outputs]. A program makes one output; the weights are never written anywhere.",
        reference=ref.gemv4,
        stages=(
            writes_all(drawn(1, 64), *drawn_weight4(2, 3, 64, 32), 32),
            oracle(
                ones(32, only=(0, 16)), byte(0x9B), fenced(torch.tensor([[0.5]])), 32, gives=fenced(torch.tensor([2.0]))
            ),
            trap(
                ones(32, only=(0,)),
                byte(0x9B),
                fenced(torch.tensor([[1.0]])),
                32,
                says="weight 0 is in the low half of byte 0: 0xB − 8 = 3",
            ),
            trap(
                ones(32, only=(1,)),
                byte(0x9B),
                fenced(torch.tensor([[1.0]])),
                32,
                says="weight 1 is in byte 1, and is 0",
            ),
            one_hot(0, 1, 15, 16, 31, 32, 49, 63),
            trap(drawn(3, 128), *drawn_weight4(4, 3, 128, 64), 64, says="groups of 64: the high half is weight j + 32"),
            agrees(drawn_product, n=4),
        ),
        mistakes=(
            Mistake(
                "the halves of the byte are swapped: the low four bits come first",
                lambda *a: gemv_of(*a, low_first=False),
            ),
            Mistake(
                "a byte's two weights are not neighbours: the high half is weight j + group/2",
                lambda *a: gemv_of(*a, halves=False),
            ),
            Mistake(
                "neighbours, and the high half first: this layout has j low and j + group/2 high",
                lambda *a: gemv_of(*a, halves=False, low_first=False),
            ),
            Mistake("a code stands for code − 8", lambda *a: gemv_of(*a, zero=0)),
            Mistake("take the 8 off before you multiply by the scale", lambda *a: gemv_of(*a, late=True)),
            Mistake(
                "scale is [inputs/group, outputs]: the scale of group g and output n is at g · outputs + n",
                lambda *a: gemv_of(*a, transposed=True),
            ),
            Mistake("7 − 8 is 255 in uint8: make a code a float before you take 8 off", wrapped),
            Mistake("only the last group counts: y grows by each, y += …", last_group),
            Mistake(
                "every group was given the scale of group 0: group g's is at g · outputs + n",
                lambda x, data, scale, group: gemv_of(x, data, scale[:1].expand_as(scale), group),
            ),
            Mistake("the scale is missing", lambda *a: gemv_of(*a, unscaled=True)),
        ),
        hints=(
            "Load a group's bytes once and use each twice: with & 15 and with >> 4.",
            "for start in range(0, inputs, GROUP): byte at n · inputs/2 + start/2 + half, half = 0 … GROUP/2 − 1; low "
            "and high minus 8; x at start + half and at start + GROUP/2 + half; y += scale · Σ(low · x_low + high · "
            "x_high).",
            "`low, high = (byte & 15).to(tl.float32) - 8, (byte >> 4).to(tl.float32) - 8`",
        ),
        difficulty=2,
        importance=2,
        minutes=(10, 15),
        rel_tol=2e-6,
        seconds=SECONDS,
    ),
)
