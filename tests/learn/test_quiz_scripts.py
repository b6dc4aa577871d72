"""The scripts that ship are the sources, joined, and small."""

from __future__ import annotations

import re

import pytest

from labcore.learn import scripts


@pytest.mark.parametrize("name", scripts.PARTS)
def test_the_committed_script_is_up_to_date(name):
    assert scripts.target(name).read_text(encoding="utf-8") == scripts.joined(name), (
        "run python -m labcore.learn.scripts"
    )


@pytest.mark.parametrize("name", scripts.PARTS)
def test_every_source_is_joined_and_joining_is_safe(name):
    assert sorted(p.name for p in (scripts.SOURCES / name).glob("*.js")) == sorted(scripts.PARTS[name])
    for path in (scripts.SOURCES / name).glob("*.js"):
        source = re.sub(r"(?m)^\s*//.*", "", path.read_text(encoding="utf-8"))
        assert "/*" not in source, f"{path.name}: block comments are not left out"
        assert all(line.count("`") % 2 == 0 for line in source.splitlines()), f"{path.name}: a template over two lines"


def test_the_scripts_are_classic_and_ask_for_nothing():
    for name in scripts.PARTS:
        text = scripts.joined(name)
        wanted = re.search(r"^(import|export)\b|\bimport\(|\bfetch\(|https?://", text, re.MULTILINE)
        assert not wanted, f"{name}: {wanted}"
