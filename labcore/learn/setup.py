"""`setup(notebook)`: what every notebook does first, on a laptop, in CI and on Colab.

Importing this module pins the number of threads, so it comes before numpy and torch in `labcore.learn.notebook`:
timings in the book are for one thread, and sums in another order would print other digits.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import random
import shutil
import subprocess
import sys

import labcore
from labcore.core.errors import InputError

THREADS = "1"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NEEDED = ("numpy", "sympy", "matplotlib")
WIDGET_PACKAGES = ("anywidget", "psygnal")  # Colab has what they need, and its own numpy and torch must stay

for _variable in THREAD_VARIABLES:
    os.environ.setdefault(_variable, THREADS)


def require(*packages: str) -> None:
    """Raise ImportError with one sentence if any of the packages is missing."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f"the notebooks need {', '.join(missing)}; install with: {sys.executable} -m pip install 'labcore[learn]'"
        ) from None


def live() -> bool:
    """Whether cells measure this machine (LIVE=1 or LABCORE_MODE=live) instead of showing recorded runs.

    Raises InputError for a LABCORE_MODE that is neither "live" nor "recorded".
    """
    mode = os.environ.get("LABCORE_MODE", "recorded")
    if mode not in ("live", "recorded"):
        raise InputError(f"LABCORE_MODE={mode!r} is unknown; use 'live' or 'recorded'")
    return mode == "live" or os.environ.get("LIVE") == "1"


def setup(notebook: str) -> None:
    """Prepare a session for `notebook` (its file name without ending) and print versions, device and mode on one line.

    Seeds Python's and numpy's global generators and torch's where it is loaded, sets the plot style, loads the lab's
    exercises, and starts the registry of claims afresh. Torch is not imported: its threads follow the environment.
    """
    import numpy as np

    from labcore.learn import claims, exercises, plots

    if "google.colab" in sys.modules:
        prepare_colab()
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(int(THREADS))
    plots.use_style()
    claims.start_notebook(notebook)
    exercises.load_lab(notebook.partition("_")[0])
    exercises.start_session()
    print(status_line())


def status_line() -> str:
    """`labcore 0.1.0 · python 3.11.7 · torch 2.13.0 · cpu · recorded`."""
    from labcore.bench.device import package_version

    version = package_version("torch")
    torch = f"torch {version}" if version else "no torch"
    mode = "live" if live() else "recorded"
    return f"labcore {labcore.__version__} · python {platform.python_version()} · {torch} · {device()} · {mode}"


def device() -> str:
    """The first GPU's name as its driver gives it, or "cpu"."""
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    names = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
    return names[0].strip() if names else "cpu"


def prepare_colab() -> None:
    """Add what widgets need on Colab, dependencies untouched, and switch on its support for them; says what failed."""
    if absent := [name for name in WIDGET_PACKAGES if importlib.util.find_spec(name) is None]:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", *absent]
        if subprocess.run(command).returncode != 0:
            print(f"{', '.join(absent)} could not be installed: calculators show a table instead of controls")
            return
        importlib.invalidate_caches()
    importlib.import_module("google.colab.output").enable_custom_widget_manager()
