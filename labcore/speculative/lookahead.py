"""Lookahead decoding: the target drafts for itself, from guesses that it improves in parallel.

Jacobi decoding guesses the next W tokens, lets one pass say what should follow each of them, and takes the answers as
the next guesses. Few guesses are ever right in their place. But the model has said, often enough, how a text goes on
behind a token, so Lookahead keeps what column c of the guesses was in the last N - 1 passes, a trajectory, and with the
newest answer behind it has an n-gram for a pool. When the text reaches the first token of one in the pool, the rest is
a draft.

Both go into one pass as one draft tree. The verification branch: up to G n-grams from the pool, each a chain behind the
last known token. The lookahead branch: token (l, c), what column c was l passes after the oldest that is kept,
continues (l - 1, c), and the oldest level is a chain. So it sees the oldest guesses up to column c and then its own
trajectory, and stands c + 1 + l places behind the last known token. Its own guesses may be accepted, too: with N = 2
and G = 0 that is all there is, and the method is plain Jacobi decoding.
Sources: Fu et al., arXiv:2402.02057, section 3 and figure 2; hao-ai-lab/LookaheadDecoding, lade/decoding.py; Jacobi:
Santilli et al., arXiv:2305.10427.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep, Target

Gram = tuple[int, ...]


class NgramPool:
    """For each token the latest `size` continuations of it that were seen, the latest first."""

    def __init__(self, size: int):
        self.size = size
        self.continuations: dict[int, list[Gram]] = {}

    def add(self, token_id: int, continuation: Gram) -> None:
        known = self.continuations.setdefault(token_id, [])
        if continuation in known:
            known.remove(continuation)
        known.insert(0, continuation)
        del known[self.size :]

    def behind(self, token_id: int) -> list[Gram]:
        return self.continuations.get(token_id, [])


@dataclass(slots=True)
class Trajectories:
    """levels[l][c]: what column c was, the oldest level first. While there are fewer than N - 1 levels they are wider
    than W, for each pass then uses up one column. first: node of levels[0][0] in the draft under verification."""

    levels: list[list[int]]
    pool: NgramPool
    random: Random
    first: int = 0

    @property
    def num_nodes(self) -> int:
        return sum(map(len, self.levels))


class Lookahead(Proposer):
    """window: W, columns; ngram: N, tokens of an n-gram; guesses: G, n-grams that are verified at a time."""

    def __init__(self, target: Target, window: int = 4, ngram: int = 3, guesses: int = 2):
        for name, value, least in (("window", window, 1), ("ngram", ngram, 2), ("guesses", guesses, 0)):
            if value < least:
                raise InputError(f"{name}={value}: must be {least} or more")
        self.window, self.ngram, self.guesses = window, ngram, guesses
        widest = max(levels * (window + ngram - 1 - levels) for levels in range(1, ngram))
        self.num_tokens = guesses * (ngram - 1) + widest
        self.num_branch_tokens = self.num_tokens - (ngram - 1)
        self.requests: dict[str, Trajectories] = {}

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        return {row.request_id: self._draft(row) for row in step.rows if row.room}

    def forget(self, request_ids: Iterable[str]) -> None:
        for name in request_ids:
            self.requests.pop(name, None)

    def _draft(self, row: SpeculationRow) -> Draft:
        mine = self.requests.get(row.request_id)
        if mine is None:  # guesses at random from the prompt, by random numbers that any run repeats
            mine = Trajectories([], NgramPool(self.guesses), Random(len(row.token_ids)))
            mine.levels = [self._random(mine, row, self.window + self.ngram - 2)]
            self.requests[row.request_id] = mine
        elif len(row.chosen) > mine.first + mine.num_nodes:  # every node was in the pass; the scheduler may cut some
            self._advance(mine, row)
        tokens, parents = trie(mine.pool.behind(row.token_ids[-1]))
        mine.first = len(tokens)
        add_window(mine.levels, tokens, parents)
        return Draft(tokens[: row.room], parents[: row.room])

    def _advance(self, mine: Trajectories, row: SpeculationRow) -> None:
        """The pass has answered behind every node: a new level, n-grams for the pool, and on to the next place."""
        width = len(mine.levels[-1])
        begin = 1 + mine.first + mine.num_nodes - width
        levels = [*mine.levels, row.chosen[begin : begin + width]]
        if len(levels) < self.ngram:
            levels = [level[1:] for level in levels]  # the text has moved on by one place, and so do the columns
        else:
            for gram in zip(*levels, strict=True):
                mine.pool.add(gram[0], gram[1:])
            levels = levels[1:]  # level l + 1 stands where level l stood one place ago
        accepted = len(row.kept) - 1
        mine.levels = [level[accepted:] + self._random(mine, row, min(accepted, len(level))) for level in levels]

    @staticmethod
    def _random(mine: Trajectories, row: SpeculationRow, count: int) -> list[int]:
        return [mine.random.choice(row.token_ids) for _ in range(count)]


def trie(grams: Sequence[Gram]) -> tuple[list[int], list[int]]:
    """Nodes and parents of a draft that holds these continuations; common beginnings are shared."""
    tokens: list[int] = []
    parents: list[int] = []
    known: dict[tuple[int, int], int] = {}
    for gram in grams:
        node = -1
        for token in gram:
            if (node, token) not in known:
                known[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = known[node, token]
    return tokens, parents


def add_window(levels: Sequence[Sequence[int]], tokens: list[int], parents: list[int]) -> None:
    """Append the lookahead branch: level 0 a chain, every other token behind its column's token one level up."""
    above = -1
    for number, level in enumerate(levels):
        first = len(tokens)
        for column, token in enumerate(level):
            parents.append(above + column if number else (first + column - 1 if column else -1))
            tokens.append(token)
        above = first
