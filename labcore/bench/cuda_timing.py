"""Timing on a GPU: events around one call behind a cleared cache, or a CUDA graph of many calls where one is short.

A call of 30 µs or more is timed by two events. Before them a buffer larger than the L2 cache is read, so that inputs
come from memory (were it written, storing its last 50 MB would be charged to the call), and a kernel waits: until the
host has queued the whole call, so that Python's time is not in it, and as long as the call takes, so that the call
before does not lower the clock. Shorter calls are captured, 40 or more in one graph, over sets of inputs that are
together larger than the cache three times over; a sample is the time of some replays divided by the calls in them.
Programs that are compared take turns.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from labcore.core.errors import InputError

Calls = Sequence[Callable[[], object]]  # the same work on different sets of inputs

FLUSH_BYTES = 256 * 2**20
SHORT = 30e-6  # s; below it an event pair measures the launch
GRAPH_CALLS, REPLAYS = 40, 5  # calls in a graph, replays in a sample
SLOW_HOST = 500e-6  # s that queuing a call may take before it was measured
LONGEST_REST = 5e-3  # s of waiting before a long call
SM_CLOCK = 2e9  # Hz, at least: how long a kernel that counts cycles waits
CACHES = 3  # what rotated inputs exceed, in L2 caches
MOST_SETS = 64  # sets of inputs, where each is so small that thousands would be needed


class Clock(Protocol):
    """What timing needs of a device; `CudaClock` is the real one."""

    def events(self, calls: Calls) -> list[float]:
        """Seconds of each call, with a cold cache."""

    def graph(self, calls: Calls) -> Callable[[], float]:
        """A function that replays all calls some times and returns the seconds of one."""


class CudaClock:
    """The current CUDA device."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.buffer = torch.zeros(FLUSH_BYTES // 4, device="cuda")

    def events(self, calls: Calls) -> list[float]:
        cuda, pairs, host, rest = self.torch.cuda, [], SLOW_HOST, 0.0
        cuda.synchronize()
        for call in calls:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            self.buffer.amax()
            cuda._sleep(int(SM_CLOCK * max(2 * host + 20e-6, rest)))
            queued = time.perf_counter()
            start.record()
            call()
            end.record()
            host = time.perf_counter() - queued
            pairs.append((start, end))
            if host > 5e-3:  # a call that waits for the GPU, or one that was compiled: nothing to wait for next time
                host = SLOW_HOST
            if len(pairs) == 1:
                cuda.synchronize()
                rest = min(1e-3 * start.elapsed_time(end), LONGEST_REST)
        cuda.synchronize()
        return [1e-3 * start.elapsed_time(end) for start, end in pairs]

    def graph(self, calls: Calls) -> Callable[[], float]:
        cuda = self.torch.cuda
        cuda.synchronize()
        captured = cuda.CUDAGraph()
        with cuda.graph(captured):
            for call in calls:
                call()
        captured.replay()

        def sample() -> float:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            captured.replay()  # queued before the clock starts, so that the next ones follow without a gap
            start.record()
            for _ in range(REPLAYS):
                captured.replay()
            end.record()
            cuda.synchronize()
            return 1e-3 * start.elapsed_time(end) / (REPLAYS * len(calls))

        return sample


class OneCall:
    """Runs every program once and times nothing: what fills the caches of compilers before a run."""

    def events(self, calls: Calls) -> list[float]:
        calls[0]()
        return [1.0] * len(calls)

    def graph(self, calls: Calls) -> Callable[[], float]:
        calls[0]()
        return lambda: 1.0


@dataclass(frozen=True)
class Timing:
    """rounds: program -> [round][sample] in s; method: how they were taken, in words."""

    rounds: dict[str, list[list[float]]]
    method: str

    def median(self, name: str) -> float:
        """Of all samples of a program, in s."""
        return statistics.median(itertools.chain.from_iterable(self.rounds[name]))


def alternate(
    programs: Mapping[str, Calls], clock: Clock, rounds: int = 5, samples: int = 6, graph: bool | None = None
) -> Timing:
    """Time programs in turns, `samples` of each in every round. graph: None takes a graph for all if one is short.

    Raises InputError for no programs, an empty one, or counts below 1.
    """
    if not programs or not all(programs.values()) or rounds < 1 or samples < 1:
        raise InputError(f"{len(programs)} programs, rounds={rounds}, samples={samples}: need at least one of each")
    for calls in programs.values():
        for call in calls:
            call()  # compiled, loaded and allocated
    if graph is None:
        graph = min(statistics.median(clock.events(_cycle(calls, 3))) for calls in programs.values()) < SHORT
    take = {name: _graphed(calls, clock, samples) if graph else _evented(calls, clock, samples)
            for name, calls in programs.items()}  # fmt: skip
    taken: dict[str, list[list[float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, one_round in take.items():
            taken[name].append(one_round())
    sets = min(len(calls) for calls in programs.values())
    return Timing(taken, _method(graph, sets))


def _evented(calls: Calls, clock: Clock, samples: int) -> Callable[[], list[float]]:
    turns = itertools.cycle(calls)
    return lambda: clock.events([next(turns) for _ in range(samples)])


def _graphed(calls: Calls, clock: Clock, samples: int) -> Callable[[], list[float]]:
    sample = clock.graph(_cycle(calls, max(GRAPH_CALLS, len(calls))))
    return lambda: [sample() for _ in range(samples)]


def _cycle(calls: Calls, count: int) -> Calls:
    return list(itertools.islice(itertools.cycle(calls), count))


def _method(graph: bool, sets: int) -> str:
    inputs = f"{sets} set{'s' * (sets > 1)} of inputs in turn"
    if graph:
        return f"CUDA graph of {max(GRAPH_CALLS, sets)} calls, {REPLAYS} replays a sample, {inputs}; alternated rounds"
    return f"events around one call, {FLUSH_BYTES >> 20} MiB read before each, {inputs}; alternated rounds"


def sets_beyond_cache(bytes_per_call: float, l2_bytes: int) -> int:
    """How many sets of inputs, read one after the other, exceed CACHES caches; at most MOST_SETS."""
    return max(1, min(MOST_SETS, math.ceil(CACHES * l2_bytes / bytes_per_call) + 1))
