"""Before a GPU is measured, every row runs once in one of many processes: all kernels are compiled side by side.

The processes share the folders in which Triton and torch.compile keep what they compiled, so the run that follows finds
everything there. They run the very programs that will be timed, with the same shapes, so nothing is compiled that is
not needed and nothing needed is missed. What fails here fails again in the run, which says so.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import importlib
import io
import multiprocessing
import os
import queue
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from labcore.bench.cuda_run import CudaRun, reason
from labcore.bench.cuda_timing import OneCall
from labcore.bench.device import usable_threads

WORKERS = 16  # each holds a CUDA context, half a gigabyte of GPU memory
LONGEST = 100.0  # s; what is not compiled by then is compiled by the run itself
FOLDERS = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}


def precompile(suites: Sequence[str], say: Callable[[str], object], only: str = "*") -> None:
    """Compile what the suites ("module:function", each module with a table ROWS) run on the current GPU.

    only: a pattern of the tables' keys.
    """
    start = time.perf_counter()
    share_folders()
    tasks = sorted(_tasks([where.split(":")[0] for where in suites]), key=lambda task: not task[2])
    tasks = [(module, key) for module, key, _ in tasks if fnmatch.fnmatchcase(key, only)]
    failures = run_apart(warm, tasks, LONGEST)
    for (_, key), why in failures.items():
        say(f"  not compiled: {key}: {why}")
    say(f"compiled for {len(tasks) - len(failures)} of {len(tasks)} rows in {time.perf_counter() - start:.0f} s")


def share_folders() -> None:
    """Name the compilers' folders in the environment, where nobody has: one place for this process and its children."""
    for variable, name in FOLDERS.items():
        os.environ.setdefault(variable, os.path.join(tempfile.gettempdir(), f"labcore-{os.getuid()}", name))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # the processes are the parallelism


def _tasks(modules: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """Module, key and whether it takes long, of every row."""
    for module in modules:
        suite = importlib.import_module(module)
        slow = getattr(suite, "SLOW_TO_COMPILE", ())
        yield from ((module, key, key in slow) for key in suite.ROWS)


def run_apart(work: Callable, tasks: Sequence, longest: float) -> dict:
    """Do `work(task)` for all tasks, in order, in processes of their own; why, for each that had not succeeded when all
    were done or `longest` seconds were over."""
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    count = max(1, min(WORKERS, usable_threads(), len(tasks)))
    for task in (*tasks, *[None] * count):
        todo.put(task)
    workers = [context.Process(target=_worker, args=(work, todo, done), daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    failures = dict.fromkeys(tasks, f"not done in {longest:.0f} s, or its process ended")
    deadline = time.monotonic() + longest
    while failures and time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            task, why = done.get(timeout=0.5)
            if why is None:
                del failures[task]
            else:
                failures[task] = why
            tasks = [other for other in tasks if other != task]
        if not tasks or not any(worker.is_alive() for worker in workers):
            break
    for worker in workers:
        worker.terminate() if worker.is_alive() else worker.join()
    return failures


def _worker(work: Callable, todo, done) -> None:
    warnings.simplefilter("ignore")
    while (task := todo.get()) is not None:
        why = None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                work(task)
        except Exception as error:  # the run meets it again, and records it
            why = reason(error)
        done.put((task, why))
        if why and ("CUDA error" in why or "AcceleratorError" in why):
            return  # its context is lost; the others take its tasks


class Compiling(CudaRun):
    """A run whose programs run once, on one set of inputs, and whose rows are thrown away."""

    warming = True

    def __init__(self) -> None:
        self.device, self.description, self.clock = "cuda", {}, OneCall()

    def ceiling(self, name: str) -> float:
        return 1.0


def warm(task: tuple[str, str]) -> None:
    """Run one row of a suite once."""
    import torch

    module, key = task
    for _ in importlib.import_module(module).ROWS[key](Compiling()):
        pass
    gc.collect()
    torch.cuda.empty_cache()
