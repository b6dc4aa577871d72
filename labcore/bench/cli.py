"""`labcore bench`: measure this machine and write a recorded run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from labcore.bench import suites
from labcore.bench.cuda_run import DeviceLost
from labcore.bench.device import check_threads, cuda_available, usable_threads
from labcore.bench.record import write_run
from labcore.bench.report import report
from labcore.core.errors import InputError
from labcore.core.files import check_creatable

UNFINISHED = "unfinished-run"  # a file in --out, there while a GPU is measured
HELP = "measure ceilings and suites of this machine, and write a recorded run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `labcore bench`."""
    names = ", ".join(["all", "ceilings", *suites.available("cpu")])
    parser.add_argument("suite", nargs="*", default=["all"], help=f"what to run on the CPU: {names} (default: all)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the recorded run; without it nothing is written"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="torch threads on the CPU (default: 2, or all if fewer)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what to measure (default: cpu)")
    parser.add_argument("--budget", type=float, metavar="S", help="on a GPU: begin no row after so many seconds")
    parser.add_argument("--rows", default="*", metavar="PATTERN", help="on a GPU: only rows such as 'gpu.b*'")
    parser.add_argument("--resume", action="store_true", help="on a GPU: go on with the unfinished run in --out")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the run; 0 if every chosen suite ran, 1 if one failed."""
    threads = args.threads if args.threads is not None else min(2, usable_threads())
    check_threads(threads)
    if args.device == "cuda" and not cuda_available():
        raise InputError("--device cuda: torch sees no NVIDIA GPU here; leave it out to measure the CPU")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; name a folder")
    if args.device == "cpu" and (args.resume or args.budget is not None or args.rows != "*"):
        raise InputError("--rows, --resume and --budget are for --device cuda")
    if args.resume and (args.out is None or not (args.out / UNFINISHED).is_file()):
        raise InputError(f"--resume: there is no {UNFINISHED} in --out {args.out}; leave out --resume to begin anew")
    if args.out is not None:
        check_creatable(args.out, "--out")
    names = suites.choose(args.suite, args.device)
    on_cpu = args.device == "cpu"
    finished = suites.record(names, "cpu", threads, _say) if on_cpu else _record_cuda(args, names, threads)
    print(report(finished))
    if args.out is not None:
        print(f"\nwritten to {write_run(finished, args.out)}")
        (args.out / UNFINISHED).unlink(missing_ok=True)
    return 1 if any(one["why"].startswith("failed") for one in finished["skipped"]) else 0


def _record_cuda(args: argparse.Namespace, names: list[str], threads: int) -> dict:
    """The run; where the GPU's context was lost, a new process takes this one's place and goes on."""
    keep = None
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        keep = args.out / UNFINISHED
    try:
        options = {"keep": keep, "resume": args.resume, "budget": args.budget, "only": args.rows}
        return suites.record_cuda(names, threads, _say, **options)
    except DeviceLost as lost:
        if keep is None:
            raise InputError(f"the GPU was lost ({lost}); give --out, so that a new process can go on") from None
        _say(f"the GPU was lost ({lost}); a new process goes on with the next row")
        again = [word for word in sys.argv[1:] if word != "--resume"]
        os.execv(sys.executable, [sys.executable, "-m", "labcore.cli", *again, "--resume"])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
