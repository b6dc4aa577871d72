"""From a step plan to flat tensors: all scheduled tokens one after the other, no padding, prompts and answers mixed.

A running request keeps a row of the block table from step to step, and only new blocks are copied into it. What
`build` returns is valid until the next call.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch

from labcore.attention.metadata import StepInputs
from labcore.attention.step_inputs import HostInputs, host_inputs
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
        self._token_ids = np.zeros(scheduler.max_num_batched_tokens, np.int64)

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
        return self.host_inputs(scheduled).on(self.device)

    def host_inputs(self, scheduled: list[ScheduledRequest]) -> HostInputs:
        """The same before they go to the device."""
        rows = np.array([self._row(one) for one in scheduled])
        counts = np.array([one.num_tokens for one in scheduled])
        lengths = np.array([one.start for one in scheduled]) + counts
        tokens = int(counts.sum())
        self._token_ids[:tokens] = list(chain.from_iterable(one.token_ids for one in scheduled))
        wanted = [
            index
            for one, end in zip(scheduled, counts.cumsum().tolist(), strict=True)
            if one.wants_token
            for index in range(end - 1 - one.num_draft_tokens, end)
        ]
        return host_inputs(
            self._token_ids[:tokens],
            counts,
            lengths,
            self.block_table[rows, : -(-int(lengths.max()) // self.block_size)],
            self.block_size,
            wanted=wanted,
            branches=step_branches(scheduled) if any(one.parents for one in scheduled) else None,
        )
