"""Hardware and model constants live in labcore/facts and nowhere else in the package."""

import ast
import re
from pathlib import Path

import pytest

from labcore import facts

PACKAGE = Path(facts.__file__).parents[1]
EXEMPT = ("facts/", "learn/labs/")  # the inputs of an exercise are problem data, stated on the spot
NUMBER = re.compile(r"(?<![\w.#])\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")


def forbidden() -> set[float]:
    """Every peak, bandwidth, memory size and parameter count, in base units and in tera.

    Figures of one or two digits (8e12, 130e12) are some device's too, but ordinary numbers elsewhere: not counted.
    Whole numbers of tera are counted where they can mean little else.
    """
    devices = [facts.hardware(id) for id in facts.hardware_ids()]
    peaks = {rate for device in devices for rate in device.peak.values()}
    rates = peaks | {device.bandwidth for device in devices}
    sizes = {size for device in devices for size in (device.memory_bytes, device.usable_bytes) if size}
    models = {facts.model(id).parameters() for id in facts.model_ids()}
    broken_tera = {rate / 1e12 for rate in rates if rate % 1e12}
    truncated = {float(rate // 1e12) for rate in peaks if rate > 900e12}  # 989 for 989.4
    return {round(n, 6) for n in rates | sizes | models | broken_tera | truncated | {1979.0} if digits(n) >= 3}


def digits(number: float) -> int:
    """Significant digits of a number as one would write it."""
    return len(f"{number:.12e}".split("e")[0].replace(".", "").rstrip("0"))


def numbers_in(path: Path) -> list[tuple[int, float]]:
    """(line, number) of every numeric literal in a Python file, of everything that looks like one elsewhere."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant))
        return [(n.lineno, float(n.value)) for n in nodes if type(n.value) in (int, float)]
    lines = enumerate(text.splitlines(), 1)
    return [(i, float(m[0].replace("_", ""))) for i, line in lines for m in NUMBER.finditer(line)]


def typed_constants(folder: Path) -> list[str]:
    """Where a file under `folder`, EXEMPT ones apart, holds a number that facts own."""
    known = forbidden()
    found = []
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.js")]):
        if path.relative_to(folder).as_posix().startswith(EXEMPT):
            continue
        found += [f"{path.relative_to(folder)}:{line}: {n:g}" for line, n in numbers_in(path) if round(n, 6) in known]
    return found


def test_no_such_constant_is_typed_elsewhere():
    assert typed_constants(PACKAGE) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.py", "PEAK = 312e12"),
        ("a.py", "PEAK_TFLOPS = 989"),
        ("a.py", "bandwidth = 3.35e12  # H100"),
        ("a.py", "def f(beta=2_039_000_000_000): ..."),
        ("a.py", "P = 70_553_706_496"),
        ("a.js", "const peak = 989.4e12;"),
        ("a.js", "const tbps = 2.039;"),
    ],
)
def test_a_typed_constant_is_found(tmp_path, name, line):
    (tmp_path / name).write_text(line)
    assert len(typed_constants(tmp_path)) == 1


def test_ordinary_numbers_and_the_facts_themselves_are_left_alone(tmp_path):
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "a.py").write_text("PEAK = 312e12")
    (tmp_path / "b.py").write_text("x = [0, 1, 16, 256, 4096, 1e-5, 0.5, 32_000, 1e12, 10**6]\ny = 'H100: 989 TFLOP/s'")
    assert typed_constants(tmp_path) == []
