"""Reading `book/quizzes/NN.yml`, and saying in one sentence what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from labcore.core.errors import DataError, InputError
from labcore.learn.quiz import browser, checks, fallback
from labcore.learn.quiz.schema import KINDS, Item
from labcore.learn.widgets.base import Widget
from labcore.learn.yaml_file import read_yaml


@dataclass(frozen=True)
class Quiz:
    """One checkpoint: the items of `book/quizzes/<id>.yml`."""

    id: str
    title: str
    items: tuple[Item, ...]

    def as_json(self) -> dict[str, Any]:
        """What the page needs: texts, drawn values, and every expression as JavaScript. Deterministic."""
        return browser.quiz_json(self)

    def html(self) -> str:
        """The element that labcore-quiz.js mounts on, with the questions (no answers) as its fallback."""
        return Widget("quiz", {"quiz": self.id, "title": self.title}, fallback.questions(self)).html()

    def __repr__(self) -> str:
        return f"Quiz({self.id!r}, {len(self.items)} items)"


def load(path: str | Path) -> Quiz:
    """Read, validate and check one quiz file: a title and a list of items.

    Raises DataError with one sentence naming file, item and field: a missing or unknown field, an expression that is
    none, a name without a value, a distractor that equals the answer for some draw, an id used twice.
    """
    path = Path(path)
    raw = read_yaml(path)
    if not isinstance(raw, dict) or set(raw) != {"title", "items"} or not isinstance(raw["items"], list):
        raise DataError(f"{path.name} must hold `title: …` and `items:` with a list, and nothing else")
    items = tuple(_item(path.name, number, entry) for number, entry in enumerate(raw["items"], 1))
    ids = [item.id for item in items]
    for item in items:
        if ids.count(item.id) > 1:
            raise DataError(f"{path.name}, {item.id}: id: occurs twice; ids are unique")
        if item.follow_up and item.follow_up not in ids:
            raise DataError(f"{path.name}, {item.id}: follow_up: {item.follow_up!r} is no item of this file")
    if not items:
        raise DataError(f"{path.name}: items: is empty")
    return Quiz(path.stem, str(raw["title"]), items)


def _item(file: str, number: int, entry: Any) -> Item:
    name = entry.get("id", f"item {number}") if isinstance(entry, dict) else f"item {number}"
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind not in KINDS:
        raise DataError(f"{file}, {name}: kind: {kind!r} is not one of {', '.join(KINDS)}")
    try:
        item = KINDS[kind].model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the item"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}, {name}: {field}: {message[:1].lower()}{message[1:]}") from error
    except InputError as error:  # raised by a property that validation reads
        raise DataError(f"{file}, {name}: {error}") from error
    for field, problem in checks.problems(item):
        raise DataError(f"{file}, {name}: {field}: {problem}")
    return item


def find(name: str, start: Path | None = None) -> Path:
    """`book/quizzes/<name>.yml` of the checkout around `start` (default: the working directory, then this package).

    Raises DataError listing the quizzes there are.
    """
    roots = [(start or Path.cwd()).resolve(), Path(__file__).resolve()]
    folders = [p / "book" / "quizzes" for root in roots for p in (root, *root.parents)]
    known = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yml"))]
    for path in known:
        if path.stem == name:
            return path
    names = (
        ", ".join(dict.fromkeys(p.stem for p in known)) or "none here: quizzes come with a checkout of the repository"
    )
    raise DataError(f"there is no quiz {name!r}; there is {names}")
