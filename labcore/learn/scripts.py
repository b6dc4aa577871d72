"""The scripts of Player, Quiz and Review: the files of `js/<name>/`, joined into `static/labcore-<name>.js`.

python -m labcore.learn.scripts     writes the three files
"""

from __future__ import annotations

from pathlib import Path

from labcore.core.files import atomic_write

SOURCES = Path(__file__).resolve().parent / "js"
STATIC = Path(__file__).resolve().parent / "static"
PARTS = {
    "player": ("predict.js", "views.js", "player.js"),
    "quiz": ("ladder.js", "progress.js", "text.js", "grade.js", "controls.js", "ask.js", "quiz.js"),
    "review": ("transfer.js", "review.js"),
}


def target(name: str) -> Path:
    """The generated file of `name`."""
    return STATIC / f"labcore-{name}.js"


def joined(name: str) -> str:
    """The text of one script, without indentation and comment lines: every page loads it."""
    head = f"// Generated from labcore/learn/js/{name} by `python -m labcore.learn.scripts`: read and edit there.\n"
    parts = ((SOURCES / name / part).read_text(encoding="utf-8").splitlines() for part in PARTS[name])
    lines = (line.strip() for part in parts for line in part)
    return head + "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


if __name__ == "__main__":
    for name in PARTS:
        atomic_write(target(name), joined(name))
        print(f"{target(name).name}: {len(joined(name).encode()) / 1000:.1f} kB")
