"""What stays in the page where no script runs: the questions of a quiz, readable, without their answers."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from labcore.learn.quiz import schema
from labcore.learn.quiz.checks import variants
from labcore.learn.quiz.text import fill, inline, to_html
from labcore.learn.quiz.variants import seed_of, shuffled

if TYPE_CHECKING:
    from labcore.learn.quiz.load import Quiz


def question(item: schema.Item, values: dict[str, Any]) -> str:
    """Stem, exhibit and choices of one item as HTML, filled with one draw."""
    stem = fill(item.stem, values)
    if isinstance(item, schema.Cloze):
        stem = schema.BLANK.sub("______", stem)
    parts = [to_html(stem)]
    if isinstance(item, schema.Diagnose):
        parts.append(f"<pre>{html.escape(fill(item.exhibit, values), quote=False)}</pre>")
    entries = getattr(item, "options", None) or getattr(item, "order", [])
    if entries:
        lines = shuffled([inline(fill(e.text, values)) for e in entries], seed_of(item.id))
        parts.append('<ul style="list-style: none">' + "".join(f"<li>☐ {line}</li>" for line in lines) + "</ul>")
    return "".join(parts)


REVIEW = "<p>The review keeps its schedule in your browser, so it needs the built book or a running notebook.</p>"


def questions(quiz: Quiz) -> str:
    """Title and every question with its first draw."""
    asked = "".join(f"<li>{question(item, variants(item)[0])}</li>" for item in quiz.items)
    return (
        f"<p><strong>Checkpoint: {html.escape(quiz.title)}</strong> ({len(quiz.items)} questions; answering them "
        f"needs the built book or a running notebook)</p><ol>{asked}</ol>"
    )
