"""Lab 4, trees: their mask and positions in one pass, and where the keys and values of the accepted branch go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from labcore.core.draft import branches
from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab04_references as ref

LAB = "lab04"


def drawn_tree(generator: np.random.Generator) -> tuple:
    nodes = int(generator.integers(1, 9))
    return [int(generator.integers(-1, node)) for node in range(nodes)], int(generator.integers(0, 6))


def tree(parents, known, *, sees=None, position=None):
    """`tree_inputs` with a part to be got wrong on purpose."""
    positions, mask = ref.tree_inputs(parents, known)
    for node, branch in enumerate(branches(parents)):
        mask[node, known:] = False
        mask[node, [known + seen for seen in (sees(node, branch) if sees else branch)]] = True
        if position:
            positions[node] = known + position(node, branch)
    return positions, mask


def copies(path, known, table, size, says: str = "") -> Callable[[Attempt], None]:
    """A stage: carried out one after the other, the copies put the accepted nodes in their places, and no more."""

    def stage(attempt: Attempt) -> None:
        args = (path, known, table, size)
        call, want, got = attempt.call(args), ref.slot_copies(*args), attempt(*args)
        if not isinstance(got, list) or any(not isinstance(one, tuple) or len(one) != 2 for one in got):
            raise Fault(f"{call} returned {describe(got)}, expected a list of (source slot, target slot)")
        places = {block * size + i: number * size + i for number, block in enumerate(table) for i in range(size)}
        slots = dict(places)  # slot -> the place whose keys it holds
        for source, target in got:
            for slot in (source, target):
                if slot not in places:
                    raise Fault(f"{call}: slot {slot} lies in no block of {describe(table)}: {says or 'use the table'}")
            slots[target] = slots[source]
        where = {place: slot for slot, place in places.items()}
        for place in range(known):
            if slots[where[place]] != place:
                raise Fault(
                    f"{call}: {describe(got)} overwrites known token {place}; drafts begin behind the known ones"
                )
        if want and got == [(target, source) for source, target in want]:
            raise Fault(f"{call} gave {describe(got)}: first the slot that is read, then the one that is written")
        for depth, node in enumerate(path):
            held = slots[where[known + depth]]
            if held != known + node:
                found = f"node {held - known}" if held >= known else f"known token {held}"
                raise Fault(
                    f"{call}: after {describe(got)} position {known + depth} holds the keys of {found}, expected node "
                    f"{node}{': ' if says else ''}{says}"
                )
        if len(got) > len(want):
            raise Fault(f"{call} gave {len(got)} copies, {len(want)} are enough: a node may stand in its place already")

    return stage


def drawn_path(generator: np.random.Generator) -> tuple:
    parents, known = drawn_tree(generator)
    branch = branches(parents)[int(generator.integers(len(parents)))]
    size = int(generator.integers(1, 5))
    table = generator.permutation(20)[: -(-(known + len(parents)) // size)].tolist()
    return branch, known, table, size


def random_copies(attempt: Attempt) -> None:
    """A stage: sixty random branches."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        copies(*drawn_path(generator))(attempt)


EXERCISES = (
    Exercise(
        id="spec.tree",
        lab=LAB,
        title="A tree in one pass",
        asked="Medusa verifies 64 candidate continuations in one forward pass. What do mask and positions look like?",
        spec="Write `tree_inputs(parents, known)`: a draft tree behind `known` tokens; node i continues node "
        "`parents[i]` < i, or the last known token if that is −1. Return **(positions, mask)**: `positions` int64 "
        "[nodes], the position of each node in the text it belongs to (known tokens are 0 … known − 1); `mask` bool "
        "[nodes, known + nodes], True where a node attends: to every known token, its ancestors and itself, and to no "
        "other branch.",
        reference=ref.tree_inputs,
        stages=(
            oracle(
                [-1, 0],
                2,
                gives=(torch.tensor([2, 3]), torch.tensor([[True, True, True, False], [True, True, True, True]])),
            ),
            trap([-1, -1], 1, says="two candidates for one place: same position, and neither sees the other"),
            trap(
                [-1, -1, 0, 1, 2], 2, says="node 4 continues 2, which continues 0: depth 2, three nodes on its branch"
            ),
            trap([-1, 0, 0, 1], 0, says="nothing known: the tree alone"),
            agrees(drawn_tree, n=60),
        ),
        mistakes=(
            Mistake(
                "a node's position is known + its depth; its number says only in which slot it lies",
                lambda *a: tree(*a, position=lambda node, branch: node),
            ),
            Mistake(
                "that is the causal mask: an earlier node on another branch belongs to a text that this one is not in",
                lambda *a: tree(*a, sees=lambda node, branch: range(node + 1)),
            ),
            Mistake("a node attends to itself, too", lambda *a: tree(*a, sees=lambda node, branch: branch[:-1])),
            Mistake(
                "the parent is not enough: follow the parents up to the root",
                lambda *a: tree(*a, sees=lambda node, branch: branch[-2:]),
            ),
            Mistake(
                "the first node stands at position known: the known tokens are 0 … known − 1",
                lambda *a: tree(*a, position=lambda node, branch: len(branch)),
            ),
        ),
        hints=(
            "Each node stands for one text: the known tokens and its branch. It must see just that text, and stand in "
            "it where it would stand without the tree.",
            "Row i of the mask is a copy of its parent's row with i itself switched on; for a root, the known tokens "
            "and itself. The position is the parent's plus one.",
            "`mask = torch.zeros(len(parents), known + len(parents), dtype=torch.bool)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
    ),
    Exercise(
        id="spec.rollback",
        lab=LAB,
        title="Keep the branch, drop the rest",
        asked="A tree of eight nodes was verified and three were accepted. What has to happen in the paged KV cache?",
        spec="Write `slot_copies(path, known, table, block_size)`: behind `known` tokens the nodes of a tree took "
        "consecutive places, node i the place known + i; place x is slot "
        "table[x // block_size] · block_size + x % block_size. `path` lists the accepted nodes, root first. The text "
        "goes on as if only they had been computed: the d-th of them belongs in place known + d. Return the list of "
        "copies **(source slot, target slot)**, carried out one after the other. Copy nothing that stands in its "
        "place; the rejected rest needs no copy, it will be overwritten.",
        reference=ref.slot_copies,
        stages=(
            copies([0, 1, 2], 5, [4, 2], 4, says="a chain that was accepted stands in its place"),
            copies([0, 2], 3, [0, 1], 4, says="node 2 lies in place 5 and belongs in place 4"),
            copies(
                [1, 3], 0, [0], 4, says="node 1 must be read before node 3 is written over it: from the root outwards"
            ),
            copies([0, 4], 2, [7, 3], 4, says="place 6 is slot 3·4 + 2, place 3 is slot 7·4 + 3"),
            copies([], 4, [1, 2], 4),
            random_copies,
        ),
        hints=(
            "Depth and number of a node agree as long as the path is the tree's first branch. Where they differ, the "
            "node lies too far behind, never too far in front.",
            "For depth, node in enumerate(path): if they differ, (slot(known + node), slot(known + depth)). In this "
            "order a place is read before it is written, because node ≥ depth.",
            "`slot = lambda place: table[place // block_size] * block_size + place % block_size`",
        ),
        difficulty=2,
        importance=2,
        minutes=(6, 10),
    ),
)
