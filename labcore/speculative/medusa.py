"""Medusa: heads beside the LM head, each guessing one token further ahead, and a tree of their best guesses.

All heads read the one hidden state that the target computed anyway, so a draft costs one small product a head and no
pass. The price: head k guesses without knowing what stands between. A tree of several guesses a place makes up for it.
Source: Medusa, arXiv:2401.10774; FasterDecoding/Medusa, medusa/model/medusa_model.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.core.draft import Draft, depths
from labcore.core.errors import InputError
from labcore.speculative.proposer import Proposer, SpeculationStep, Target
from labcore.speculative.reduced_head import ReducedHead
from labcore.speculative.weights_file import WEIGHTS, Weights


class MedusaHead(nn.Module):
    """U (x + SiLU(W x)): what the LM head has to read to guess a later token than the next one.

    The paper gives every head an LM head of its own, trained on from the target's H; here it is H U, and of the two
    only the small U is the head's. W begins as 0 and U as a quarter of the identity: at first the head repeats what the
    LM head says, with less confidence.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.inner, self.out = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        nn.init.zeros_(self.inner.weight)
        nn.init.eye_(self.out.weight)
        self.out.weight.data /= 4

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + F.silu(self.inner(x)))


class MedusaHeads(nn.Module):
    """Hidden state after token t -> what the LM head would have to read to say tokens t+2, t+3, …."""

    def __init__(self, hidden: int, count: int):
        super().__init__()
        self.heads = nn.ModuleList(MedusaHead(hidden) for _ in range(count))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [rows, hidden]; returns [rows, heads, hidden]."""
        return torch.stack([head(hidden) for head in self.heads], dim=1)


@dataclass(frozen=True)
class SparseTree:
    """Which guesses a draft holds. Node i is the ranks[i]-th best guess (0 is the best) of the head for its depth, and
    hangs from node parents[i], -1 being the root. expected: accepted nodes that the accuracies promise."""

    parents: list[int]
    ranks: list[int]
    expected: float


def sparse_tree(accuracies: Sequence[Sequence[float]], nodes: int) -> SparseTree:
    """The tree of `nodes` nodes with the highest expected number of accepted tokens.

    accuracies[d][r]: how often the r-th best guess at depth d is right. Taken as independent, a node is accepted with
    the product of the accuracies on its path, and the expected number of accepted tokens is the sum over all nodes. No
    node is worth more than its parent or than its better sibling, so taking the most valuable node that hangs from the
    tree so far, again and again, is optimal (Medusa, section 2.3.3).
    """
    parents, ranks, depth_of, expected = [], [], [], 0.0
    waiting = [(-accuracies[0][0], 0, -1, 0, 1.0)]  # value, order of arrival, parent, rank, value of the parent
    arrived = 1
    while waiting and len(parents) < nodes:
        value, _, parent, rank, above = heapq.heappop(waiting)
        depth = 0 if parent < 0 else depth_of[parent] + 1
        expected -= value
        parents.append(parent)
        ranks.append(rank)
        depth_of.append(depth)
        if rank + 1 < len(accuracies[depth]):
            heapq.heappush(waiting, (-above * accuracies[depth][rank + 1], arrived, parent, rank + 1, above))
        if depth + 1 < len(accuracies):
            first = -value * accuracies[depth + 1][0]
            heapq.heappush(waiting, (-first, arrived + 1, len(parents) - 1, 0, -value))
        arrived += 2
    return SparseTree(parents, ranks, expected)


class MedusaProposer(Proposer):
    """Every request gets the same tree, filled with its own guesses."""

    reads_hidden = True

    def __init__(self, heads: nn.Module, head: ReducedHead, tree: SparseTree):
        self.heads, self.head, self.tree = heads, head, tree
        self.num_tokens = len(tree.parents)
        self.depths = depths(tree.parents)
        self.num_branch_tokens = self.num_tokens - max(self.depths) - 1

    @torch.inference_mode()
    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        rows = [row for row in step.rows if row.room > 0]
        if not rows:
            return {}
        last = step.hidden[[row.kept[-1] for row in rows]].float()
        guesses = self.heads(last)  # [rows, heads, hidden]
        best, _ = self.head.likeliest(guesses.flatten(0, 1), 1 + max(self.tree.ranks))
        best = best.view(*guesses.shape[:2], -1)[:, self.depths, self.tree.ranks].tolist()  # [rows, nodes]
        parents = self.tree.parents
        return {
            row.request_id: Draft(tokens[: row.room], parents[: row.room])
            for row, tokens in zip(rows, best, strict=True)
        }


def medusa(target: Target, num_tokens: int = 7, num_heads: int | None = None, weights: str | None = None) -> Proposer:
    """Medusa heads for `target`. num_tokens: nodes of the tree; num_heads: the deepest the tree may go, None for all;
    weights: a file of heads trained for this target, None for those of SmolLM2-135M that come with the package."""
    file = Weights(weights or WEIGHTS / "medusa.gguf", target.model, "medusa")
    for name, value in (("num_tokens", num_tokens), ("num_heads", num_heads)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: must be 1 or more")
    tree = sparse_tree(file.fact("accuracies")[:num_heads], num_tokens)
    heads = file.fill(MedusaHeads(target.model.config.hidden, 1 + max(depths(tree.parents))))
    return MedusaProposer(heads, file.head(), tree)
