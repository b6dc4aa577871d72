"""The star import, `setup`, `source` and `show_table`: what a notebook sees of the package."""

from __future__ import annotations

import functools
import inspect
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import labcore
from labcore.core.errors import InputError
from labcore.core.units import Quantity
from labcore.learn import claims, exercises, setup
from labcore.learn.source import source
from labcore.learn.tables import show_table

PROMISED = "TODO check use hint solution claim quoted given source show show_table predict setup formula same facts"
PROMISED = [*PROMISED.split(), "Quantity", "np", "plt", "sp", "card", "report"]
LINE = re.compile(r"labcore \S+ · python \S+ · (?:no torch|torch \S+) · [^·\n]+ · (?:recorded|live)\n")


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a fresh interpreter, without the thread variables of this one."""
    kept = {k: v for k, v in os.environ.items() if k not in setup.THREAD_VARIABLES and not k.startswith("LABCORE")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment)


def test_one_star_import_gives_everything_and_no_torch():
    code = (
        "import sys\nfrom labcore.learn.notebook import *\nsetup('lab00_units')\n"
        f"missing = [n for n in {PROMISED!r} if n not in globals()]\n"
        "print(missing, 'torch' in sys.modules)"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert LINE.fullmatch(first + "\n") and second == "[] False"


def test_setup_pins_torch_to_one_thread_though_it_comes_later():
    pytest.importorskip("torch")
    code = (
        "from labcore.learn.notebook import *\nsetup('lab00_units')\nimport torch\n"
        "print(torch.get_num_threads())\ntorch.set_num_threads(2)\nsetup('lab00_units')\nprint(torch.get_num_threads())"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[1::2] == ["1", "1"]


def test_setup_seeds_loads_the_lab_and_starts_the_registry(capsys):
    claims.given("9 GB")
    setup.setup("lab00_units")
    assert LINE.fullmatch(capsys.readouterr().out)
    first = np.random.random()
    setup.setup("lab00_units")
    assert np.random.random() == first
    assert claims.registry() == []
    claims.given("1 GB")
    assert claims.registry()[0].notebook == "lab00_units"
    assert "units.room" in {one.id for one in exercises.of_lab("lab00")}


def test_modes(monkeypatch):
    monkeypatch.delenv("LIVE", raising=False)
    monkeypatch.delenv("LABCORE_MODE", raising=False)
    assert not setup.live()
    monkeypatch.setenv("LIVE", "1")
    assert setup.live() and setup.status_line().endswith(" · live")
    monkeypatch.delenv("LIVE")
    monkeypatch.setenv("LABCORE_MODE", "life")
    with pytest.raises(InputError, match="LABCORE_MODE='life' is unknown"):
        setup.live()


def test_the_device_is_the_drivers_name_or_cpu(monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    assert setup.device() == "cpu"
    monkeypatch.setattr(setup.shutil, "which", lambda name: name)
    answers = {0: "NVIDIA H200\nNVIDIA H200\n", 9: "NVIDIA-SMI has failed\n"}
    for code, text in answers.items():
        monkeypatch.setattr(
            setup.subprocess, "run", lambda *a, c=code, t=text, **k: types.SimpleNamespace(returncode=c, stdout=t)
        )
        assert setup.device() == ("NVIDIA H200" if code == 0 else "cpu")


def test_a_missing_package_is_one_sentence():
    refuse = (
        "import sys, importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'sympy' else find(name, *a)\n"
        "from labcore.learn.notebook import *"
    )
    result = python(refuse)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the notebooks need sympy; install with:") and "labcore[learn]" in last


@pytest.fixture
def colab(monkeypatch):
    """A stand-in for Colab that lacks anywidget; returns what was called."""
    calls = types.SimpleNamespace(pip=[], enabled=0, code=0)
    output = types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: setattr(calls, "enabled", calls.enabled + 1)
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    found = setup.importlib.util.find_spec
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda n: None if n in setup.WIDGET_PACKAGES else found(n))

    def run(command, **_):
        calls.pip += [command] if "pip" in command else []
        return types.SimpleNamespace(returncode=calls.code, stdout="")

    monkeypatch.setattr(setup.subprocess, "run", run)
    return calls


def test_colab_gets_widgets_without_their_dependencies(colab, capsys):
    setup.setup("lab00_units")
    assert colab.pip == [[sys.executable, "-m", "pip", "install", "-q", "--no-deps", "anywidget", "psygnal"]]
    assert colab.enabled == 1 and LINE.fullmatch(capsys.readouterr().out)


def test_colab_without_network_goes_on_and_says_so(colab, capsys):
    colab.code = 1
    setup.setup("lab00_units")
    out = capsys.readouterr().out
    assert out.startswith("anywidget, psygnal could not be installed: calculators show a table") and colab.enabled == 0


# -- source ---------------------------------------------------------------------------------------------------------


class Pool:
    """A pool."""

    size: int = 4

    @property
    def free(self):
        """Free blocks."""
        return self.size

    @functools.cached_property
    def half(self):
        return self.size // 2

    def take(self, n):
        """Take n.

        Raises nothing.
        """
        # a comment stays
        self.size -= n
        return self.size


def decorated(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


@decorated
def wrapped(x):
    return x + 1


def kept_apart(
    x,  y,
):  # fmt: skip
    return x, y


def test_source_shows_the_librarys_own_text():
    shown = source(Quantity.to)
    assert repr(shown).startswith("# labcore.core.units.Quantity.to\ndef to(self, target: str) -> Quantity:\n")
    assert shown._repr_markdown_() == f"```python\n{shown!r}\n```"
    assert str(labcore.__path__[0]) not in repr(shown)


def test_source_without_the_formatters_marker():
    """The marker alone goes: no line moves."""
    shown, written = source(kept_apart).code, inspect.getsource(kept_apart).rstrip()
    assert "# fmt: skip" in written and shown == written.replace("  # fmt: skip", "")


def test_source_without_docstrings():
    assert source(Pool.take, doc=False).code == (
        "def take(self, n):\n    # a comment stays\n    self.size -= n\n    return self.size"
    )
    whole = source(Pool, doc=False).code
    assert '"""' not in whole and "size: int = 4" in whole and "# a comment stays" in whole
    compile(whole, "shown", "exec")


@pytest.mark.parametrize(
    ("thing", "first"),
    [
        (Pool.free, "@property"),
        (Pool.__dict__["half"], "@functools.cached_property"),
        (wrapped, "@decorated"),
        (functools.partial(wrapped, 1), "@decorated"),
        (source, "def source("),
        (setup, '"""`setup(notebook)`'),
    ],
)
def test_source_of_everything_that_has_some(thing, first):
    assert source(thing).code.startswith(first)


@pytest.mark.parametrize("thing", [len, 3, np.add, "text", None])
def test_source_of_something_without_it(thing):
    with pytest.raises(InputError, match="no Python source to show"):
        source(thing)


def test_folded_source_survives_a_fence_inside():
    assert source(wrapped, fold="Solution")._repr_markdown_().startswith("<details>\n<summary>Solution</summary>\n\n")


# -- tables ---------------------------------------------------------------------------------------------------------


def test_a_table_reads_well_in_a_terminal_and_in_a_page():
    rows = [("A100", 312.0, 1_555, True), ("B200", np.float64(2250), np.int64(8_000), False)]
    table = show_table(rows, ["GPU", "TFLOP/s", "GB/s", "known"], caption="Two <GPUs>")
    assert repr(table).splitlines() == [
        "Two <GPUs>",
        "GPU   TFLOP/s   GB/s  known",
        "----  -------  -----  -----",
        "A100      312  1,555   True",
        "B200    2,250  8,000  False",
    ]
    page = table._repr_html_()
    assert '<th scope="col" style="padding: 0.2em 0.7em; text-align: left">GPU</th>' in page
    assert "<caption>Two &lt;GPUs&gt;</caption>" in page
    assert page.count("<tr>") == 3


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ([312.0, 989.4, 2250.0], ["312.0", "989.4", "2,250.0"]),
        ([14.3926, 9.4463, 8.5563], ["14.393", "9.446", "8.556"]),
        ([0.016232, 4.7944], ["0.01623", "4.794"]),
        ([16.0, 4], ["16", "4"]),
        ([0.0, 7.5], ["0.0", "7.5"]),
        ([1e-9, 1.0], ["1.000e-09", "1"]),
        ([float("nan"), float("inf"), 2.5], ["nan", "inf", "2.5"]),
        ([-0.23, 0.5], ["-0.23", "0.50"]),
        ([10**20], ["100,000,000,000,000,000,000"]),
        ([Quantity(80, "GB")], ["80 GB"]),
        ([1e300], ["1.000e+300"]),
    ],
)
def test_numbers_in_a_table(column, texts):
    assert [row[0] for row in show_table([(cell,) for cell in column], ["x"]).rows] == texts


def test_a_ragged_table_is_refused():
    with pytest.raises(InputError, match="row 2 has 1 cells and the header 2"):
        show_table([(1, 2), (3,)], ["a", "b"])
    assert repr(show_table([], ["a"])) == "a\n-"
