"""The scripts that ship are made from the sources, classic, and small."""

from __future__ import annotations

import re

import pytest

from labcore.learn import scripts
from labcore.learn.widgets.base import SCRIPTS, STATIC


@pytest.mark.parametrize("name", scripts.PARTS)
def test_the_committed_script_is_up_to_date(name):
    first = scripts.target(name).read_text(encoding="utf-8").splitlines()[0] + "\n"
    assert first == scripts.first_line(name), "run python -m labcore.learn.scripts"
    assert sorted(p.name for p in (scripts.SOURCES / name).glob("*.js")) == sorted(scripts.PARTS[name])


def test_a_changed_source_is_noticed(monkeypatch):
    before = scripts.first_line("review")
    monkeypatch.setattr(scripts, "read", lambda parts: "changed")
    assert scripts.first_line("review") != before


def test_the_scripts_are_classic_and_ask_for_nothing():
    for name in scripts.PARTS:
        text = scripts.target(name).read_text(encoding="utf-8")
        wanted = re.search(r"^(import|export)\b|\bimport\(|\bfetch\(|https?://", text, re.MULTILINE)
        assert not wanted, f"{name}: {wanted}"


def test_all_scripts_together_stay_below_80_kb():
    sizes = {name: (STATIC / name).stat().st_size for name in SCRIPTS if name != "labcore-formulas.js"}
    assert sum(sizes.values()) < 80_000, sizes
