"""Timing that survives a shared machine: warm up, take turns, keep every sample.

A sample is the mean time of as many calls as fill `min_time`, so that the clock's resolution does not matter; the
samples of two programs that are compared are taken in alternating rounds (A B A B …).
"""

from __future__ import annotations

import gc
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from labcore.core.errors import InputError

Sync = Callable[[], object]


def measure(
    fn: Callable[[], object],
    rounds: int = 15,
    min_time: float = 0.02,
    sync: Sync | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """`rounds` samples of the time one call of `fn` takes, in seconds, after a warm-up.

    `sync` waits for work that `fn` only queued (`torch.cuda.synchronize`); it is called before and after each sample.
    """
    taken = alternate({"fn": fn}, rounds=rounds, per_round=1, min_time=min_time, sync=sync, clock=clock)["fn"]
    return [sample for one in taken for sample in one]


def alternate(
    programs: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    per_round: int = 3,
    min_time: float = 0.02,
    sync: Sync | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[list[float]]]:
    """Time several programs in turns: one block of `per_round` samples each, `rounds` times over.

    Returns seconds a call as `{name: [round][sample]}`, the form `Row(ours=…, baseline=…)` takes.
    Raises InputError for no program or for counts below 1.
    """
    if not programs or rounds < 1 or per_round < 1 or min_time < 0:
        raise InputError(
            f"{len(programs)} programs, rounds={rounds}, per_round={per_round}, min_time={min_time}: "
            "need at least one program, one round and one sample, and min_time >= 0"
        )
    calls = {name: _warm_up(fn, min_time, sync, clock) for name, fn in programs.items()}
    samples: dict[str, list[list[float]]] = {name: [] for name in programs}
    with _no_garbage_collection():
        for _ in range(rounds):
            for name, fn in programs.items():
                samples[name].append([_sample(fn, calls[name], sync, clock) for _ in range(per_round)])
    return samples


def _sample(fn: Callable[[], object], calls: int, sync: Sync | None, clock: Callable[[], float]) -> float:
    if sync:
        sync()
    start = clock()
    for _ in range(calls):
        fn()
    if sync:
        sync()
    return (clock() - start) / calls


def _warm_up(fn: Callable[[], object], min_time: float, sync: Sync | None, clock: Callable[[], float]) -> int:
    """Run `fn` twice; the second call, free of one-time costs, says how many calls fill `min_time`."""
    _sample(fn, 1, sync, clock)
    once = _sample(fn, 1, sync, clock)
    return max(1, math.ceil(min_time / once)) if once > 0 else 1000


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def pinned_threads(count: int) -> Iterator[int | None]:
    """Give torch exactly `count` threads inside the block; yields the number it really has, None without torch."""
    if count < 1:
        raise InputError(f"threads={count}: need at least 1")
    if importlib.util.find_spec("torch") is None:
        yield None
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
