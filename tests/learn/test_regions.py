"""Marked regions of shipped files, and pages that stand with and without a recorded run."""

import re
from pathlib import Path

import pytest

import labcore
from labcore.core.errors import DataError, InputError
from labcore.learn.recorded import Unrecorded, recorded_or_not, recorded_run
from labcore.learn.source import region

ROOT = Path(labcore.__file__).parent
MARKED = [
    (path, name) for path in ROOT.rglob("*.py") for name in re.findall(r"(?m)^# \[book: (.+?)\]", path.read_text())
]


def test_a_region_is_the_text_between_its_marks():
    shown = region("kernels.paging", "slots")
    file = (ROOT / "kernels" / "paging.py").read_text()
    assert shown.code.startswith("@triton.jit\ndef slots_of(") and shown.code in file
    assert "[book" not in shown.code and repr(shown).startswith("# labcore.kernels.paging\n@triton.jit")


def test_a_region_without_docstrings():
    assert (
        '"""' in region("kernels.paging", "slots").code
        and '"""' not in region("kernels.paging", "slots", doc=False).code
    )


def test_several_regions_stand_in_the_order_asked_for():
    both = region("kernels.merge_states", "merge-kernel", "merge-states").code
    assert both.index("def _merge_kernel(") < both.index("def merge_states_reference(")


@pytest.mark.parametrize("path, name", MARKED, ids=[f"{path.stem}:{name}" for path, name in MARKED])
def test_every_mark_in_the_package_is_closed_and_found(path, name):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    code = region(module, name).code
    compile(code, str(path), "exec")
    assert "# fmt: skip" not in code


@pytest.mark.parametrize(
    "module, name, sentence",
    [
        ("kernels.paging", "tables", "labcore.kernels.paging has no region 'tables'; it has slots"),
        ("core.units", "x", "labcore.core.units has no region 'x'; it has none"),
        ("kernels.nothing", "x", "no module labcore.kernels.nothing"),
    ],
)
def test_a_region_that_is_not_there(module, name, sentence):
    with pytest.raises(InputError, match=sentence):
        region(module, name)


def test_what_was_not_recorded_is_false_and_says_so():
    missing = recorded_or_not("gpu.no.such.row", "h200")
    assert isinstance(missing, Unrecorded) and not missing
    assert repr(missing) == "Not recorded: no run on h200 has rows 'gpu.no.such.row'; record one with make bench-gpu"
    with pytest.raises(DataError, match="record one with make bench-gpu"):
        recorded_run("gpu.no.such.row", "h200")


def test_what_was_recorded_is_the_run():
    assert recorded_or_not("cpu.prefix.ttft") == recorded_run("cpu.prefix.ttft")


def test_a_run_of_a_certain_commit():
    newest, named = recorded_or_not("gpu.decode_mbu.*", "h200"), recorded_or_not("gpu.decode_mbu.*", "h200", "a5960dc")
    assert named["git"].startswith("a5960dc") and not newest["git"].startswith("a5960dc")
    assert not recorded_or_not("gpu.decode_mbu.*", "h200", "0000000")
