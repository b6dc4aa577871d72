"""Decoding steps captured once and replayed: a few microseconds of the host instead of one launch per operator.

A graph is a list of kernels with frozen arguments. Tensors are frozen as addresses, so a step's inputs are copied into
buffers that stay; plain numbers are frozen as they were. Therefore the key of a graph holds every number that can
differ between two steps and that any of its kernels or grids depends on:

    rows          requests, rounded up to a bucket; the rows that are too many are padding
    max_seq_len   the longest request, rounded up; attention derives its number of splits from it (and from rows)

and block tables have the width that max_seq_len asks for. (A rounded length may cut keys into other shares than the
real one: in 16 bits a replay then rounds its sums otherwise than the step without a graph.) All else (heads, window,
block size, context) is the engine's. A row of padding has length 0, slot -1 and the null block: it attends to nothing
and writes nowhere. The token to feed may itself be unknown to the host: for PENDING it is what the row sampled last,
from `newest`.

Graphs are captured when a step first needs one, and share one pool of memory: what a step leaves there is overwritten
by whichever runs next, and its logits lie outside in one place for all, or every graph would keep its own for good.
Batch sizes to capture, and slot -1 for padding: after vLLM, vllm/worker/model_runner.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, Backend
from labcore.attention.step_inputs import HostInputs
from labcore.attention.upload import Packed
from labcore.core.step_plan import PENDING
from labcore.engine.config import SchedulerConfig
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama

SHORTEST = 512  # tokens; below, lengths decide about little, and graphs for each would be many
Replay = Callable[[], object]
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Replay]]


class GraphKey(NamedTuple):
    """Every number that a captured step has frozen."""

    rows: int
    max_seq_len: int


def row_buckets(most: int) -> list[int]:
    """1, 2, 4, … 32, 48, 64, 96, 128, … up to `most`: at most half of the rows, from 32 on a third, are padding."""
    sizes = {most}
    size = 1
    while size < most:
        sizes |= {size} | ({size * 3 // 2} if 32 <= size and size * 3 // 2 < most else set())
        size *= 2
    return sorted(sizes)


def length_bucket(longest: int, most: int) -> int:
    """The next power of two, from SHORTEST to `most` tokens."""
    return min(max(SHORTEST, 1 << (longest - 1).bit_length()), most)


@dataclass(slots=True)
class Graph:
    """inputs: the buffers that the captured step reads; logits: [rows, vocab], where a replay writes."""

    inputs: Packed
    logits: Tensor
    replay: Replay


class DecodeGraphs:
    """The graphs of one engine. newest: int64 [max_num_seqs + 1], the token that each row of the batch sampled last;
    the entry behind them belongs to padding. capture: runs a step once and returns its output and how to repeat it."""

    def __init__(
        self,
        model: Llama,
        storage: KVStorage,
        scheduler: SchedulerConfig,
        newest: Tensor,
        backend: Backend,
        capture: Capture | None = None,
    ):
        self.model, self.storage, self.newest, self.backend = model, storage, newest, backend
        self.buckets, self.longest = row_buckets(scheduler.max_num_seqs), scheduler.max_model_len
        shape, weight = (scheduler.max_num_seqs, model.config.vocab), model.norm.weight
        self.logits = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        self.capture = capture or CudaCapture()
        self.graphs: dict[GraphKey, Graph] = {}

    def key(self, requests: int, longest: int) -> GraphKey:
        """The graph for so many requests, the longest of so many tokens."""
        rows = next(size for size in self.buckets if size >= requests)
        return GraphKey(rows, length_bucket(longest, self.longest))

    def fits(self, host: HostInputs) -> bool:
        """Whether the step is one token for each request, and each wants the next."""
        return host.max_query_len == 1 and len(host.wanted) == len(host.seq_lens)

    def run(self, host: HostInputs, rows: np.ndarray) -> Tensor:
        """Logits [requests, vocab] of the step; valid until the next run. rows: the requests' places in `newest`."""
        graph = self.graph(self.key(len(rows), host.max_seq_len))
        graph.inputs.send(
            {
                "token_ids": host.token_ids,
                "positions": host.positions,
                "slots": host.slot_mapping,
                "rows": rows,
                "seq_lens": host.seq_lens,
                "block_table": host.block_table,
            },
            self._padding,
        )
        graph.replay()
        return graph.logits[: len(rows)]

    def graph(self, key: GraphKey) -> Graph:
        """The graph of this key, captured now if it is new."""
        if key not in self.graphs:
            self.graphs[key] = self._captured(key)
        return self.graphs[key]

    @property
    def _padding(self) -> dict[str, int]:
        return {"slots": -1, "rows": len(self.newest) - 1}

    def _captured(self, key: GraphKey) -> Graph:
        """Capture a step of nothing but padding, so that capturing leaves no trace in cache or tokens."""
        width = -(-key.max_seq_len // self.storage.shape.block_size)
        of_rows = dict.fromkeys(("token_ids", "positions", "slots", "rows"), ((key.rows,), np.int64))
        shapes = {**of_rows, "seq_lens": ((key.rows,), np.int32), "block_table": ((key.rows, width), np.int32)}
        inputs = Packed(shapes, self.newest.device)
        empty = {name: np.empty([0] * len(shape), dtype) for name, (shape, dtype) in shapes.items()}
        there = inputs.send(empty, self._padding)
        starts = torch.arange(key.rows + 1, dtype=torch.int32)
        metadata = AttentionMetadata(
            starts, torch.zeros(key.rows, dtype=torch.int32), there["block_table"], there["slots"],
            max_query_len=1, max_seq_len=key.max_seq_len,
            on_device=(starts.to(self.newest.device), there["seq_lens"]),
        )  # fmt: skip

        def step() -> Tensor:
            known, newest = there["token_ids"], self.newest[there["rows"]]
            tokens = torch.where(known == PENDING, newest, known).clamp_(min=0)  # a row that failed sampled -1
            logits = self.model(tokens, there["positions"], PagedAttend(self.storage, metadata, self.backend))
            return self.logits[: key.rows].copy_(logits)

        return Graph(inputs, *self.capture(step))


class CudaCapture:
    """Captures CUDA graphs, on a stream of their own and into one pool: no two of them run at a time."""

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Tensor, Replay]:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            step()  # compiles kernels and lets cuBLAS allocate, neither of which can be captured
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            logits = step()
        return logits, graph.replay
