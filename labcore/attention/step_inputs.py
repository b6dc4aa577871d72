"""From the new tokens of some requests to the flat arrays of one pass: one after the other, no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from labcore.attention.metadata import AttentionMetadata, StepInputs
from labcore.attention.upload import upload
from labcore.core.draft import Branch


@dataclass(slots=True)
class HostInputs:
    """StepInputs and their AttentionMetadata, still on the host: names and types are theirs."""

    token_ids: np.ndarray
    positions: np.ndarray
    wanted: np.ndarray
    query_start_loc: np.ndarray
    seq_lens: np.ndarray
    block_table: np.ndarray
    slot_mapping: np.ndarray
    max_query_len: int
    max_seq_len: int
    branches: Mapping[int, Branch] = field(default_factory=dict)

    def on(self, device: torch.device | str) -> StepInputs:
        """The same on `device`; to a GPU in one copy that nobody waits for."""
        device = torch.device(device)
        names = ["token_ids", "positions", "wanted", "block_table", "slot_mapping"]
        if device.type == "cuda":
            names += ["query_start_loc", "seq_lens"]  # there beside here: kernels read them, backends plan with them
        there = upload({name: getattr(self, name) for name in names}, device)
        metadata = AttentionMetadata(
            query_start_loc=torch.from_numpy(self.query_start_loc),
            seq_lens=torch.from_numpy(self.seq_lens),
            block_table=there["block_table"],
            slot_mapping=there["slot_mapping"],
            max_query_len=self.max_query_len,
            max_seq_len=self.max_seq_len,
            branches=self.branches,
            on_device=(there["query_start_loc"], there["seq_lens"]) if device.type == "cuda" else None,
        )
        return StepInputs(there["token_ids"], there["positions"], there["wanted"], metadata)


def host_inputs(
    token_ids: np.ndarray,
    counts: np.ndarray,
    lengths: np.ndarray,
    block_table: np.ndarray,
    block_size: int,
    *,
    wanted: Sequence[int] | None = None,
    branches: Mapping[int, Branch] | None = None,
) -> HostInputs:
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
    return HostInputs(
        token_ids,
        positions,
        ends - 1 if wanted is None else np.array(wanted, np.int64),
        np.concatenate(([0], ends)).astype(np.int32),
        lengths.astype(np.int32),
        block_table,
        slots,
        max_query_len=int(counts.max()),
        max_seq_len=int(lengths.max()),
        branches=branches,
    )


def step_inputs(*arrays, device: torch.device | str = "cpu", **options) -> StepInputs:
    """`host_inputs` of the same arguments, on `device`."""
    return host_inputs(*arrays, **options).on(device)
