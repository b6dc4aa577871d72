"""Quizzes as an Anki package: one note a question and draw, the same ids every time, so that a later export updates.

Numeric items come with several draws. Math is written for Anki's own MathJax, `\\(…\\)`. The error behind each wrong
number stands on the back of the card.
"""

from __future__ import annotations

import html
import io
import time
from collections.abc import Iterable
from functools import singledispatch
from pathlib import Path
from typing import Any

from labcore.core.errors import InputError
from labcore.core.files import atomic_write
from labcore.core.units import unit
from labcore.learn.quiz import Quiz, schema
from labcore.learn.quiz.checks import evaluate, holds, variants
from labcore.learn.quiz.fallback import question
from labcore.learn.quiz.text import fill, fixed, inline, to_html
from labcore.learn.quiz.variants import seed_of
from labcore.learn.widgets.numbers import number

DECK = "LLM inference"
CSS = (
    ".card { font-family: system-ui, sans-serif; font-size: 18px; line-height: 1.4; text-align: left }"
    " pre { overflow-x: auto } .nightMode .card { color: #eee } .errors { font-size: 0.9em }"
)
FRONT = "{{Question}}<p><small>{{Asked}}</small></p>"
BACK = (
    '{{FrontSide}}<hr id="answer">{{Answer}}{{Explanation}}'
    '<div class="errors">{{Errors}}</div><p><small>{{Section}}</small></p>'
)
KINDS = {
    "multi": "several are right",
    "order": "sort",
    "predict": "estimate",
    "spoken": "answer aloud",
    "cloze": "fill in",
}


def stable_id(text: str) -> int:
    """A positive 31-bit number that stands for `text`: decks and note types must keep theirs for ever."""
    return seed_of(text) & 0x7FFFFFFF or 1


def written(value: float, answer: schema.Answer) -> str:
    """A value in base units as the item asks for it: "99.5 %", "2.68 GB"."""
    scaled = value / unit(answer.asked_in).scale
    text = number(scaled) if answer.decimals is None else fixed(scaled, answer.decimals)
    return text if answer.asked_in == "1" else f"{text} {answer.asked_in}"


@singledispatch
def answer_html(item: schema.Item, values: dict[str, Any]) -> str:
    """The right answer of one draw."""
    right = [inline(fill(o.text, values)) for o in item.options if holds(o, values)]
    return "<ul>" + "".join(f"<li>{text}</li>" for text in right) + "</ul>"


@answer_html.register(schema.Numeric)
@answer_html.register(schema.Predict)
def _number(item: schema.Numeric | schema.Predict, values: dict[str, Any]) -> str:
    within = f" (your estimate counts within a factor of {item.within:g})" if isinstance(item, schema.Predict) else ""
    return f"<p><strong>{html.escape(written(evaluate(item.answer, values), item.answer))}</strong>{within}</p>"


@answer_html.register
def _order(item: schema.Order, values: dict[str, Any]) -> str:
    entries = list(item.order)
    if entries[0].value is not None:
        entries.sort(key=lambda entry: evaluate(entry.value, values))
    return "<ol>" + "".join(f"<li>{inline(fill(e.text, values))}</li>" for e in entries) + "</ol>"


@answer_html.register
def _cloze(item: schema.Cloze, values: dict[str, Any]) -> str:
    words = {name: b.accept[0] if b.accept else number(evaluate(b, values)) for name, b in item.blanks.items()}
    return to_html(schema.BLANK.sub(lambda m: f"**{words[m[1]]}**", fill(item.stem, values)))


@answer_html.register
def _spoken(item: schema.Spoken, values: dict[str, Any]) -> str:
    parts = []
    for grade, label in (("strong", "Strong"), ("lean", "Lean"), ("no", "No")):
        signs = "".join(f"<li>{inline(fill(point, values))}</li>" for point in getattr(item.rubric, grade))
        sample = to_html(fill(getattr(item.samples, grade), values))
        parts.append(f"<p><strong>{label}</strong></p><ul>{signs}</ul><blockquote>{sample}</blockquote>")
    return "".join(parts)


def errors_html(item: schema.Item, values: dict[str, Any]) -> str:
    """Each wrong answer and the error it stands for."""
    rows = [(written(evaluate(d, values), item.answer), d.why) for d in getattr(item, "distractors", [])]
    options = getattr(item, "options", [])
    rows += [(fill(o.text, values), o.why) for o in options if not holds(o, values) and o.why]
    return "".join(f"<p>✗ {inline(wrong)}: {inline(fill(why, values))}</p>" for wrong, why in rows)


def fields(item: schema.Item, values: dict[str, Any]) -> list[str]:
    """Question, Asked, Answer, Explanation, Errors, Section of one draw."""
    asked = KINDS.get(item.kind, "")
    if hasattr(item, "answer") and item.answer.asked_in != "1":
        asked = f"{asked} in {item.answer.asked_in}".strip()
    explain, section = to_html(fill(item.explain, values)), f"{html.escape(item.heading)} ({item.page})"
    return [
        question(item, values),
        html.escape(asked),
        answer_html(item, values),
        explain,
        errors_html(item, values),
        section,
    ]


def export(quizzes: Iterable[Quiz], path: str | Path, draws: int = 3, timestamp: float | None = None) -> int:
    """Write the package and return how many notes it holds; numeric and estimate items give up to `draws` notes each.

    timestamp: what Anki compares to decide which of two exports is newer (default: now). Raises InputError when
    `draws` is below 1. The file appears whole or not at all.
    """
    import genanki

    if draws < 1:
        raise InputError(f"draws={draws}: at least one note a question is needed")
    names = ("Question", "Asked", "Answer", "Explanation", "Errors", "Section")
    model = genanki.Model(
        stable_id(f"{DECK}/question"),
        f"{DECK}: question",
        fields=[{"name": name} for name in names],
        templates=[{"name": "Card", "qfmt": FRONT, "afmt": BACK}],
        css=CSS,
    )
    decks, notes = [], 0
    for quiz in quizzes:
        deck = genanki.Deck(stable_id(f"{DECK}/{quiz.id}"), f"{DECK}::{quiz.id} {quiz.title}")
        for item in quiz.items:
            found = variants(item)[: draws if hasattr(item, "answer") else 1]
            tags = [
                quiz.id,
                item.kind,
                f"level-{item.level}",
                f"day-{item.rung}",
                *([item.ability] if item.ability else []),
            ]
            for number_of, values in enumerate(found):
                guid = genanki.guid_for(item.id, number_of)
                deck.add_note(genanki.Note(model, fields(item, values), tags=tags, guid=guid))
                notes += 1
        decks.append(deck)
    buffer = io.BytesIO()
    genanki.Package(decks).write_to_file(buffer, timestamp=time.time() if timestamp is None else timestamp)
    atomic_write(Path(path), buffer.getvalue())
    return notes
