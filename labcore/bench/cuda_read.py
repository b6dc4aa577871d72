"""The fastest way that a GPU offers to do something, and the ways to read a large array: the ceiling of decoding.

torch's own sum does not always reach what the memory gives, and a kernel that beat its ceiling would be called wrong.
So sums in Triton and a matrix-vector product of cuBLAS compete with it, and the winner is the ceiling.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.bench.cuda_timing import Clock

TILES = ((4096, 8), (8192, 8), (8192, 4))  # elements, warps
PROBES = 5
_chosen: dict[str, str] = {}  # ceiling -> way: decided once, so that a run's ceilings before and after are the same


def fastest(name: str, ways: Mapping[str, Callable[[], object]], clock: Clock) -> str:
    """The fastest of several ways to do the same work: the ceiling `name`. Each has run when this returns."""
    took = {}
    for way, call in ways.items():
        call()
        took[way] = statistics.median(clock.events([call] * PROBES))
    return _chosen.setdefault(name, min(took, key=took.get))


def reads(source: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to read `source`, fp32, a multiple of 2**15 elements on a CUDA device, by name."""
    yield "torch.sum", source.sum
    square = source.view(-1, 2**15)
    yield "torch.mv", partial(torch.mv, square, source.new_ones(2**15), out=source.new_empty(len(square)))
    for block, warps in TILES:
        sums = source.new_empty(source.numel() // block)
        launch = partial(block_sums[(len(sums),)], source, sums, BLOCK=block, num_warps=warps)
        yield f"Triton sums of {block} by {warps} warps", launch


@triton.jit
def block_sums(source, sums, BLOCK: tl.constexpr):
    """sums[i] = the sum of the i-th BLOCK of `source`."""
    block = tl.program_id(0).to(tl.int64)
    tl.store(sums + block, tl.sum(tl.load(source + block * BLOCK + tl.arange(0, BLOCK))))
