"""`labcore bench`: measure this machine and write a recorded run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from labcore.bench import suites
from labcore.bench.device import cuda_available, usable_threads
from labcore.bench.record import write_run
from labcore.bench.report import report
from labcore.core.errors import InputError

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


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the run; 0 if every chosen suite ran, 1 if one failed."""
    threads = args.threads if args.threads is not None else min(2, usable_threads())
    if not 1 <= threads <= usable_threads():
        raise InputError(
            f"--threads {threads} is not between 1 and the {usable_threads()} threads this process may use"
        )
    if args.device == "cuda" and not cuda_available():
        raise InputError("--device cuda: torch sees no NVIDIA GPU here; leave it out to measure the CPU")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; name a folder")
    names = suites.choose(args.suite, args.device)
    finished = suites.record(names, args.device, threads, say=lambda line: print(line, file=sys.stderr, flush=True))
    print(report(finished))
    if args.out is not None:
        print(f"\nwritten to {write_run(finished, args.out)}")
    return 1 if any(one["why"].startswith("failed") for one in finished["skipped"]) else 0
