"""Golden vectors of every formula, for tests here and in the browser: tests/formulas/golden.json.

    python -m tests.formulas.golden

rewrites the file. {id: [{"inputs": {…}, "value": …}, …]}, values in the formula's unit.
"""

from __future__ import annotations

import json
from pathlib import Path

from labcore.core.files import atomic_write
from labcore.formulas import formula, golden

PATH = Path(__file__).with_name("golden.json")


def generate() -> dict[str, list[dict]]:
    """Five vectors a formula."""
    return {id: [{"inputs": inputs, "value": value} for inputs, value in golden(id)] for id in formula.ids()}


def text(vectors: dict[str, list[dict]]) -> str:
    """JSON with one vector a line."""
    entries = [f'"{id}": [\n' + ",\n".join(f"  {json.dumps(v)}" for v in rows) + "\n]" for id, rows in vectors.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


if __name__ == "__main__":
    atomic_write(PATH, text(generate()))
