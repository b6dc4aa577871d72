"""`labcore-widgets.js` is the files of `js/`, one after the other: small sources, one classic script for every host.

    python -m labcore.learn.widgets.bundle     writes labcore/learn/static/labcore-widgets.js
"""

from __future__ import annotations

from pathlib import Path

from labcore.core.files import atomic_write

SOURCES = Path(__file__).resolve().parent / "js"
BUNDLE = Path(__file__).resolve().parent.parent / "static" / "labcore-widgets.js"
PARTS = (
    "core.js",
    "ui.js",
    "steps.js",
    "model.js",
    "config.js",
    "chart.js",
    "roofline_chart.js",
    "memory_chart.js",
    "curve_chart.js",
    "inputs.js",
    "calculator.js",
)
HEAD = "// Generated from labcore/learn/widgets/js by `python -m labcore.learn.widgets.bundle`: read and edit there.\n"


def _slim(source: str) -> str:
    """Without indentation and lines that only comment: every page of the book loads this. No source has a multi-line string."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def bundle() -> str:
    """The text of labcore-widgets.js. Every part is an immediately invoked function, so only their order matters."""
    parts = (f"// {name}\n{_slim((SOURCES / name).read_text(encoding='utf-8'))}\n" for name in PARTS)
    return HEAD + "".join(parts)


if __name__ == "__main__":
    atomic_write(BUNDLE, bundle())
    print(f"{BUNDLE.name}: {len(bundle().encode()) / 1000:.1f} kB")
