"""Attention on a machine with two memories: a slow one that counts every byte, and whatever Python holds on chip.

memory = SlowMemory(q=q, k=k, v=v)             # float16 or float32 matrices, one head
out = queries_outer(memory, 64, 64)            # FlashAttention-2's order
memory.read, memory.written                    # bytes, as they were moved

Softmax over a part of the keys is a `State`; states of two parts merge into that of both, in any grouping. Tiles,
splits of a sequence, shared prefixes and several GPUs are the same merge at different scales.
Sources: FlashAttention, arXiv:2205.14135, algorithm 1; FlashAttention-2, arXiv:2307.08691, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from labcore.core.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class State:
    """Softmax-weighted values over some of the keys, not yet divided: what online softmax carries along.

    m [T]: largest score of each query; l [T]: sum of exp(score - m); o [T, d]: sum of exp(score - m) · value.
    """

    m: Array
    l: Array
    o: Array

    @staticmethod
    def of(scores: Array, values: Array) -> State:
        """The state of one part: scores [T, keys], -inf where masked; values [keys, d]."""
        m = scores.max(axis=1, initial=-np.inf)
        weights = np.exp(scores - _finite(m)[:, None])
        return State(m, weights.sum(axis=1), weights @ values)

    @staticmethod
    def empty(queries: int, d: int, dtype: Any = np.float32) -> State:
        """The state of no keys, which changes nothing that it is merged with."""
        return State(np.full(queries, -np.inf, dtype), np.zeros(queries, dtype), np.zeros((queries, d), dtype))

    def merge(self, other: State) -> State:
        """The state of both parts together."""
        m = np.maximum(self.m, other.m)
        mine, theirs = np.exp(self.m - _finite(m)), np.exp(other.m - _finite(m))
        return State(m, mine * self.l + theirs * other.l, mine[:, None] * self.o + theirs[:, None] * other.o)

    def output(self) -> Array:
        """Attention [T, d]; 0 for a query that saw no key."""
        return self.o / np.where(self.l > 0, self.l, 1)[:, None]

    def lse(self) -> Array:
        """log Σ exp(score) [T]; -inf for a query that saw no key."""
        return self.m + np.log(self.l, out=np.zeros_like(self.l), where=self.l > 0)


def _finite(m: Array) -> Array:
    """m, with 0 for the -inf of a query that saw no key: exp(-inf - 0) is 0, exp(-inf + inf) would be NaN."""
    return np.where(np.isneginf(m), 0, m).astype(m.dtype)


class SlowMemory:
    """Named matrices in slow memory. read and written count bytes; a piece is on chip once it was read."""

    def __init__(self, **matrices: Array) -> None:
        shapes = {name: matrices[name].shape for name in "qkv"}
        if len({shape[-1] for shape in shapes.values()}) > 1 or shapes["k"] != shapes["v"]:
            raise InputError(f"q, k, v of shapes {shapes}: need [T, d], [L, d], [L, d]")
        self.matrices, self.read, self.written = dict(matrices), 0, 0

    def reserve(self, name: str, shape: tuple[int, ...], dtype: Any, fill: float = np.nan) -> None:
        """Room for a result. Filling it is not counted: an engine allocates and does not write."""
        self.matrices[name] = np.full(shape, fill, dtype)

    def load(self, name: str, rows: slice) -> Array:
        """These rows in float32, counted at the width in which they are stored."""
        piece = self.matrices[name][rows]
        self.read += piece.nbytes
        return piece.astype(np.float32)

    def store(self, name: str, rows: slice, values: Array) -> None:
        """Round to the width of the matrix, write, count."""
        self.matrices[name][rows] = values
        self.written += self.matrices[name][rows].nbytes

    @property
    def sizes(self) -> tuple[int, int, int]:
        """T queries, L keys, d."""
        return len(self.matrices["q"]), *self.matrices["k"].shape


Watch = Callable[[int, int, State | None], None]  # row and column of a tile; its row's state, or None if skipped


def pieces(total: int, size: int) -> Iterator[tuple[int, slice]]:
    """(0, 0:size), (1, size:2·size), … up to `total`. Raises InputError for a size below 1."""
    if size < 1:
        raise InputError(f"tiles of {size} rows; give 1 or more")
    yield from ((i, slice(start, min(start + size, total))) for i, start in enumerate(range(0, total, size)))


def masked(scores: Array, first_query: int, first_key: int, offset: int) -> Array:
    """Causal: query i sees keys up to i + offset, where offset is L - T (the last query sees the last key)."""
    queries, keys = (np.arange(n) for n in scores.shape)
    return np.where(first_key + keys > first_query + queries[:, None] + offset, -np.inf, scores)


def standard(memory: SlowMemory, *, causal: bool = False) -> Array:
    """softmax(QKᵀ/√d)V in three passes, scores and probabilities stored like the inputs. float [T, d]."""
    (T, L, d), everything, dtype = memory.sizes, slice(None), memory.matrices["q"].dtype
    for name, shape in (("s", (T, L)), ("p", (T, L)), ("o", (T, d))):
        memory.reserve(name, shape, dtype)
    scores = memory.load("q", everything) @ memory.load("k", everything).T * d**-0.5
    memory.store("s", everything, masked(scores, 0, 0, L - T) if causal else scores)
    scores = memory.load("s", everything)
    weights = np.exp(scores - _finite(scores.max(axis=1))[:, None])
    total = weights.sum(axis=1, keepdims=True)
    memory.store("p", everything, weights / np.where(total > 0, total, 1))  # a row that sees nothing: zeros
    memory.store("o", everything, memory.load("p", everything) @ memory.load("v", everything))
    return memory.matrices["o"]


def queries_outer(
    memory: SlowMemory, rows: int, columns: int, *, causal: bool = False, watch: Watch = lambda *_: None
) -> Array:
    """FlashAttention-2: for each tile of `rows` queries, all visible tiles of `columns` keys; results are written once.

    Stores the output and the log-sum-exp; returns the output [T, d]. A causal walk skips tiles no query of which sees
    any key. `watch` is told of every tile.
    """
    T, L, d = memory.sizes
    memory.reserve("o", (T, d), memory.matrices["q"].dtype)
    memory.reserve("lse", (T,), np.float32)
    for row, queries in pieces(T, rows):
        q = memory.load("q", queries)
        state = State.empty(len(q), d)
        for column, keys in pieces(L, columns):
            if causal and keys.start > queries.stop - 1 + L - T:
                watch(row, column, None)
                continue
            scores = q @ memory.load("k", keys).T * d**-0.5
            if causal:
                scores = masked(scores, queries.start, keys.start, L - T)
            state = state.merge(State.of(scores, memory.load("v", keys)))
            watch(row, column, state)
        memory.store("o", queries, state.output())
        memory.store("lse", queries, state.lse())
    return memory.matrices["o"]


def keys_outer(memory: SlowMemory, rows: int, columns: int) -> Array:
    """FlashAttention's first order: for each tile of keys, all queries, whose states go out and come back. No mask."""
    T, L, d = memory.sizes
    memory.reserve("o", (T, d), np.float32, 0)
    memory.reserve("m", (T,), np.float32, -np.inf)
    memory.reserve("l", (T,), np.float32, 0)
    for _, keys in pieces(L, columns):
        k, v = memory.load("k", keys), memory.load("v", keys)
        for _, queries in pieces(T, rows):
            scores = memory.load("q", queries) @ k.T * d**-0.5
            m, l, o = (memory.load(name, queries) for name in "mlo")
            before = State(m, l, o * l[:, None])  # the paper stores outputs that are divided already
            after = before.merge(State.of(scores, v))
            for name, values in (("o", after.output()), ("m", after.m), ("l", after.l)):
                memory.store(name, queries, values)
    return memory.matrices["o"]


def split_keys(q: Array, k: Array, v: Array, splits: int) -> list[State]:
    """States of the keys in pieces of ⌈L/splits⌉, the last perhaps shorter; queries [T, d] see every key [L, d].

    Raises InputError for fewer than one split.
    """
    if splits < 1:
        raise InputError(f"splits={splits}: the keys lie in one piece or more; give 1 or more")
    size = -(-len(k) // splits)
    return [State.of(q @ k[keys].T * q.shape[1] ** -0.5, v[keys]) for _, keys in pieces(len(k), size)]


def combine(states: list[State]) -> State:
    """All parts together, from left to right."""
    return reduce(State.merge, states)


def tree_mask(depth: int, context: int) -> Array:
    """bool [nodes, context + nodes]: what each draft of a binary tree of `depth` levels sees, stored branch by branch.

    Everybody sees the context, its ancestors and itself. One row of nobody more, so that there are 2^depth.
    """
    nodes = 2**depth
    mask = np.zeros((nodes, context + nodes), dtype=bool)
    mask[:, :context] = True

    def place(node: int, size: int, above: tuple[int, ...]) -> None:
        """A subtree of `size` nodes that begins at `node`."""
        line = (*above, node)
        mask[node, [context + n for n in line]] = True
        for child in range(2 if size > 1 else 0):
            place(node + 1 + child * (size // 2), size // 2, line)

    place(0, nodes - 1, ())
    mask[-1, -1] = True
    return mask


def visible_share(mask: Array, tile: int) -> Array:
    """How much of each tile × tile of a mask [T, L] is visible; `tile` divides both. 0 is skipped, 1 needs no mask."""
    rows, columns = mask.shape
    return mask.reshape(rows // tile, tile, columns // tile, tile).mean(axis=(1, 3))


def tile_trace(q: Array, k: Array, v: Array, rows: int, columns: int, *, causal: bool, title: str, source: str) -> dict:
    """A trace for the Player, a tile a step: bytes and tiles so far, and m and l of the row's first query."""
    memory = SlowMemory(q=q, k=k, v=v)
    steps: list[dict[str, Any]] = []
    done = skipped = 0

    def watch(row: int, column: int, state: State | None) -> None:
        nonlocal done, skipped
        event: dict[str, Any] = {"op": "tile", "row": row, "column": column, "skipped": state is None}
        done, skipped = done + (state is not None), skipped + (state is None)
        if state is not None:
            event["values"] = {name: round(float(getattr(state, name)[0]), 4) for name in "ml"}
        counters = {"read": memory.read, "written": memory.written, "computed": done, "skipped": skipped}
        steps.append({"events": [event], "counters": counters})

    queries_outer(memory, rows, columns, causal=causal, watch=watch)
    steps[-1]["counters"]["written"] = memory.written  # the last tile of queries is written after its last step
    labels = {"read": "read from HBM", "written": "written", "computed": "tiles computed", "skipped": "tiles skipped"}
    return {
        "schema": "labcore-trace/1",
        "view": "tiles",
        "title": title,
        "source": source,
        "rows": len(q),
        "columns": len(k),
        "tile": [rows, columns],
        "causal": causal,
        "counters": [
            {"name": name, "label": label, "unit": "B" if name in ("read", "written") else "1"}
            for name, label in labels.items()
        ],
        "steps": steps,
    }
