"""Lab 2, the cache at work: attention over it, a pass through it, and a stream through one that is too small."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as once

import torch
from torch import Tensor

from labcore.kv.contiguous import causal_attention
from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import kind_problem, same_value
from labcore.learn.labs import lab02_references as ref
from labcore.learn.labs.lab02_tools import Cache, full_pass, window_mask
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama

LAB = "lab02"
CLOSE = 1e-4  # of the largest element: float32 sums in another order differ by 1e-6, a wrong key by far more


@once
def small_model() -> Llama:
    """Two layers with random weights; four query heads share two KV heads."""
    config = DecoderConfig(
        "llama",
        n_layers=2,
        hidden=32,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        intermediate=48,
        vocab=31,
        context=64,
        rope_theta=100.0,
        norm_eps=1e-5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Llama(config).requires_grad_(False)


class Probe:
    """`small_model`, noting the positions of every pass. A check hands out the probe itself, never a copy."""

    def __init__(self) -> None:
        self.config = small_model().config
        self.passes: list[tuple[list[int], list[int]]] = []

    def __call__(self, token_ids: Tensor, positions: Tensor, attend: Callable, wanted: Tensor | None = None) -> Tensor:
        self.passes.append((torch.as_tensor(token_ids).tolist(), torch.as_tensor(positions).tolist()))
        return small_model()(token_ids, positions, attend, wanted)

    def __deepcopy__(self, memo: dict) -> Probe:
        return self

    def __repr__(self) -> str:
        return "a small model"


class HandedOut(Cache):
    """A cache that a check hands out itself, not a copy of it: what a pass leaves in it is what the next one finds."""

    def __deepcopy__(self, memo: dict) -> HandedOut:
        return self


def handed_out(capacity: int) -> HandedOut:
    """An empty one, its room filled with numbers that would show in a result."""
    one = small_model().config
    shape = one.n_layers, one.n_kv_heads, capacity, one.head_dim
    return HandedOut(torch.full(shape, 3.0), torch.full(shape, -50.0))


def drawn(n: int, seed: int = 0) -> Tensor:
    """int64 [n], token ids of the small model."""
    return torch.randint(0, 31, (n,), generator=torch.Generator().manual_seed(seed))


def fed_in(*pieces: int, says: str, spare: int = 0) -> Callable[[Attempt], None]:
    """A stage: a sequence arrives in passes of so many tokens each; a negative piece forgets so many before it goes on.

    `says` explains wrong logits of the last pass.
    """

    def stage(attempt: Attempt) -> None:
        model, past = Probe(), torch.empty(0, dtype=torch.long)
        cache = handed_out(sum(p for p in pieces if p > 0) + spare)
        for number, piece in enumerate(pieces):
            if piece < 0:
                past = past[:piece]
                cache.length = len(past)
            else:
                new = drawn(piece, seed=number)
                one_pass(attempt, model, cache, past, new, says)
                past = torch.cat((past, new))

    return stage


def one_pass(attempt: Attempt, model: Probe, cache: HandedOut, past: Tensor, new: Tensor, says: str) -> None:
    """Call the reader's function for `new` after `past`; Fault for whatever an uncached pass over both contradicts."""
    call, held = attempt.call((model, cache, new)), cache.length
    model.passes.clear()
    got = attempt(model, cache, new)
    want = full_pass(small_model(), torch.cat((past, new)))[len(past) :]
    if problem := kind_problem(got, want):
        raise Fault(f"{call} {problem}")
    if [ids for ids, _ in model.passes] != [new.tolist()]:
        raise Fault(
            f"{call} ran the model {len(model.passes)} times; one pass over the {len(new)} new tokens is enough"
        )
    positions, right = model.passes[0][1], list(range(held, held + len(new)))
    if positions != right:
        raise Fault(
            f"{call} gave the new tokens the positions {positions}, expected {right}: the sequence goes on where the "
            f"cache ends, and {held} tokens are in it"
        )
    if cache.length != held + len(new):
        raise Fault(
            f"{call} left cache.length at {cache.length}, expected {held + len(new)}: a pass adds its tokens once, not "
            "in every layer"
        )
    if not same_value(got, want, CLOSE, 0.0):
        raise Fault(f"{call} gave other logits than a pass over the whole sequence without a cache: {says}")


def seeded_pieces(attempt: Attempt) -> None:
    """Stage: ten sequences cut at random."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        pieces = torch.randint(1, 6, (4,), generator=generator).tolist()
        fed_in(*pieces, says="wherever a sequence is cut into passes, its logits stay the same")(attempt)


def heads_of(values: list[float], tokens: int, head_dim: int = 4) -> Tensor:
    """[n_kv_heads, tokens, head_dim]: everything in KV head i has the value values[i]."""
    return torch.tensor(values)[:, None, None].expand(-1, tokens, head_dim).clone()


def step_of(values: list[float]) -> Tensor:
    """[1, tokens, 1]: one KV head of one channel, one value a token."""
    return torch.tensor(values).float()[None, :, None]


def drawn_attention(generator) -> tuple[Tensor, Tensor, Tensor]:
    """q, keys, values: 0 to 4 past tokens, 1 to 4 new ones, up to 3 KV heads, 3 query heads on each, 8 channels."""
    ranges = (0, 5), (1, 5), (1, 4), (1, 4), (1, 9)
    past, new, n_kv, group, width = (int(generator.integers(low, high)) for low, high in ranges)
    shapes = (new, n_kv * group, width), (n_kv, past + new, width), (n_kv, past + new, width)
    return tuple(torch.tensor(generator.standard_normal(shape), dtype=torch.float32) for shape in shapes)


def attention(q: Tensor, keys: Tensor, values: Tensor, scale: float | None = None, offset: int | None = None) -> Tensor:
    """`causal_attention` written out, to be got wrong on purpose: by its scale, or by where the mask begins."""
    group = q.shape[1] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, dim=0) for x in (keys, values))
    scores = torch.einsum("nhd,htd->hnt", q, keys) * (q.shape[2] ** -0.5 if scale is None else scale)
    offset = keys.shape[1] - q.shape[0] if offset is None else offset
    seen = torch.ones(q.shape[0], keys.shape[1], dtype=torch.bool).tril(offset)
    return torch.einsum("hnt,htd->nhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), values)


def tiled(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Query head h reads KV head h mod n_kv_heads: the wrong neighbours share."""
    group = q.shape[1] // keys.shape[0]
    return attention(q, keys.repeat(group, 1, 1), values.repeat(group, 1, 1))


def windowed(model: Probe, token_ids: Tensor, sinks: int, window: int) -> Tensor:
    """The oracle of `stream_logits`: one pass without a cache, under a mask."""
    return full_pass(small_model(), token_ids, window_mask(len(token_ids), sinks, window))


def streams(tokens: int, sinks: int, window: int, says: str) -> Callable[[Attempt], None]:
    """A stage: `tokens` tokens through a cache of sinks + window, against one pass under a mask."""

    def stage(attempt: Attempt) -> None:
        model = Probe()
        args = model, drawn(tokens, seed=tokens), sinks, window
        call, got, want = attempt.call(args), attempt(*args), windowed(*args)
        if problem := kind_problem(got, want):
            raise Fault(f"{call} {problem}")
        longest = max((len(ids) for ids, _ in model.passes), default=0)
        if longest > 1:
            raise Fault(f"{call} ran a pass over {longest} tokens; a stream sends them one by one")
        positions = [position for _, passed in model.passes for position in passed]
        if positions != list(range(tokens)):
            late = next((i for i, p in enumerate(positions) if p != i), len(positions))
            raise Fault(
                f"{call} ran token {late} at position {positions[late] if late < len(positions) else 'none'}: a token "
                "keeps its place in the sequence, wherever its key lies in the buffer"
            )
        wrong = [i for i in range(tokens) if not same_value(got[i], want[i], CLOSE, 0.0)]
        if wrong:
            raise Fault(f"{call} diverges at token {wrong[0]} and is right before it: {says}")

    return stage


EXERCISES = (
    Exercise(
        id="kv.attention",
        lab=LAB,
        title="Attention from a cache",
        asked="Write the attention of one decode step with grouped-query heads. Now make it work for a prefill too.",
        spec="Write `causal_attention(q, keys, values)`. `keys` and `values` [n_kv_heads, tokens, head_dim] hold a "
        "whole sequence; `q` [new, n_heads, head_dim] are the queries of its **last** `new` tokens (1 in decode, all "
        "in a prefill, some in a chunk). Query head h reads KV head h // (n_heads / n_kv_heads). Scores are scaled by "
        "1/√head_dim, and a query sees every key up to its own. Return [new, n_heads, head_dim], float32.",
        reference=causal_attention,
        stages=(
            oracle(torch.zeros(1, 1, 1), step_of([1, 2, 3]), step_of([2, 6, 10]), gives=torch.full((1, 1, 1), 6.0)),
            trap(
                torch.tensor([[[2.0, 0.0, 0.0, 0.0]]]),
                torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]),
                torch.tensor([[[1.0] * 4, [0.0] * 4]]),
                says="the scores are 2/√4 = 1 and 0, so the first value weighs e/(e + 1)",
                gives=torch.full((1, 1, 4), 0.7310586),
            ),
            trap(
                torch.zeros(1, 4, 4),
                heads_of([0.0, 0.0], 2),
                heads_of([10.0, 20.0], 2),
                says="4 query heads on 2 KV heads: heads 0 and 1 read KV head 0, heads 2 and 3 read KV head 1",
                gives=torch.tensor([10.0, 10.0, 20.0, 20.0])[None, :, None].expand(1, 4, 4).clone(),
            ),
            trap(
                torch.zeros(3, 1, 1),
                step_of([0.0] * 3),
                step_of([6.0, 12.0, 18.0]),
                says="a prefill: query 0 sees one key, query 1 two, query 2 all three",
                gives=torch.tensor([6.0, 9.0, 12.0])[:, None, None],
            ),
            trap(
                torch.zeros(2, 1, 1),
                step_of([0.0] * 4),
                step_of([0.0, 3.0, 6.0, 9.0]),
                says="a chunk: the 2 queries are the last 2 of 4 tokens, so the first of them sees 3 keys",
                gives=torch.tensor([3.0, 4.5])[:, None, None],
            ),
            trap(
                torch.full((1, 1, 1), 300.0),
                step_of([1.0, 0.0]),
                step_of([5.0, 7.0]),
                says="one key dwarfs the other; its value comes through alone",
                gives=torch.full((1, 1, 1), 5.0),
            ),
            trap(
                torch.tensor([[[3.0] + [0.0] * 8]]),
                torch.eye(2, 9)[None],
                torch.tensor([[[1.0] * 9, [0.0] * 9]]),
                says="head_dim is 9 here: the scores are 3/√9 = 1 and 0",
                gives=torch.full((1, 1, 9), 0.7310586),
            ),
            trap(
                torch.full((2, 1, 1), 3e4),
                step_of([-1e5, -1e5]),
                step_of([5.0, 7.0]),
                says="all scores are −3·10⁹: a hidden key weighs nothing however low the others are, so hide it with "
                "−inf; and no maximum starts at 0",
                gives=torch.tensor([5.0, 6.0])[:, None, None],
            ),
            trap(
                torch.full((2, 1, 1), 300.0),
                step_of([900.0, 1000.0]),
                step_of([5.0, 7.0]),
                says="the key hidden from query 0 scores far above its own: mask before the maximum and the softmax",
                gives=torch.tensor([5.0, 7.0])[:, None, None],
            ),
            agrees(drawn_attention, n=60),
        ),
        mistakes=(
            Mistake("scores are divided by √head_dim", lambda q, k, v: attention(q, k, v, scale=1.0)),
            Mistake("√head_dim divides, not head_dim", lambda q, k, v: attention(q, k, v, scale=1 / q.shape[2])),
            Mistake(
                "consecutive query heads share a KV head; repeating the heads as a block pairs the wrong ones", tiled
            ),
            Mistake(
                "the mask is aligned with the first key; the queries belong to the last ones",
                lambda q, k, v: attention(q, k, v, offset=0),
            ),
            Mistake("a query must not see keys behind its own", lambda q, k, v: attention(q, k, v, offset=len(k[0]))),
            Mistake(
                "a token sees its own key as well",
                lambda q, k, v: attention(q, k, v, offset=k.shape[1] - q.shape[0] - 1),
            ),
        ),
        hints=(
            "In decode there is nothing to mask: the new token may see everything. Write that case with two einsums, "
            "then ask which keys the first of several queries must not see.",
            "Repeat each KV head n_heads / n_kv_heads times in a row. Scores [n_heads, new, tokens]; forbid key j to "
            "query i where j > tokens - new + i; softmax over the last axis; times values.",
            "`keys = keys.repeat_interleave(q.shape[1] // keys.shape[0], dim=0)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        rel_tol=1e-5,
        abs_tol=1e-6,
    ),
    Exercise(
        id="kv.cached_pass",
        lab=LAB,
        title="A pass through the cache",
        asked="Implement a KV cache for a model that calls you back once a layer. Where do positions come from?",
        spec="Write `cached_pass(model, cache, token_ids)`: one pass over int64 `token_ids` [new], which continue the "
        "sequence in `cache`. Return the logits [new, vocab]. `model(token_ids, positions, attend)` needs the int64 "
        "position of each token in its sequence, counted from 0, and calls `attend(layer, q, k, v)` once in every "
        "layer with q [new, n_heads, head_dim] and k, v [new, n_kv_heads, head_dim], rotated already; return what q "
        "attends to, shaped like q. `cache.keys` and `cache.values` are [n_layers, n_kv_heads, capacity, head_dim], of "
        "which the first `cache.length` tokens are filled; the rest is garbage. Store k and v, and leave the cache "
        "ready for the next pass. There is room enough.",
        reference=ref.cached_pass,
        stages=(
            fed_in(1, spare=7, says="alone in its sequence a token attends to itself, not to the unused room behind"),
            fed_in(5, says="k is [new, n_kv_heads, head_dim] and a layer's buffer [n_kv_heads, tokens, head_dim]"),
            fed_in(5, 1, says="a layer reads the keys and values that it stored itself in earlier passes"),
            fed_in(3, 4, 1, 1, says="a pass of several tokens continues a sequence just as a pass of one does"),
            fed_in(6, -3, 2, says="after cache.length was set back, what lies behind it no longer counts"),
            seeded_pieces,
        ),
        hints=(
            "Three things outlive a pass: the keys, the values, the length. Only one of the three may change once a "
            "pass, and not once a layer.",
            "past = cache.length, total = past + new. Positions are past … total-1. In attend: write k and v, heads "
            "first, to [past:total] of their layer, then attend to [:total]. Set the length after the model returns.",
            "`cache.keys[layer, :, past:total] = k.transpose(0, 1)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(10, 15),
        changes_inputs=True,
    ),
    Exercise(
        id="kv.debug_stream",
        lab=LAB,
        title="Right for the first N tokens",
        asked="Our streaming decoder passes its tests and goes wrong in long chats. Find out why.",
        spec="`stream_logits(model, token_ids, sinks, window)` feeds int64 `token_ids` one by one and returns the "
        "logits [tokens, vocab]. A token attends to the first `sinks` tokens of the sequence and to the newest "
        "`window`, **itself among them**; the cache holds sinks + window tokens. Tokens keep the positions they have "
        "in the sequence. The function below has three errors, none of which shows in a sequence shorter than the "
        "window. Mend them all.",
        reference=ref.stream_logits,
        starter=ref.broken_stream_logits,
        stages=(
            streams(3, 2, 4, says="nothing has been forgotten yet; compare with a plain pass"),
            streams(9, 0, 4, says="without sinks the buffer is one ring of 4; every slot of it is used"),
            streams(6, 2, 4, says="6 tokens fit into 2 + 4 slots; look at how many of them the last one reads"),
            streams(9, 2, 4, says="token 0 is a sink; look at which slot token 6 overwrites"),
            streams(15, 3, 2, says="the ring has gone round several times; the sinks must still be there"),
            streams(8, 1, 1, says="a window of 1 is the token itself, beside the sinks"),
            streams(11, 1, 3, says="the first token behind the sinks lies in the first slot behind them"),
        ),
        hints=(
            "Set sinks to 0: two of the three errors vanish. Which one is left, and from which token on does it show? "
            "Then set it to 2 and look at the first token that is wrong now.",
            "A slot is a place in memory, a position a place in the sequence: they part when the ring goes round. The "
            "ring lies behind the sinks. All slots that are filled are read.",
            "`slot = seen if seen < sinks else sinks + (seen - sinks) % window`",
        ),
        difficulty=3,
        importance=3,
        minutes=(10, 15),
    ),
)
