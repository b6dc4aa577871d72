"""Suffix decoding: a tree of everything that was said, weighted by how often it was, is the draft model.

Prompt lookup copies one place of one text. Here every run of up to `depth` tokens is a path in a trie, and a node
counts how often its path occurred. The longest suffix of the current text that was ever continued leads to a node; what
followed there, the likeliest first, is a draft tree. Each request has a trie of its own text. What finished and
preempted requests have answered shares one, so that an agent that asks alike again and again is served from what it was
told before; requests with different salts share nothing, as in the prefix cache.
Source: Oliaro et al., SuffixDecoding, arXiv:2411.04975, section 3; its limit on speculation, tokens no more than
`factor` times the matched suffix, is that of ArcticInference's implementation.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep, Target


@dataclass(slots=True)
class Node:
    """count: how often the tokens on the path from the root to here occurred one after the other."""

    count: int = 0
    children: dict[int, Node] = field(default_factory=dict)


NOTHING = Node()  # the root where nothing is remembered


@dataclass(slots=True)
class Text:
    """salt: whose root its runs hang from; tails[k]: the node of its last k tokens; first: runs that begin before this
    token have been dropped again."""

    salt: str
    tails: list[Node]
    token_ids: list[int] = field(default_factory=list)
    first: int = 0


class SuffixTrie:
    """All runs of up to `depth` tokens of some texts. Adding a token takes O(depth), and so does dropping one.

    capacity: tokens that are remembered, which bounds the memory: at most capacity · depth nodes. The oldest go first,
    whosever they are. roots: one for each salt of which anything is remembered.
    """

    def __init__(self, depth: int, capacity: int):
        if depth < 2 or capacity < depth:
            raise InputError(f"depth={depth}, capacity={capacity}: a trie needs depth 2 or more and no less capacity")
        self.depth, self.capacity, self.num_tokens = depth, capacity, 0
        self.roots: dict[str, Node] = {}
        self.texts: deque[Text] = deque()

    def new_text(self, salt: str = "") -> Text:
        """A text to `extend`, found again by those with the same salt. Only the latest may still grow."""
        self.texts.append(Text(salt, [self.roots.setdefault(salt, Node())]))
        return self.texts[-1]

    def extend(self, text: Text, token_ids: Iterable[int]) -> None:
        """Let `text` go on with these tokens: each ends one run of every length."""
        for token in token_ids:
            longer = text.tails[:1]
            for node in text.tails:
                child = node.children.setdefault(token, Node())
                child.count += 1
                longer.append(child)
            text.tails = longer[: self.depth]
            text.token_ids.append(token)
            self.num_tokens += 1
            while self.num_tokens > self.capacity:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Forget the runs that begin with the oldest token."""
        while self.texts[0].first == len(self.texts[0].token_ids):
            self.texts.popleft()
        text = self.texts[0]
        root = node = self.roots[text.salt]
        for token in text.token_ids[text.first : text.first + self.depth]:
            child = node.children[token]
            child.count -= 1
            if not child.count:
                del node.children[token]
            node = child
        if not root.children:
            del self.roots[text.salt]
        text.first += 1
        self.num_tokens -= 1

    def longest(self, token_ids: Sequence[int], salt: str = "") -> tuple[Node, int]:
        """The node of the longest suffix that a text of this salt ever continued, and the suffix's length; (the root,
        0) if none did."""
        root = self.roots.get(salt, NOTHING)
        for length in range(min(self.depth - 1, len(token_ids)), 0, -1):
            node: Node | None = root
            for token in token_ids[len(token_ids) - length :]:
                node = node.children.get(token)
                if node is None:
                    break
            if node is not None and node.children:
                return node, length
        return root, 0


def grow(node: Node, most: int, min_probability: float, branches: bool = True) -> tuple[Draft, float]:
    """A draft of what followed at `node`, the likeliest tokens first, and how many of its tokens are expected to be
    accepted: the sum of their probabilities, a token's being its share of what followed its parent, times its parent's.

    most: tokens; min_probability: no token below; branches: False follows only the likeliest child (of equals, the
    oldest).
    """
    tokens: list[int] = []
    parents: list[int] = []
    score, order = 0.0, 0
    heap: list[tuple[float, int, int, int, Node]] = []

    def offer(node: Node, place: int, probability: float) -> None:
        nonlocal order
        total = sum(child.count for child in node.children.values())
        children = sorted(node.children.items(), key=lambda item: -item[1].count)
        for token, child in children if branches else children[:1]:
            share = probability * child.count / total
            if share >= min_probability:
                heapq.heappush(heap, (-share, order, token, place, child))
                order += 1

    offer(node, -1, 1.0)
    while heap and len(tokens) < most:
        share, _, token, parent, child = heapq.heappop(heap)
        tokens.append(token)
        parents.append(parent)
        score -= share
        offer(child, len(tokens) - 1, -share)
    return Draft(tokens, parents if branches else None), score


class SuffixProposer(Proposer):
    """num_tokens: most draft tokens; factor: and no more than so many for each token of the matched suffix;
    min_probability: of a draft token; depth, capacity: of each trie (see SuffixTrie); shared_capacity: tokens of
    finished answers that are remembered, 0 for none; branches: draft trees, or chains only."""

    def __init__(
        self,
        target: Target | None = None,
        num_tokens: int = 8,
        factor: float = 1.0,
        min_probability: float = 0.1,
        depth: int = 16,
        capacity: int = 8192,
        shared_capacity: int = 65536,
        branches: bool = True,
    ):
        if not 0 < factor < math.inf or not 0 < min_probability <= 1:
            raise InputError(
                f"factor={factor}, min_probability={min_probability}: must be above 0 and finite, the latter up to 1"
            )
        self.num_tokens, self.factor, self.branches = num_tokens, factor, branches
        self.num_branch_tokens = num_tokens - 1 if branches else 0
        self.min_probability, self.depth, self.capacity = min_probability, depth, capacity
        SuffixTrie(depth, capacity)  # raises now, not at the first request, for what makes no sense
        self.shared = SuffixTrie(depth, shared_capacity) if shared_capacity else None
        self.own: dict[str, tuple[SuffixTrie, Text, int]] = {}  # with the length of the prompt

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        drafts = {}
        for row in step.rows:
            trie = self._observe(row)
            if row.room:
                found = [self._draft(one, row) for one in (trie, self.shared) if one is not None]
                draft, score = max(found, key=lambda pair: pair[1])
                if score:
                    drafts[row.request_id] = draft
        return drafts

    def _observe(self, row: SpeculationRow) -> SuffixTrie:
        """The trie of the request's own text, up to date."""
        if row.request_id not in self.own:
            trie = SuffixTrie(self.depth, self.capacity)
            self.own[row.request_id] = trie, trie.new_text(row.cache_salt), row.num_prompt_tokens
        trie, text, _ = self.own[row.request_id]
        trie.extend(text, row.token_ids[len(text.token_ids) :])
        return trie

    def _draft(self, trie: SuffixTrie, row: SpeculationRow) -> tuple[Draft, float]:
        node, length = trie.longest(row.token_ids, row.cache_salt)
        most = min(row.room, int(self.factor * length))
        return grow(node, most, self.min_probability, self.branches)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Their answers, as far as they came, join the shared trie. So what a request had said before a preemption is
        counted once more when it ends; that shifts the draft's guesses a little, and never the answer."""
        for name in request_ids:
            if (own := self.own.pop(name, None)) is not None and self.shared is not None:
                _, text, num_prompt_tokens = own
                if answer := text.token_ids[num_prompt_tokens:]:
                    self.shared.extend(self.shared.new_text(text.salt), answer)
