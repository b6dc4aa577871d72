"""The mask of a draft tree: a node sees what is known and the nodes on its branch, and no sibling."""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.attention.metadata import AttentionShape
from labcore.core.draft import Branch


def node_mask(nodes: Sequence[Branch], first: int, length: int, shape: AttentionShape) -> Tensor:
    """bool [nodes, length - first], True where a node attends to the key in place first, first + 1, … length - 1.

    `first` is no later than what any node of the tree may see.
    """
    mask = torch.zeros(len(nodes), length - first, dtype=torch.bool)
    for row, branch in zip(mask, nodes, strict=True):
        oldest = shape.first_visible(branch.position)
        row[oldest - first : branch.known - first] = True
        row[[place - first for place in branch.places[max(0, oldest - branch.known) :]]] = True
    return mask
