"""A draft: tokens that may come next, which one pass of the model can check together.

Every draft is a tree that hangs from the last known token. A linear draft is a chain; the candidates of Medusa and
EAGLE, and the window of Lookahead, are trees with branches. Nodes stand in topological order, a parent before its
children, so the first k nodes of a draft are a draft, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from labcore.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Draft:
    """Proposed tokens. parents[i] < i is the node that token i continues, -1 the last known token; None: a chain.

    laws: the probabilities [tokens, vocab] from which the tokens were drawn, for a chain only; None: they were chosen
    without chance. Raises InputError for parents or laws that do not fit.
    """

    token_ids: list[int]
    parents: list[int] | None = None
    laws: Tensor | None = None

    def __post_init__(self) -> None:
        if self.parents is not None:
            if len(self.parents) != len(self.token_ids):
                raise InputError(f"{len(self.parents)} parents for {len(self.token_ids)} draft tokens; give one each")
            for node, parent in enumerate(self.parents):
                if not -1 <= parent < node:
                    raise InputError(f"draft node {node} has parent {parent}; a parent comes before its children")
        if self.laws is not None:
            if self.parents is not None:
                raise InputError("a draft tree has laws; only a chain may be drawn at random")
            if len(self.laws) != len(self.token_ids):
                raise InputError(f"{len(self.laws)} laws for {len(self.token_ids)} draft tokens; give one each")

    def first(self, count: int) -> Draft:
        """The draft of the first `count` tokens."""
        if count >= len(self.token_ids):
            return self
        parents, laws = self.parents and self.parents[:count], None if self.laws is None else self.laws[:count]
        return Draft(self.token_ids[:count], parents, laws)


class Branch(NamedTuple):
    """What a node of a draft tree attends to: positions 0 … known - 1, each in its own place, and then the nodes on its
    branch, itself last, in these `places`. Place p of a request is slot block_ids[p // S] * S + p % S."""

    known: int
    places: tuple[int, ...]

    @property
    def position(self) -> int:
        return self.known + len(self.places) - 1

    def place(self, position: int) -> int:
        """Where the token at `position` of this branch lies."""
        return position if position < self.known else self.places[position - self.known]


def is_chain(parents: Sequence[int]) -> bool:
    """Whether every node continues the one before it."""
    return all(parent == node - 1 for node, parent in enumerate(parents))


def depths(parents: Sequence[int]) -> list[int]:
    """How many draft tokens come before each node on its branch: a node at depth d stands d places behind the first
    unknown position."""
    found: list[int] = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return found


def branches(parents: Sequence[int]) -> list[list[int]]:
    """For each node the nodes from the root to it, itself included: what it attends to."""
    found: list[list[int]] = []
    for node, parent in enumerate(parents):
        found.append([node] if parent < 0 else [*found[parent], node])
    return found
