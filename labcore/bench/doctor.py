"""`labcore doctor`: what is here, what is missing, and the one command that gets it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from labcore.bench import device, hooks
from labcore.core.errors import FetchError, InputError
from labcore.core.files import cache_dir, data_dir

HELP = "list versions, device, and what is missing with the command that gets it"

# Each names a function () -> iterable of Finding; a hook whose module does not exist yet is passed over.
CHECKS = (
    "labcore.bench.doctor:python_and_packages",
    "labcore.bench.doctor:machine",
    "labcore.engine.doctor:findings",
    "labcore.bench.doctor:browser",
    "labcore.bench.doctor:folders",
)
# distribution -> what it is for, and the extra of pyproject.toml that brings the right version of it
PACKAGES = {
    "numpy": ("everything", ""),
    "torch": ("the engine, the model and the labs", "run"),
    "triton": ("the GPU kernels of chapter 6", "run"),
    "sympy": ("formulas and chapters", "learn"),
    "matplotlib": ("figures", "learn"),
    "jupyterlab": ("the labs in a browser", ""),
    "jupyter-book": ("building the HTML book", "book"),
    "pytest": ("the tests", "test"),
    "transformers": ("comparing with a peer", "test"),
}
CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is the command or setting that supplies what is missing, None when all is well."""

    subject: str
    detail: str
    fix: str | None = None


def python_and_packages() -> Iterator[Finding]:
    """Versions of Python, labcore and the packages the book uses."""
    found = device.versions()
    yield Finding("python", found["python"])
    yield Finding("labcore", found["labcore"])
    for package, (purpose, extra) in PACKAGES.items():
        if package == "triton" and not sys.platform.startswith("linux"):
            continue
        version = device.package_version(package)
        wanted = f"'labcore[{extra}]'" if extra else package
        missing = Finding(package, f"not installed; needed for {purpose}", f"{sys.executable} -m pip install {wanted}")
        yield Finding(package, version) if version else missing


def machine() -> Iterator[Finding]:
    """The CPU, its memory, and the GPU if torch sees one."""
    cpu = device.describe("cpu")
    memory = f", {cpu['memory_bytes'] / 2**30:.1f} GiB memory" if cpu["memory_bytes"] else ""
    yield Finding("cpu", f"{cpu['name']}, {cpu['threads']} threads{memory}")
    if device.cuda_available():
        gpu = device.describe("cuda")
        yield Finding("gpu", f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB, compute capability {gpu['cc']}")
    else:
        yield Finding("gpu", "none; recorded GPU runs are shown instead, every lab runs on the CPU")


def browser() -> Iterator[Finding]:
    """The browser that the tests of the built pages drive."""
    chrome = next((name for name in CHROMES if shutil.which(name)), None)
    absent = Finding("browser", "no Chromium; the tests of the built pages skip", "apt-get install chromium")
    yield Finding("browser", chrome) if chrome else absent


def folders() -> Iterator[Finding]:
    """Where raw traces are read from and downloads are kept."""
    yield Finding("cache", str(cache_dir()))
    data = data_dir()
    absent = Finding("data", "no raw traces; chapters use committed summaries", "export LABCORE_DATA=/path/to/traces")
    yield Finding("data", str(data)) if data else absent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`labcore doctor` takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one line a finding, a fix under each gap. Always 0: only Python and numpy are required."""
    for name in CHECKS:
        if hooks.exists(name.split(":")[0]):
            for finding in _findings(name):
                print(f"{'○' if finding.fix else '✓'} {finding.subject:<14}{finding.detail}")
                if finding.fix:
                    print(f"  {'':<14}→ {finding.fix}")
    return 0


def _findings(name: str) -> Iterator[Finding]:
    """Findings of one check; where it cannot even look, the sentence that says why, which names its own fix."""
    try:
        yield from hooks.load(name)()
    except (InputError, FetchError) as error:
        yield Finding(name.split(":")[1], "cannot be checked", str(error))
    except ModuleNotFoundError as error:
        yield Finding(name.split(":")[1], f"needs {error.name}", f"python -m pip install {error.name}")
