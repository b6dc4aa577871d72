"""From the new tokens of some requests to the flat tensors of one pass: one after the other, no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, StepInputs
from labcore.core.draft import Branch


def step_inputs(
    token_ids: np.ndarray,
    counts: np.ndarray,
    lengths: np.ndarray,
    block_table: np.ndarray,
    block_size: int,
    *,
    wanted: Sequence[int] | None = None,
    branches: Mapping[int, Branch] | None = None,
    device: torch.device | str = "cpu",
) -> StepInputs:
    """The pass over token_ids (int64 [tokens]), of which counts[i] (one or more) are request i's, the newest of its
    lengths[i] tokens.

    block_table: int32 [requests, blocks], blocks at least those of the longest request. wanted: see StepInputs; None:
    the last token of each request. branches: see AttentionMetadata; a node's position is its branch's, its slot is that
    of its place.
    """
    ends = counts.cumsum()
    positions = np.arange(ends[-1]) + np.repeat(lengths - ends, counts)  # so far the nodes' places
    blocks = block_table[np.repeat(np.arange(len(counts)), counts), positions // block_size].astype(np.int64)
    slots = blocks * block_size + positions % block_size
    branches = branches or {}
    for token, branch in branches.items():
        positions[token] = branch.position

    def put(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    metadata = AttentionMetadata(
        query_start_loc=torch.from_numpy(np.concatenate(([0], ends)).astype(np.int32)),
        seq_lens=torch.from_numpy(lengths.astype(np.int32)),
        block_table=put(block_table),
        slot_mapping=put(slots),
        max_query_len=int(counts.max()),
        max_seq_len=int(lengths.max()),
        branches=branches,
    )
    wanted = ends - 1 if wanted is None else np.array(wanted, np.int64)
    return StepInputs(put(token_ids), put(positions), put(wanted), metadata)
