"""The scripts of Player, Quiz and Review: the files of `js/<name>/`, minified into `static/labcore-<name>.js`.

python -m labcore.learn.scripts     writes the three files
"""

from __future__ import annotations

from pathlib import Path

from labcore.core.files import atomic_write
from labcore.learn.widgets.bundle import head, minified, read

SOURCES = Path(__file__).resolve().parent / "js"
STATIC = Path(__file__).resolve().parent / "static"
PARTS = {
    "player": ("predict.js", "views.js", "player.js"),
    "quiz": ("ladder.js", "progress.js", "text.js", "grade.js", "controls.js", "ask.js", "quiz.js"),
    "review": ("plan.js", "diagnostic.js", "transfer.js", "review.js"),
}


def target(name: str) -> Path:
    """The generated file of `name`."""
    return STATIC / f"labcore-{name}.js"


def source(name: str) -> str:
    """What the script is made of. Every part is an immediately invoked function."""
    return read(SOURCES / name / part for part in PARTS[name])


def first_line(name: str) -> str:
    """The line that the script must start with to be up to date."""
    return head(source(name), f"labcore/learn/js/{name}", "python -m labcore.learn.scripts")


if __name__ == "__main__":
    for name in PARTS:
        text = first_line(name) + minified(source(name))
        atomic_write(target(name), text)
        print(f"{target(name).name}: {len(text.encode()) / 1000:.1f} kB")
