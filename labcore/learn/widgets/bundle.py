"""`labcore-widgets.js` is the files of `js/`, one after the other and minified: small sources, one classic script.

    python -m labcore.learn.widgets.bundle     writes labcore/learn/static/labcore-widgets.js

Only this command needs the minifier (in the `test` extra); what it wrote is committed. The head of the file holds a
digest of the sources, so that a stale bundle shows without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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


def read(parts: Iterable[Path]) -> str:
    """The sources, joined. Every part is an immediately invoked function, so only their order matters."""
    return "\n".join(path.read_text(encoding="utf-8") for path in parts)


def head(source: str, folder: str, command: str) -> str:
    """The first line of a generated script: where it comes from, and a digest of it."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    return f"// From {folder} ({digest}…) by {command}\n"


def minified(source: str) -> str:
    """JavaScript with short local names and no comments: half the bytes for every page of the book."""
    import minify

    return minify.string("application/javascript", source) + "\n"


def widgets_source() -> str:
    """What labcore-widgets.js is made of."""
    return read(SOURCES / name for name in PARTS)


def widgets_head() -> str:
    """The line that labcore-widgets.js must start with to be up to date."""
    return head(widgets_source(), "labcore/learn/widgets/js", "python -m labcore.learn.widgets.bundle")


if __name__ == "__main__":
    text = widgets_head() + minified(widgets_source())
    atomic_write(BUNDLE, text)
    print(f"{BUNDLE.name}: {len(text.encode()) / 1000:.1f} kB")
