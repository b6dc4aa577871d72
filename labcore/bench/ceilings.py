"""The ceilings of this machine: how fast it reads, copies and multiplies, measured and never looked up.

Every share of a roofline in the book has one of these in its denominator. Bandwidth is taken over arrays that no cache
holds; a copy counts the bytes read plus the bytes written; a matmul of n × n matrices counts 2 n³ FLOP (integer
operations count as FLOP). All inputs are random normal: zeros draw less power and flatter a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from labcore.bench.cuda_timing import CudaClock
from labcore.bench.device import cuda_available, last_level_cache_bytes, memory_bytes
from labcore.bench.statistics import summarize
from labcore.bench.timing import measure, pinned_threads
from labcore.core.errors import InputError

GPU_BYTES = 4 * 2**30
GPU_MATMUL_SIZE = 8192
CPU_MATMUL_SIZES = (2048, 1024, 512)
LONGEST_CALL = 0.4  # s; a slower CPU multiplies smaller matrices


@dataclass(frozen=True)
class Ceiling:
    """One measured ceiling: `work` B or FLOP a call (by `formula`), and `seconds` a call, one entry a sample."""

    name: str
    threads: int | None
    dtype: str
    op: str
    shape: str
    work: float
    formula: str
    unit: str
    seconds: tuple[float, ...]

    @property
    def key(self) -> str:
        return self.name if self.threads is None else f"{self.name}.{self.threads}t"

    @property
    def rates(self) -> list[float]:
        """Work over time for every sample, in `unit`, at the five significant digits a recorded run keeps."""
        return [float(f"{self.work / taken:.5g}") for taken in self.seconds]

    def to_json(self, again: Ceiling) -> dict:
        """This ceiling and the same one measured at the end of the run; the value is the higher of both medians."""
        if (again.key, again.shape) != (self.key, self.shape):
            raise InputError(f"{self.key} over {self.shape} was measured again as {again.key} over {again.shape}")
        before, after = ({"rounds": [one.rates], **summarize([one.rates])} for one in (self, again))
        fields = ("key", "name", "threads", "dtype", "op", "shape", "work", "formula", "unit")
        return {field: getattr(self, field) for field in fields} | {
            "value": max(before["median"], after["median"]),
            "drift": after["median"] / before["median"] - 1,
            "before": before,
            "after": after,
        }


Progress = Callable[[str], object]


def measure_ceilings(
    device: str, threads: Sequence[int] = (1,), rounds: int = 15, say: Progress = print
) -> list[Ceiling]:
    """Ceilings of `device` ("cpu" or "cuda"); on the CPU once for each torch thread count in `threads`.

    Without torch the CPU is measured through numpy, whose reductions use one thread: `op` and `threads` say so.
    Raises InputError for an unknown device or a GPU that is not there.
    """
    if device == "cuda":
        if not cuda_available():
            raise InputError(
                "device 'cuda' was asked for and torch sees no NVIDIA GPU; use the CPU or install CUDA torch"
            )
        return _told(_cuda(rounds), say)
    if device != "cpu":
        raise InputError(f"device {device!r} is unknown; use 'cpu' or 'cuda'")
    if importlib.util.find_spec("torch") is None:
        return _told(_numpy(cpu_array_bytes(), rounds), say)
    found: list[Ceiling] = []
    for count in sorted(set(threads)):
        with pinned_threads(count):
            found += _told(_torch_cpu(count, cpu_array_bytes(), rounds), say)
    return found


def _told(ceilings: Iterator[Ceiling], say: Progress) -> list[Ceiling]:
    found = []
    for one in ceilings:
        median = summarize([one.rates])["median"]
        say(f"  {one.key:<20} {median / 1e9:>10,.1f} G{one.unit}")
        found.append(one)
    return found


def cpu_array_bytes() -> int:
    """Bytes of an array no CPU cache holds: 8 last-level caches or 512 MiB, but at most an eighth of the memory."""
    wanted = max(8 * (last_level_cache_bytes() or 0), 512 * 2**20)
    return int(min(wanted, (memory_bytes() or 8 * 2**30) // 8)) // 4096 * 4096


def _torch_cpu(threads: int, array_bytes: int, rounds: int) -> Iterator[Ceiling]:
    import torch

    generator = torch.Generator().manual_seed(0)
    source = torch.randn(array_bytes // 4, generator=generator)
    target = torch.empty_like(source)
    yield from _bandwidth(source, target, threads, rounds)
    del source, target
    for dtype in ("fp32", "bf16", "int8"):
        size = _fitting_size(dtype, threads, CPU_MATMUL_SIZES)
        op, call = _cpu_product(dtype, size)
        yield _matmul(call, dtype, size, op, threads, rounds)


def _cpu_product(dtype: str, size: int) -> tuple[str, Callable[[], object]]:
    """Name and call of a random size × size matrix product on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    if dtype == "int8":
        a, b = ((x * 40).clamp(-127, 127).to(torch.int8) for x in (a, b))
        return "torch._int_mm", lambda: torch._int_mm(a, b)
    a, b = (x.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]) for x in (a, b))
    out = torch.empty_like(a)
    return "torch.mm", lambda: torch.mm(a, b, out=out)


@cache
def _fitting_size(dtype: str, threads: int, sizes: tuple[int, ...]) -> int:
    """The largest of `sizes` (descending) whose product should take at most LONGEST_CALL, probed with the smallest.

    Decided once a process, so that the ceiling measured again at the end of a run is the same one.
    """
    once = min(measure(_cpu_product(dtype, sizes[-1])[1], rounds=5, min_time=0))
    return next((size for size in sizes if once * (size / sizes[-1]) ** 3 <= LONGEST_CALL), sizes[-1])


def _numpy(array_bytes: int, rounds: int) -> Iterator[Ceiling]:
    generator = np.random.default_rng(0)
    source = generator.standard_normal(array_bytes // 4, dtype=np.float32)
    target = np.empty_like(source)
    read, copy = (lambda: source.max()), (lambda: np.copyto(target, source))
    shape = _array_shape(source.size)
    yield _ceiling("read_bandwidth", 1, "fp32", "numpy.max", shape, 4 * source.size, "4 N", "B/s", read, rounds)
    yield _ceiling(
        "copy_bandwidth", 1, "fp32", "numpy.copyto", shape, 8 * source.size, "4 N + 4 N", "B/s", copy, rounds
    )
    size = CPU_MATMUL_SIZES[1]
    a, b = (generator.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    op = "numpy.matmul (threads chosen by its BLAS)"
    yield _matmul(lambda: np.matmul(a, b), "fp32", size, op, None, rounds)


def _cuda(rounds: int) -> Iterator[Ceiling]:
    """Timed call by call, as the rows are: a GPU that multiplies without a pause lowers its clock."""
    import torch

    from labcore.bench.cuda_read import fastest, reads

    clock = CudaClock()

    def ceiling(name: str, dtype: str, ways: dict, shape: str, work: float, formula: str, unit: str) -> Ceiling:
        op = fastest(name, ways, clock)
        seconds = tuple(clock.events([ways[op]] * rounds))
        return Ceiling(name, None, dtype, op, shape, float(work), formula, unit, seconds)

    source = torch.randn(GPU_BYTES // 4, device="cuda")
    target, size, shape = torch.empty_like(source), source.nbytes, _array_shape(source.numel())
    yield ceiling("read_bandwidth", "fp32", dict(reads(source)), shape, size, "4 N", "B/s")
    copies = {"torch.Tensor.copy_": partial(target.copy_, source)}
    yield ceiling("copy_bandwidth", "fp32", copies, shape, 2 * size, "4 N + 4 N", "B/s")
    fills = {"torch.Tensor.fill_": partial(target.fill_, 1.0)}
    yield ceiling("fill_bandwidth", "fp32", fills, shape, size, "4 N", "B/s")
    del source, target, copies, fills
    n = GPU_MATMUL_SIZE
    for dtype in ("fp32", "bf16", "int8", "fp8"):
        if ways := _cuda_products(dtype, n):
            yield ceiling(f"matmul.{dtype}", dtype, ways, f"{n} × {n} × {n}", 2 * n**3, "2 n³", "FLOP/s")


def _cuda_products(dtype: str, n: int) -> dict[str, Callable[[], object]]:
    """Products of random n × n matrices, by name; none where the GPU has no such type.

    The second operand is stored as a linear layer stores its weight, a row an output: 8-bit products want it so.
    """
    import torch

    if dtype == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        return {}
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    if dtype == "int8":
        a, b = ((x * 40).clamp(-127, 127).to(torch.int8) for x in (a, b))
        return {"torch._int_mm": lambda: torch._int_mm(a, b.t())}
    if dtype == "fp8":
        a, b, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn), torch.ones((), device="cuda")
        options = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
        return {"torch._scaled_mm": lambda: torch._scaled_mm(a, b.t(), one, one, **options)}
    a, b = (x.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]) for x in (a, b))
    out = torch.empty_like(a)
    return {
        "torch.mm": lambda: torch.mm(a, b, out=out),
        "torch.mm by rows of both": lambda: torch.mm(a, b.t(), out=out),
    }


def _bandwidth(source, target, threads: int, rounds: int) -> Iterator[Ceiling]:
    """Read (a sum over the whole array) and copy on the CPU."""
    count, shape = source.numel(), _array_shape(source.numel())
    for name, op, work, formula, call in (
        ("read_bandwidth", "torch.sum", 4 * count, "4 N", source.sum),
        ("copy_bandwidth", "torch.Tensor.copy_", 8 * count, "4 N + 4 N", lambda: target.copy_(source)),
    ):
        yield _ceiling(name, threads, "fp32", op, shape, work, formula, "B/s", call, rounds)


def _matmul(call, dtype: str, n: int, op: str, threads: int | None, rounds: int) -> Ceiling:
    return _ceiling(f"matmul.{dtype}", threads, dtype, op, f"{n} × {n} × {n}", 2 * n**3, "2 n³", "FLOP/s", call, rounds)


def _ceiling(name, threads, dtype, op, shape, work, formula, unit, call, rounds) -> Ceiling:
    seconds = tuple(measure(call, rounds=rounds))
    return Ceiling(name, threads, dtype, op, shape, float(work), formula, unit, seconds)


def _array_shape(count: int) -> str:
    return f"N = {count:,} fp32 = {4 * count / 2**20:,.0f} MiB"
