"""The suites `labcore bench` runs, and one run from first ceiling to finished file.

A suite is a function `suite(run: RunBuilder) -> None` that adds rows; register it here as "module:function". Ceilings
are measured before and after the suites in every run, so each row stands beside the ceilings of its own hour.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from labcore.bench import hooks
from labcore.bench.ceilings import measure_ceilings
from labcore.bench.cuda_run import CudaRun, DeviceLost
from labcore.bench.precompile import precompile
from labcore.bench.record import RunBuilder
from labcore.bench.timing import pinned_threads
from labcore.core.errors import FetchError, InputError

CPU_SUITES: dict[str, str] = {
    "working_set": "labcore.bench.working_set:suite",
    "formats": "labcore.formats.bench:suite",
    "decode": "labcore.model.bench:decode_suite",
    "roofline": "labcore.model.bench_roofline:suite",
    "memory": "labcore.model.bench:memory_suite",
    "weight_only": "labcore.model.bench_weight_only:suite",
    "quant": "labcore.quant.bench:suite",
    "quant_decode": "labcore.quant.bench_decode:suite",
    "kv_quality": "labcore.model.bench_cache_quality:suite",
    "kv_dequant": "labcore.kv.quantized_bench:suite",
    "engine": "labcore.engine.bench:suite",
    "serving": "labcore.engine.bench_serving:suite",
    "speculative": "labcore.engine.bench_speculation:suite",
    "acceptance": "labcore.engine.bench_acceptance:suite",
    "learn": "labcore.learn.bench:suite",
}
CUDA_SUITES: dict[str, str] = {  # the longest rows last: a run has a time budget
    "decode": "labcore.kernels.bench_decode:suite",
    "attention": "labcore.kernels.bench_attention:suite",
    "w4a16": "labcore.kernels.bench_w4a16:suite",
    "paged": "labcore.kernels.bench_paged:suite",
    "kv_quant": "labcore.kernels.bench_kv_quant:suite",
    "gemm8": "labcore.kernels.bench_gemm8:suite",
    "pointwise": "labcore.kernels.bench_pointwise:suite",
    "sampling": "labcore.kernels.bench_sampling:suite",
    "engine_gpu": "labcore.engine.bench_gpu:suite",
}

COOLING = 8.0  # s without work before the ceilings are measured again: a GPU hot from serving multiplies more slowly

Say = Callable[[str], object]


def available(device: str) -> dict[str, str]:
    """Suites for `device` whose module is there, by name, in the order they run."""
    table = CUDA_SUITES if device == "cuda" else CPU_SUITES
    return {name: where for name, where in table.items() if hooks.exists(where.split(":")[0])}


def choose(names: Sequence[str], device: str) -> list[str]:
    """Resolve "all", "ceilings" and suite names to the suites to run ("ceilings" adds none: they always run).

    Raises InputError for a name that is not registered for this device.
    """
    known = available(device)
    if unknown := [name for name in names if name not in (*known, "all", "ceilings")]:
        raise InputError(f"suite {unknown[0]!r} is unknown for {device}; use {', '.join(['all', 'ceilings', *known])}")
    return [name for name in known if "all" in names or name in names]


def record(names: Sequence[str], device: str, threads: int, say: Say = print) -> dict:
    """Measure ceilings, run the suites `names`, measure the ceilings again; returns the validated run.

    A suite that lacks something it needs (InputError, FetchError, a missing package) is listed under "skipped" with
    the reason; one that crashes is listed there as failed, and its traceback goes to stderr.
    """
    say(f"ceilings of this machine ({device}), before:")
    ceilings = measure_ceilings(device, sorted({1, threads}), say=say)
    return complete(RunBuilder(device, threads, ceilings, ["ceilings", *names], say), names)


def record_cuda(
    names: Sequence[str],
    threads: int,
    say: Say = print,
    *,
    keep: Path | None = None,
    resume: bool = False,
    budget: float | None = None,
    only: str = "*",
) -> dict:
    """The same on a GPU, after compiling in parallel what the suites will run.

    keep: a file that holds the unfinished run after every row; `resume` goes on from it. budget: seconds from the start
    after which no further row begins. only: a pattern of the suites' keys. Raises DeviceLost where only a new process,
    with `resume`, can go on.
    """
    started = datetime.now(UTC)
    options = {"keep": keep, "budget": budget, "only": only}
    if resume:
        run = CudaRun("cuda", threads, [], say=say, **options)
        run.restore(keep)
    else:
        precompile([available("cuda")[name] for name in names], say, only)
        say("ceilings of this machine (cuda), before:")
        ceilings = measure_ceilings("cuda", say=say)
        run = CudaRun("cuda", threads, ceilings, ["ceilings", *names], say, **options)
        run.started = started
    return complete(run, names)


def complete(run: RunBuilder, names: Sequence[str]) -> dict:
    """Run the suites `names`, measure the ceilings again; the validated run."""
    device, threads, say = run.device, run.threads, run.say
    for name in names:
        say(f"suite {name}:")
        try:
            with pinned_threads(threads):
                hooks.load(available(device)[name])(run)
        except DeviceLost:
            raise
        except (InputError, FetchError, ModuleNotFoundError) as missing:
            run.skip(name, str(missing))
            say(f"  skipped: {missing}")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            run.skip(name, f"failed: {type(error).__name__}")
            say("  failed; the traceback is above")
    say("ceilings again, after:")
    if device == "cuda":
        time.sleep(COOLING)
    return run.finish(measure_ceilings(device, sorted({1, threads}), say=say))
