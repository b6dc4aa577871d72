"""Draft lengths that follow acceptance and load: as many tokens as pay, none where none does.

Two things decide. How often the drafts of a request are accepted: alpha, estimated from its own past. And what a draft
costs: the time of a draft step, and how much longer a pass takes with the drafted tokens of the whole batch in it, both
by the proposer's own clock. While a pass reads weights longer than it computes, more tokens in it are nearly free; in
a large batch each is paid for, and the best length is 0 until the load falls.

The gain is `speculation.gain` of the formulas (Leviathan et al., arXiv:2211.17192, theorem 3.8, with a verification
that takes v plain steps); written out here, where nothing may need sympy.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from labcore.core.draft import Draft, depths
from labcore.core.errors import InputError
from labcore.kv.storage import KVStorage
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep, Target

COPIED = "num_tokens", "num_branch_tokens", "num_lookahead_tokens", "taps", "reads_hidden", "nbytes_per_token"
LATEST = 9  # measurements of a kind whose median counts: one that an interruption prolonged does not
HALF_LIFE = 32  # verified tokens after which an observation counts half
PRIOR, PRIOR_TOKENS = 0.7, 4  # alpha of a request without a past, and how many tokens' worth of one that is


@dataclass(slots=True)
class Acceptance:
    """alpha of one request, older outcomes counting less. kept, seen: drafted tokens, those behind a rejected one not
    counted. idle: steps since it last had a draft."""

    kept: float = PRIOR * PRIOR_TOKENS
    seen: float = PRIOR_TOKENS
    idle: int = 0

    @property
    def alpha(self) -> float:
        return self.kept / self.seen

    def observe(self, accepted: int, rejected: bool) -> None:
        """The outcome of a verification: so many drafted tokens were kept, and whether the next one was not."""
        fade = 0.5 ** ((accepted + rejected) / HALF_LIFE)
        self.kept, self.seen = fade * self.kept + accepted, fade * self.seen + accepted + rejected


class Stopwatch:
    """What took how long, by size: medians of the latest measurements."""

    def __init__(self) -> None:
        self.latest: dict[int, deque[float]] = {}
        self.medians: dict[int, float] = {}

    def observe(self, size: int, seconds: float) -> None:
        latest = self.latest.setdefault(size, deque(maxlen=LATEST))
        latest.append(seconds)
        self.medians[size] = statistics.median(latest)

    def seconds(self, size: int) -> float:
        """Between two measured sizes on a line, never falling; beyond the largest in proportion, which is the worst
        case; 0 if there is none."""
        if not self.medians:
            return 0.0
        measured = sorted(self.medians)
        times = np.maximum.accumulate([self.medians[one] for one in measured])
        return float(np.interp(size, measured, times)) * max(1.0, size / measured[-1])


def expected_gain(alpha: np.ndarray, lengths: np.ndarray, verification: np.ndarray, draft: float) -> np.ndarray:
    """Speed-up over plain steps [rows, lengths], for rows with `alpha` [rows] and drafts of so many tokens [lengths],
    when a verification takes `verification` [lengths] plain steps and drafting a token takes `draft`."""
    powers = alpha[:, None] ** np.arange(lengths.max() + 1)
    return powers.cumsum(1)[:, lengths] / (verification + draft * lengths)


class Adaptive(Proposer):
    """Asks `inner` for as many tokens as pay. Of a tree, whose nodes are not worth the same, for all or none.

    probe: steps without a draft after which a request tries one token, for acceptance and load change; clock: seconds.
    """

    def __init__(self, inner: Proposer, probe: int = 32, clock: Callable[[], float] = time.perf_counter):
        if probe < 1:
            raise InputError(f"probe={probe}: must be 1 step or more")
        self.inner, self.probe, self.clock = inner, probe, clock
        for name in COPIED:
            setattr(self, name, getattr(inner, name))
        self.acceptance: dict[str, Acceptance] = {}
        self.passes, self.drafting = Stopwatch(), Stopwatch()
        self.tree_depth = 0  # of the inner proposer's trees; 0: it proposes chains
        self.ended: float | None = None  # when the last step's drafts were made
        self.lengths: dict[str, int] = {}  # what was asked for last

    def attach(self, storage: KVStorage) -> None:
        self.inner.attach(storage)

    def forget(self, request_ids: Iterable[str]) -> None:
        names = list(request_ids)
        self.inner.forget(names)
        for name in names:
            self.acceptance.pop(name, None)

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        start = self.clock()
        decodes = all(row.end - row.begin == len(row.chosen) for row in step.rows)
        if self.ended is not None and decodes:  # a chunk of a prompt says nothing about verification
            self.passes.observe(len(step.inputs.token_ids), start - self.ended)
        for row in step.rows:
            self._learn(row)
        self.lengths = self._best_lengths(step.rows)
        rows = [replace(row, room=min(row.room, self.lengths.get(row.request_id, 0))) for row in step.rows]
        drafts = self.inner.propose(replace(step, rows=rows))
        self.tree_depth = max([self.tree_depth, *(_tree_depth(draft) for draft in drafts.values())])
        self.ended = self.clock()
        if asked := [length for length in self.lengths.values() if length]:
            self.drafting.observe(len(asked), (self.ended - start) / (self.tree_depth or max(asked)))
        return drafts

    def _learn(self, row: SpeculationRow) -> None:
        """From what became of the row's drafts. That a tree was left before its end counts as one rejection."""
        nodes = len(row.chosen) - 1
        if nodes < 1:
            return
        accepted = len(row.kept) - (row.end - row.begin - nodes)
        mine = self.acceptance.setdefault(row.request_id, Acceptance())
        mine.observe(accepted, accepted < (self.tree_depth or nodes))

    def _best_lengths(self, rows: list[SpeculationRow]) -> dict[str, int]:
        """Request id -> how many tokens to draft."""
        rows, batch = [row for row in rows if row.room], len(rows)
        if not rows:
            return {}
        known = [self.acceptance.setdefault(row.request_id, Acceptance()) for row in rows]
        nodes = [self.num_tokens] if self.tree_depth else list(range(1, self.num_tokens + 1))
        lengths = [self.tree_depth] if self.tree_depth else nodes
        verification, draft = [1.0] * len(nodes), 0.0  # until there are measurements
        if plain := self.passes.seconds(batch):
            verification = [self.passes.seconds(batch + count * len(rows)) / plain for count in nodes]
            draft = self.drafting.seconds(len(rows)) / plain
        alpha = np.array([one.alpha for one in known])
        gains = expected_gain(alpha, np.array(lengths), np.array(verification), draft)
        found = {}
        for row, mine, gain in zip(rows, known, gains, strict=True):
            best = nodes[gain.argmax()] if gain.max() > 1 else 0
            if best == 0 and mine.idle >= self.probe:
                best = nodes[0]
            mine.idle = 0 if best else mine.idle + 1
            found[row.request_id] = best
        return found


def _tree_depth(draft: Draft) -> int:
    return 0 if draft.parents is None else 1 + max(depths(draft.parents), default=0)


def adaptive(target: Target, draft: Mapping | None = None, probe: int = 32) -> Adaptive:
    """The proposer that `draft` describes, as `LLM(speculative=...)` does, its lengths adapted. See `Adaptive`.

    Raises InputError without a `draft`, or for one that makes no sense.
    """
    if not isinstance(draft, Mapping):
        raise InputError(f"draft={draft!r}: adaptive wraps another method; give one such as {{'method': 'ngram'}}")
    from labcore.speculative.build import build_proposer  # it has this function in its table

    return Adaptive(build_proposer(draft, target), probe)
