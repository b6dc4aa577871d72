"""How fast this processor reads, by how much it reads: the staircase of its caches, down to memory."""

from __future__ import annotations

import torch

from labcore.bench.ceilings import cpu_array_bytes
from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import measure

SMALLEST = 64 * 2**10
STEP = 4


def suite(run: RunBuilder) -> None:
    """Rows `cpu.read.*`: B/s of summing fp32 arrays from 64 KiB up to one that no cache holds."""
    size, number = SMALLEST, 0
    while size <= cpu_array_bytes():
        array = torch.randn(size // 4, generator=torch.Generator().manual_seed(0))
        seconds = measure(array.sum, rounds=15, min_time=0.01)
        exact, summed = array.double().sum().item(), array.sum().item()
        error = abs(summed - exact) / array.double().abs().sum().item()
        run.add(
            Row(
                key=f"cpu.read.{number:02d}",
                what=f"sum of {size // 1024:,} KiB of fp32",
                ours=[[size / one for one in seconds]],
                unit="B/s",
                kind="value",
                correct={"pass": error < 1e-6, "error": error, "bar": "1e-6 of the sum of magnitudes"},
                dtype="fp32",
                threads=run.threads,
                bytes=float(size),
                shape={"bytes": size},
                method="15 samples of at least 10 ms, warm",
            )
        )
        size, number = size * STEP, number + 1
