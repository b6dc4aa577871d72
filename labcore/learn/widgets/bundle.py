"""`labcore-widgets.js` is the files of `js/`, one after the other: small sources, one classic script for every host.

    python -m labcore.learn.widgets.bundle     writes labcore/learn/static/labcore-widgets.js
"""

from __future__ import annotations

from pathlib import Path

from labcore.core.files import atomic_write

SOURCES = Path(__file__).resolve().parent / "js"
STATIC = Path(__file__).resolve().parent.parent / "static"
BUNDLE = STATIC / "labcore-widgets.js"
PARTS = ("core.js", "ui.js")


def bundle() -> str:
    """The text of labcore-widgets.js. Every part is an immediately invoked function, so order is all that matters."""
    head = "// Generated from labcore/learn/widgets/js by `python -m labcore.learn.widgets.bundle`: edit there.\n"
    return head + "".join(f"\n// {name}\n{(SOURCES / name).read_text(encoding='utf-8')}" for name in PARTS)


if __name__ == "__main__":
    atomic_write(BUNDLE, bundle())
    print(f"{BUNDLE.name}: {len(bundle().encode()) / 1000:.1f} kB")
