"""Runs the page's scripts under node, so that Python and JavaScript can be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labcore.learn.widgets.base import SCRIPTS, STATIC

RUN = Path(__file__).resolve().parents[1] / "js" / "quiz" / "run.js"


def javascript(*calls: list[Any]) -> list[Any]:
    """One result per call [name, *arguments]; the names are those of run.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    scripts = [str(STATIC / name) for name in SCRIPTS if name != "labcore-formulas.js"]
    text = json.dumps({"scripts": scripts, "calls": calls})
    run = subprocess.run([node, str(RUN)], input=text, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
