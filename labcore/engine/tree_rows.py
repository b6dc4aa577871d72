"""Draft trees in a step: what each node attends to, and where the accepted ones go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labcore.core.draft import Branch, branches
from labcore.core.step_plan import ScheduledRequest


def step_branches(scheduled: Iterable[ScheduledRequest]) -> dict[int, Branch]:
    """Token of the pass -> its branch, for every node of the step's draft trees. A chain needs none."""
    found, end = {}, 0
    for one in scheduled:
        end += one.num_tokens
        if (parents := one.parents) is not None:
            known = one.start + one.num_tokens - one.num_draft_tokens
            for node, branch in enumerate(branches(parents), end - one.num_draft_tokens):
                found[node] = Branch(known, tuple(known + ancestor for ancestor in branch))
    return found


def accepted_slots(one: ScheduledRequest, path: Sequence[int], block_size: int) -> tuple[list[int], list[int]]:
    """Slots from which and to which the keys and values of the accepted nodes `path` go, so that they stand one behind
    the other after the known tokens. The first nodes of a draft stay where they are."""
    slots = one.slots(block_size)[one.num_tokens - one.num_draft_tokens :]
    moved = [(slots[node], slots[depth]) for depth, node in enumerate(path) if node != depth]
    return [source for source, _ in moved], [target for _, target in moved]
