"""From a step plan to flat tensors: all scheduled tokens one after the other, no padding, prompts and answers mixed.

A running request keeps a row of the block table from step to step, and only new blocks are copied into it. Buffers are
made once; what `build` returns is valid until the next call.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, StepInputs
from labcore.core.step_plan import ScheduledRequest
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.tree_rows import step_branches


class InputBatch:
    """block_table: int32 [max_num_seqs, blocks]; rows: request id -> its row."""

    def __init__(self, scheduler: SchedulerConfig, cache: CacheConfig, device: torch.device | str = "cpu"):
        self.block_size, self.device = cache.block_size, device
        longest = scheduler.max_model_len + scheduler.num_lookahead_tokens + scheduler.num_branch_tokens
        self.block_table = np.zeros((scheduler.max_num_seqs, -(-longest // cache.block_size)), np.int32)
        self.rows: dict[str, int] = {}
        self._free = list(range(scheduler.max_num_seqs))
        self._token_ids, self._positions, self._slots = np.zeros((3, scheduler.max_num_batched_tokens), np.int64)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Free the rows of these requests, if they have one."""
        for name in request_ids:
            row = self.rows.pop(name, None)
            if row is not None:
                self.block_table[row] = 0
                self._free.append(row)

    def _row(self, one: ScheduledRequest) -> int:
        """The row of a scheduled request, its table up to date."""
        row = self.rows.get(one.request.request_id)
        if row is None:
            row = self.rows[one.request.request_id] = self._free.pop()
        if one.first_new_block < len(one.block_ids):
            self.block_table[row, one.first_new_block : len(one.block_ids)] = one.block_ids[one.first_new_block :]
        return row

    def build(self, scheduled: list[ScheduledRequest]) -> StepInputs:
        """The inputs of a step, in the order of `scheduled`, which is not empty."""
        rows = np.array([self._row(one) for one in scheduled])
        counts = np.array([one.num_tokens for one in scheduled])
        lengths = np.array([one.start for one in scheduled]) + counts
        ends = counts.cumsum()
        tokens = int(ends[-1])
        token_ids, positions, slots = (a[:tokens] for a in (self._token_ids, self._positions, self._slots))
        token_ids[:] = list(chain.from_iterable(one.token_ids for one in scheduled))
        positions[:] = np.arange(tokens) + np.repeat(lengths - ends, counts)
        blocks = self.block_table[np.repeat(rows, counts), positions // self.block_size]
        slots[:] = blocks.astype(np.int64) * self.block_size + positions % self.block_size
        branches = {}
        if any(one.parents is not None for one in scheduled):
            branches = step_branches(scheduled)
            for token, branch in branches.items():  # so far the nodes' places
                positions[token] = branch.position
        wanted = [
            index
            for one, end in zip(scheduled, ends.tolist(), strict=True)
            if one.wants_token
            for index in range(end - 1 - one.num_draft_tokens, end)
        ]
        longest = int(lengths.max())
        metadata = AttentionMetadata(
            query_start_loc=torch.from_numpy(np.concatenate(([0], ends)).astype(np.int32)),
            seq_lens=torch.from_numpy(lengths.astype(np.int32)),
            block_table=self._put(self.block_table[rows, : -(-longest // self.block_size)]),
            slot_mapping=self._put(slots),
            max_query_len=int(counts.max()),
            max_seq_len=longest,
            branches=branches,
        )
        wanted = torch.tensor(wanted, dtype=torch.int64, device=self.device)
        return StepInputs(self._put(token_ids), self._put(positions), wanted, metadata)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
