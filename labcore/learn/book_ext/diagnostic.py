"""The diagnostic of `book/diagnostic.yml` and the paths of `book/paths.yml`, cut down to the pages that exist.

A path says what a topic gets (`parts`) when one of its questions was missed and when none was; the page spreads that
over the days of the path. Parts: `sections` behind the missed questions, the `chapter`, its `tool` (a calculator), its
`lab`, the `checkpoint` quiz, the `practice` problems, and `aloud`, its sixty-second answer.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labcore.core.errors import DataError
from labcore.learn import quiz
from labcore.learn.book_ext import practice
from labcore.learn.export_anki import answer_html
from labcore.learn.quiz import browser, fallback
from labcore.learn.quiz.checks import variants
from labcore.learn.quiz.text import fill, to_html
from labcore.learn.widgets.base import Widget
from labcore.learn.yaml_file import read_yaml

if TYPE_CHECKING:
    from labcore.learn.quiz.schema import Item

SCORED = ("numeric", "predict", "single", "multi", "diagnose", "order")  # kinds that need no judgement and no blanks
REVIEW = "book/review"
WORDS = {
    "sections": "the sections behind it",
    "chapter": "the chapter",
    "tool": "its calculator",
    "lab": "the lab",
    "checkpoint": "the checkpoint",
    "practice": "the practice problems",
    "aloud": "its sixty-second answer spoken aloud",
}
Part = Literal["sections", "chapter", "tool", "lab", "checkpoint", "practice", "aloud"]
Page = Annotated[str, Field(pattern=r"^(book|labs)/\w+$")]
Minutes = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PathSpec(Strict):
    """One path. enough: the least share of right answers, 0 to 1, for which it is enough."""

    id: str = Field(pattern=r"^\d+-(day|week)$")
    days: Minutes
    enough: float = Field(ge=0, le=1)
    missed: list[Part] = Field(min_length=1)
    known: list[Part] = Field(min_length=1)


class Topic(Strict):
    """One subject: its chapter, its lab, or both, with minutes of reading and doing; practice names a problem file."""

    title: str
    chapter: Page | None = None
    read: Minutes | None = None
    lab: Page | None = None
    do: Minutes | None = None
    practice: str | None = None
    tool: str | None = Field(default=None, pattern=r"^book/\w+#[\w-]+$")

    @model_validator(mode="after")
    def _timed(self):
        if not (self.chapter or self.lab):
            raise ValueError("needs a chapter or a lab")
        for page, minutes in (("chapter", "read"), ("lab", "do")):
            if (getattr(self, page) is None) != (getattr(self, minutes) is None):
                raise ValueError(f"{page} and {minutes} (its minutes) come together")
        if (self.practice or self.tool) and not self.chapter:
            raise ValueError("practice and tool belong to a chapter")
        return self


class Fixed(Strict):
    """Minutes of what takes the same time in every topic."""

    section: Minutes
    checkpoint: Minutes
    aloud: Minutes
    tool: Minutes


class Paths(Strict):
    """The whole of book/paths.yml."""

    paths: list[PathSpec] = Field(min_length=1)
    minutes: Fixed
    topics: list[Topic] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self):
        days, enough = [p.days for p in self.paths], [p.enough for p in self.paths]
        if days != sorted(set(days)):
            raise ValueError(f"paths must get longer from first to last; their days are {days}")
        if enough != sorted(set(enough), reverse=True) or enough[-1] != 0:
            raise ValueError(f"enough must fall to 0 from the first path to the last; it is {enough}")
        return self


def load_paths(file: Path) -> Paths:
    """Read `book/paths.yml`. Raises DataError with one sentence naming the file and the field."""
    try:
        return Paths.model_validate(read_yaml(file))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{file.name}: {field}: {first['msg'].removeprefix('Value error, ')}") from error


def diagnostic(book: Path, pages: Collection[str], address: Callable[[str], str]) -> Widget:
    """The widget, with the questions and topics whose pages are among `pages` ("book/01_…", "labs/lab00_units").

    `address(page)` is a page's relative URL, for the fallback. Raises DataError for a file that is wrong, a question
    that cannot be scored in the page, a question that no topic covers, or when no question is left.
    """
    asked, paths = quiz.load(book / "diagnostic.yml"), load_paths(book / "paths.yml")
    for item in asked.items:
        if item.kind not in SCORED:
            raise DataError(f"diagnostic.yml, {item.id}: kind: {item.kind!r} is not one of {', '.join(SCORED)}")
        if not any(item.page in (topic.chapter, topic.lab) for topic in paths.topics):
            raise DataError(f"diagnostic.yml, {item.id}: chapter: no topic of paths.yml has the page {item.page}")
    topics = [topic for topic in (listed(one, pages) for one in paths.topics) if topic is not None]
    items = tuple(item for item in asked.items if item.page in pages)
    if not items:
        raise DataError("diagnostic.yml asks about no page of _toc.yml; list a chapter, or leave {diagnostic} out")
    kept = quiz.Quiz(asked.id, asked.title, items)
    plain = [plain_topic(topic, paths.minutes, book, pages) for topic in topics]
    spec = {
        "title": asked.title,
        "quiz": browser.quiz_json(kept),
        "paths": [path.model_dump() for path in paths.paths],
        "topics": plain,
        "section_minutes": paths.minutes.section,
        "review": REVIEW,
    }
    return Widget("diagnostic", spec, without_scripts(kept, paths, plain, address))


def listed(topic: Topic, pages: Collection[str]) -> Topic | None:
    """The topic without the pages that are not among `pages`; None when nothing is left."""
    gone: dict[str, None] = {}
    if topic.chapter not in pages:
        gone |= dict.fromkeys(("chapter", "read", "practice", "tool"))
    if topic.lab not in pages:
        gone |= dict.fromkeys(("lab", "do"))
    kept = topic.model_copy(update=gone)
    return kept if kept.chapter or kept.lab else None


def plain_topic(topic: Topic, minutes: Fixed, book: Path, pages: Collection[str]) -> dict[str, Any]:
    """A topic as the page uses it: title, pages, and every part it has as {label, page, section, minutes}."""
    title, home = topic.title, topic.chapter or topic.lab
    parts = {}
    if topic.chapter:
        parts["chapter"] = _part(f"Read “{title}”", topic.chapter, "", topic.read)
    if topic.tool and topic.tool.split("#")[0] in pages:
        parts["tool"] = _part(f"Use its calculator: {title}", *topic.tool.split("#"), minutes.tool)
    if topic.lab:
        parts["lab"] = _part(f"Do the lab: {title}", topic.lab, "", topic.do)
    parts["checkpoint"] = _part(f"Answer the checkpoint: {title}", home, "checkpoint", minutes.checkpoint)
    if topic.practice:
        problems = practice.load(book / "practice" / f"{topic.practice}.yml")
        total = sum(problem.minutes for problem in problems)
        parts["practice"] = _part(f"Work the practice problems: {title}", home, "practice-problems", total)
    if topic.chapter:
        parts["aloud"] = _part(f"Say the sixty-second answer aloud: {title}", home, "takeaways", minutes.aloud)
    return {"title": title, "pages": [page for page in (topic.chapter, topic.lab) if page], "parts": parts}


def _part(label: str, page: str, section: str, minutes: int) -> dict[str, Any]:
    return {"label": label, "page": page, "section": section, "minutes": minutes}


def without_scripts(
    asked: quiz.Quiz, paths: Paths, topics: list[Mapping[str, Any]], address: Callable[[str], str]
) -> str:
    """What stands in the page where no script runs: questions, folded answers, and the three paths with their links."""
    questions = "".join(f"<li>{_question(item)}</li>" for item in asked.items)
    rules = "".join(map(_rule, paths.paths))
    return (
        f"<p><strong>{html.escape(asked.title)}</strong>. This page scores it where scripts run; without them, answer "
        f"on paper and unfold the answers.</p><ol>{questions}</ol><p>The paths:</p><ul>{rules}</ul>"
        f"<p>The topics:</p><ul>{''.join(_links(topic, address) for topic in topics)}</ul>"
    )


def _rule(path: PathSpec) -> str:
    when = f"if {100 * path.enough:.0f} % or more are right" if path.enough else "otherwise"
    missed, known = (", ".join(WORDS[part] for part in parts) for parts in (path.missed, path.known))
    return f"<li>The <strong>{path.id} path</strong>, {when}. A topic with a miss: {missed}. Any other: {known}.</li>"


def _question(item: Item) -> str:
    values = variants(item)[0]
    answer = answer_html(item, values) + to_html(fill(item.explain, values))
    return f"{fallback.question(item, values)}<details><summary>Answer</summary>{answer}</details>"


def _links(topic: Mapping[str, Any], address: Callable[[str], str]) -> str:
    parts = topic["parts"].items()
    where = {name: address(part["page"]) + ("#" + part["section"] if part["section"] else "") for name, part in parts}
    links = (f'<a href="{html.escape(where[name])}">{WORDS[name]}</a> ({part["minutes"]} min)' for name, part in parts)
    return f"<li>{html.escape(topic['title'])}: {', '.join(links)}</li>"
