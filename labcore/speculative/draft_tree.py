"""EAGLE-2's draft tree: grown where the draft is confident, one depth at a time.

A draft's probability of a node's whole branch is a good estimate of the chance that the target accepts it. So the
`width` likeliest nodes of a depth are expanded, and of everything seen the likeliest are kept.
Source: EAGLE-2, arXiv:2406.16858, section 4; SafeAILab/EAGLE, eagle/model/cnets.py `topK_genrate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labcore.core.draft import Draft


@dataclass(slots=True)
class GrowingTree:
    """token_ids, parents (-1: the root), values (log-probability of the branch): of every candidate so far.

    expanded: nodes whose children have been asked for, in that order; frontier: those that are to be expanded next.
    """

    width: int
    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    expanded: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=lambda: [-1])

    def grow(self, token_ids: list[list[int]], logprobs: list[list[float]]) -> None:
        """Add the candidates of every node of the frontier, and choose the next frontier among them."""
        first = len(self.token_ids)
        for parent, tokens, values in zip(self.frontier, token_ids, logprobs, strict=True):
            above = 0.0 if parent < 0 else self.values[parent]
            for token, value in zip(tokens, values, strict=True):
                self.token_ids.append(token)
                self.parents.append(parent)
                self.values.append(above + value)
        new = range(first, len(self.token_ids))
        self.frontier = sorted(self._best(new, self.width))
        self.expanded += self.frontier

    def branch(self, node: int) -> list[int]:
        """The nodes from the root to `node`, itself included."""
        found = [node]
        while self.parents[found[-1]] >= 0:
            found.append(self.parents[found[-1]])
        return found[::-1]

    def draft(self, num_tokens: int) -> Draft:
        """The likeliest `num_tokens` nodes. A node is never likelier than its parent, so they form a tree."""
        kept = sorted(self._best(range(len(self.token_ids)), num_tokens))
        place = {-1: -1} | {node: i for i, node in enumerate(kept)}
        return Draft([self.token_ids[node] for node in kept], [place[self.parents[node]] for node in kept])

    def _best(self, nodes: range, count: int) -> list[int]:
        """The likeliest of `nodes`; of equals, which a parent and its only child may be, the first."""
        return sorted(nodes, key=lambda node: (-self.values[node], node))[:count]
