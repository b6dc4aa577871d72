"""A quiz as plain JSON for labcore-quiz.js.

Values travel as rows (one a variant), expressions as JavaScript over the names of those rows, units as their size in
base units. The page shows row `n mod len(rows)` when it asks an item for the n-th time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labcore.core.units import unit
from labcore.learn.quiz import checks, schema
from labcore.learn.quiz.text import FIXED, fields
from labcore.learn.quiz.variants import KEPT

if TYPE_CHECKING:
    from labcore.learn.quiz.load import Quiz


def quiz_json(quiz: Quiz) -> dict[str, Any]:
    """The whole quiz: id, title, items, and the size of every unit that its texts write."""
    items = [item_json(item) for item in quiz.items]
    specs = {spec for item in quiz.items for _, text in checks.texts(item) for _, spec in fields(text) if spec}
    units = {spec: unit(spec).scale for spec in sorted(specs) if not FIXED.fullmatch(spec)}
    return {"id": quiz.id, "title": quiz.title, "units": units, "items": items}


def item_json(item: schema.Item) -> dict[str, Any]:
    """One item; fields that are empty are left out."""
    out: dict[str, Any] = {
        "id": item.id,
        "kind": item.kind,
        "level": item.level,
        "rung": item.rung,
        "ability": item.ability,
        "page": item.page,
        "section": item.anchor,
        "heading": item.heading,
        "stem": item.stem.strip(),
        "hints": item.hints,
        "explain": item.explain.strip(),
        "follow_up": item.follow_up,
        "let": [[name, computed.compiled.javascript] for name, computed in item.let.items()],
    }
    out |= _values(item)
    for field in ("answer", "distractors", "options", "order", "blanks", "rubric", "samples"):
        if hasattr(item, field):
            out[field] = _plain(getattr(item, field))
    for field in ("exhibit", "within", "seconds"):
        if hasattr(item, field):
            out[field] = getattr(item, field)
    return {key: value for key, value in out.items() if value not in (None, [], {}, "")}


def _values(item: schema.Item) -> dict[str, Any]:
    """The names that the item's texts and expressions read, and their values, one row a variant."""
    found = checks.rows(item)
    used = {name for _, text in checks.texts(item) for name, _ in fields(text)}
    used |= {name for computed in _computed(item) for name in computed.compiled.names}
    used |= {n for o in getattr(item, "options", []) if isinstance(o.right, str) for n in schema.parse(o.right).names}
    names = sorted(used & set(found[0]))
    return {"names": names, "rows": [[row[n] for n in names] for row in found[:KEPT]] if names else []}


def _computed(item: schema.Item) -> list[schema.Computed]:
    every = [*item.let.values(), *getattr(item, "distractors", [])]
    every += [e.value for e in getattr(item, "order", []) if e.value is not None]
    every += [b for b in getattr(item, "blanks", {}).values() if not b.accept]
    return [*every, item.answer] if hasattr(item, "answer") else every


def _plain(value: Any) -> Any:
    """Models as dicts, with `js` in place of what is computed."""
    match value:
        case list():
            return [_plain(v) for v in value]
        case dict():
            return {k: _plain(v) for k, v in value.items()}
        case schema.Answer():
            asked = {"unit": value.asked_in, "scale": unit(value.asked_in).scale, "rel_tol": value.rel_tol}
            return {"js": value.compiled.javascript, "decimals": value.decimals, **asked}
        case schema.Distractor():
            return {"js": value.compiled.javascript, "why": value.why}
        case schema.Blank():
            return (
                {"accept": value.accept}
                if value.accept
                else {"js": value.compiled.javascript, "rel_tol": value.rel_tol}
            )
        case schema.Entry():
            return {"text": value.text} | ({"js": value.value.compiled.javascript} if value.value else {})
        case schema.Option():
            right = schema.parse(value.right).javascript if isinstance(value.right, str) else value.right
            return {"text": value.text, "right": right, "why": value.why}
        case schema.Strict():
            return value.model_dump()
    return value
