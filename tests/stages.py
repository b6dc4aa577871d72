"""`make test`: run the stages one after the other, go on after a failure, then print what passed and what it cost.

python tests/stages.py             all stages
python tests/stages.py unit nbval  some of them
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from labcore.learn.authoring import find_notebooks

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "_build" / "reports"
JOBS = os.environ.get("LABCORE_JOBS", str(min(2, os.cpu_count() or 1)))
PYTEST = [sys.executable, "-m", "pytest", "-q"]
SPREAD = ["-n", JOBS, "--dist", "loadfile"]
STEAL = ["-n", JOBS, "--dist", "worksteal"]  # nothing in the browser's tests is dear to set up but the browser
NBVAL = ["--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", *SPREAD]
SANITIZE = ROOT / "tests" / "notebooks" / "sanitize.cfg"
COUNTS = ("passed", "failed", "skipped")


def stages() -> dict[str, tuple[list[list[str]], dict[str, str]]]:
    """Stage -> (commands, additional environment). A stage without commands has nothing to run in this checkout."""
    pages = [str(path.relative_to(ROOT)) for path in find_notebooks(ROOT)]
    compared = [*PYTEST, "--nbval", f"--nbval-sanitize-with={SANITIZE}", *NBVAL, *pages]
    apart = ["--ignore=tests/book", "--ignore=tests/mutants"]
    ruff = [sys.executable, "-m", "ruff"]
    return {
        "lint": ([[*ruff, "check", "-q", "."], [*ruff, "format", "-q", "--check", "."]], {}),
        "unit": ([[*PYTEST, *SPREAD, "tests", *apart]], {}),
        "mutants": ([[*PYTEST, "tests/mutants"]], {}),
        "nbval": ([compared] if pages else [], {"LABCORE_MODE": "recorded"}),
        "browser": ([[*PYTEST, *STEAL, "tests/book"]], {}),
    }


def counts(report: Path) -> Counter[str]:
    """Tests passed, failed and skipped according to a JUnit report; nothing if there is none."""
    total: Counter[str] = Counter()
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            tests, bad = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            total.update(passed=tests - bad - skipped, failed=bad, skipped=skipped)
    return total


def run(name: str, commands: list[list[str]], extra: dict[str, str]) -> tuple[bool, float, Counter[str]]:
    """Run one stage's commands; returns (all exited 0, seconds, test counts)."""
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ, **extra}
    good, total, start = True, Counter(), time.monotonic()
    for command in commands:
        report = REPORTS / f"{name.replace(' ', '-')}.xml"
        report.unlink(missing_ok=True)
        is_pytest = command[: len(PYTEST)] == PYTEST
        print(f"\n=== {name}: {' '.join(command[1:] if is_pytest else command[2:])[:200]}", flush=True)
        code = subprocess.run(
            [*command, f"--junitxml={report}"] if is_pytest else command, cwd=ROOT, env=environment
        ).returncode
        good &= code == 0
        total += counts(report)
    return good, time.monotonic() - start, total


def main(wanted: list[str]) -> int:
    """Run the wanted stages (all by default) and print the table; 0 if every one passed."""
    known = stages()
    if unknown := set(wanted) - set(known):
        print(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    rows, total = [], Counter()
    for name in wanted or known:
        commands, extra = known[name]
        if not commands:
            rows.append((name, "nothing to run", 0.0, Counter()))
            continue
        good, seconds, seen = run(name, commands, extra)
        rows.append((name, "ok" if good else "FAILED", seconds, seen))
        total += seen
    print(f"\n{'stage':<14}{'result':<16}{'seconds':>8}{'passed':>9}{'failed':>8}{'skipped':>9}")
    for name, result, seconds, seen in rows:
        print(
            f"{name:<14}{result:<16}{seconds:>8.0f}"
            + "".join(f"{seen[k]:>{w}}" for k, w in zip(COUNTS, (9, 8, 9), strict=True))
        )
    print(f"{'all':<30}{sum(row[2] for row in rows):>8.0f}")
    broken = [name for name, result, *_ in rows if result == "FAILED"]
    if broken:
        print(f"failed: {', '.join(broken)}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
