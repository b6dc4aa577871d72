"""Which launch choices are fastest here: every candidate of every kernel, on the shapes that the bench measures.

    python -m labcore.kernels.tune --out tuned.json [prefill decode …]

Prints a table a case, fastest first, with the table's present choice marked, and writes all of it as JSON. The winners
go into `_config` by hand, beside the shape they won on. All candidates are compiled in parallel first.
"""

import argparse
import importlib
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from labcore.bench.cuda_run import reason
from labcore.bench.cuda_timing import CudaClock, alternate
from labcore.bench.precompile import Compiling, run_apart, share_folders
from labcore.kernels import _config
from labcore.kernels._compat import capability
from labcore.kernels.tune_cases import CASES, Case

LONGEST = 75.0  # s of compiling
OFF = 2e-2  # a candidate whose output differs by more than this from the present choice's is wrong


@contextmanager
def chosen(kind: str, launch: _config.Launch | list[_config.Rule] | None) -> Iterator[None]:
    """`_config` with `launch` as the one entry of `kind` for this GPU, or its rules; as it is for None."""
    key = kind, _config.architecture(capability("cuda"))
    before = _config.TABLE.get(key)
    if launch is not None:
        _config.TABLE[key] = launch
    _config._pick.cache_clear()
    try:
        yield
    finally:
        if before is None:
            _config.TABLE.pop(key, None)
        else:
            _config.TABLE[key] = before
        _config._pick.cache_clear()


def tried(case: Case, cc: tuple[int, int]) -> list[dict | None]:
    """The candidates of a case, behind the present choice (None)."""
    module = importlib.import_module(f"labcore.kernels.{case.module}")
    return [None, *(launch for launch in module.candidates(case.kind, cc) if case.fits(launch))]


def compile_one(task: tuple[str, str]) -> None:
    """Run one candidate of a case once."""
    name, launch = task
    case = next(case for case in CASES if case.name == name)
    with chosen(case.kind, json.loads(launch)):
        case.calls(Compiling())[0]()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def sweep(case: Case, clock: CudaClock, broken: dict) -> list[dict]:
    """Seconds of every candidate of a case, fastest first."""
    run = Compiling()
    run.clock, run.description = clock, {"l2_bytes": torch.cuda.get_device_properties(0).L2_cache_size}
    calls, found, expected = case.calls(run), [], None
    for launch in tried(case, capability("cuda")):
        entry = {"launch": launch, "seconds": None, "why": broken.get((case.like or case.name, json.dumps(launch)))}
        found.append(entry)
        if entry["why"]:
            continue
        try:
            with chosen(case.kind, launch):
                out = calls[0]().float()
                expected = out if expected is None else expected
                error = ((out - expected).norm() / expected.norm()).item()
                if not error <= OFF:
                    entry["why"] = f"wrong: {error:.2g} from the present choice"
                    continue
                taken = alternate({"it": calls}, clock, rounds=1, samples=8, graph=case.short)
                entry["seconds"] = taken.median("it")
        except Exception as error:
            entry["why"] = reason(error)
    return sorted(found, key=lambda one: one["seconds"] or float("inf"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ", ".join(dict.fromkeys(case.kind for case in CASES))
    parser.add_argument("kinds", nargs="*", help=f"of {kinds}, or names of cases; all without any")
    parser.add_argument("--out", type=Path, help="JSON with all times")
    parser.add_argument("--budget", type=float, default=90.0, help="seconds after which no further case begins")
    args = parser.parse_args()
    start, cc = time.perf_counter(), capability("cuda")
    share_folders()
    cases = [case for case in CASES if not args.kinds or {case.kind, case.name} & set(args.kinds)]
    waiting = [[(case.name, json.dumps(launch)) for launch in tried(case, cc)] for case in cases if not case.like]
    tasks = [task for turn in itertools.zip_longest(*waiting) for task in turn if task is not None]
    broken = run_apart(compile_one, tasks, min(LONGEST, args.budget))
    print(f"{len(tasks) - len(broken)} of {len(tasks)} compiled in {time.perf_counter() - start:.0f} s", flush=True)
    clock, results = CudaClock(), {}
    for case in cases:
        if time.perf_counter() - start > args.budget:
            print(f"{case.name}: the budget of {args.budget:.0f} s was used up", flush=True)
            continue
        results[case.name] = {"kind": case.kind, "tried": sweep(case, clock, broken)}
        show(case.name, results[case.name]["tried"])
        torch.cuda.empty_cache()
        if args.out:
            args.out.write_text(json.dumps({"device": torch.cuda.get_device_name(), "cases": results}, indent=1))
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def show(name: str, found: list[dict]) -> None:
    """The six fastest of a case, the present choice, and how many could not run."""
    present = next(one for one in found if one["launch"] is None)
    timed = [one["seconds"] for one in found if one["seconds"]]
    print(f"\n{name}: median of all {1e6 * statistics.median(timed):.1f} µs" if timed else f"\n{name}: nothing ran")
    for one in [*found[:6], *([present] if present not in found[:6] else [])]:
        words = " ".join(f"{key}={value}" for key, value in (one["launch"] or {"the": "present choice"}).items())
        print(
            f"  {1e6 * one['seconds']:9.1f} µs  {words}" if one["seconds"] else f"  {'–':>9}     {words}: {one['why']}"
        )
    for why in dict.fromkeys(one["why"] for one in found if one["why"]):
        print(f"  left out: {why}", flush=True)


if __name__ == "__main__":
    main()
