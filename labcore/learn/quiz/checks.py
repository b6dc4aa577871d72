"""What a schema cannot see: that every draw of an item has one right answer and that no error looks like it.

`problems(item)` evaluates an item for each of its variants and yields (field, sentence).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import singledispatch
from itertools import combinations
from typing import Any

from labcore.core.errors import InputError
from labcore.learn.quiz import schema
from labcore.learn.quiz.text import fill
from labcore.learn.quiz.variants import drawn

Values = dict[str, Any]


def variants(item: schema.Item) -> list[Values]:
    """The values of every name of the item, one dict a variant, `let` included. Raises InputError."""
    found = rows(item)
    for values in found:
        for name, computed in item.let.items():
            values[name] = evaluate(computed, values)
    return found


def rows(item: schema.Item) -> list[Values]:
    """The drawn and given values for which `where` holds, one dict a variant. Raises InputError if none is left."""
    found = [row for row in drawn(item.id, item.draw, item.given) if item.where is None or _true(item.where, row)]
    if not found:
        raise InputError(f"where {item.where!r} leaves no draw")
    return found


def evaluate(computed: schema.Computed, values: Values) -> float:
    """The value of an expression of the item. Raises InputError for an unknown name or a result that is no number."""
    expression = computed.compiled
    for name in expression.names:
        if not isinstance(values.get(name), (int, float)):
            raise InputError(f"{name!r} in {_source(computed)} has no numeric value; define it in draw, given or let")
    try:
        result = expression(values)
    except (ArithmeticError, ValueError) as error:
        raise InputError(f"{_source(computed)} fails for {_brief(expression.names, values)}: {error}") from error
    if isinstance(result, bool) or not math.isfinite(result):
        raise InputError(f"{_source(computed)} is {result} for {_brief(expression.names, values)}, not a number")
    return result


def holds(option: schema.Option, values: Values) -> bool:
    """Whether the option is right for this draw."""
    return _true(option.right, values) if isinstance(option.right, str) else option.right


def _true(comparison: str, values: Values) -> bool:
    expression = schema.parse(comparison)
    if unknown := [n for n in expression.names if not isinstance(values.get(n), (int, float))]:
        raise InputError(f"{unknown[0]!r} in {comparison!r} has no numeric value")
    return bool(expression(values))


def _source(computed: schema.Computed) -> str:
    return repr(computed.expr) if computed.expr is not None else f"formula {computed.formula}"


def _brief(names: tuple[str, ...], values: Values) -> str:
    return ", ".join(f"{n}={values[n]:g}" for n in names) or "no parameters"


def differ(a: float, b: float, rel_tol: float) -> bool:
    """Whether the intervals a ± rel_tol and b ± rel_tol do not meet."""
    return abs(a - b) > rel_tol * (abs(a) + abs(b))


def texts(item: schema.Item) -> Iterator[tuple[str, str]]:
    """(field, text) of everything an item shows."""
    yield from (("stem", item.stem), ("explain", item.explain))
    yield from ((f"hints.{n}", hint) for n, hint in enumerate(item.hints))
    for field in ("options", "distractors", "order"):
        for n, entry in enumerate(getattr(item, field, [])):
            yield from ((f"{field}.{n}", t) for t in (getattr(entry, "text", ""), getattr(entry, "why", "")) if t)
    if isinstance(item, schema.Diagnose):
        yield "exhibit", item.exhibit
    if isinstance(item, schema.Spoken):
        yield from ((f"samples.{grade}", text) for grade, text in item.samples)
        yield from ((f"rubric.{grade}", point) for grade, points in item.rubric for point in points)


def problems(item: schema.Item) -> Iterator[tuple[str, str]]:
    """Everything wrong with the item, over all its draws."""
    try:
        found = variants(item)
    except InputError as error:
        yield "draw", str(error)
        return
    for values in found:
        for field, text in texts(item):
            try:
                fill(text, values)
            except InputError as error:
                yield field, str(error)
        try:
            yield from _of_kind(item, values)
        except InputError as error:
            yield "answer", str(error)


@singledispatch
def _of_kind(item: schema.Item, values: Values) -> Iterator[tuple[str, str]]:
    """Problems of one variant that only this kind can have."""
    yield from ()


@_of_kind.register(schema.Numeric)
@_of_kind.register(schema.Predict)
def _number(item: schema.Numeric | schema.Predict, values: Values) -> Iterator[tuple[str, str]]:
    tolerance = item.answer.rel_tol
    truth = evaluate(item.answer, values)
    if truth == 0:
        yield "answer", "is 0 for some draw, so that a relative tolerance means nothing"
    wrong = [evaluate(d, values) for d in item.distractors]
    for n, value in enumerate(wrong):
        if not differ(value, truth, tolerance):
            yield (
                f"distractors.{n}",
                f"{value:g} cannot be told from the answer {truth:g} for {_brief_draw(item, values)}",
            )
    for (n, a), (m, b) in combinations(enumerate(wrong), 2):
        if not differ(a, b, tolerance):
            yield f"distractors.{m}", f"{b:g} cannot be told from distractors.{n} for {_brief_draw(item, values)}"


def _brief_draw(item: schema.Item, values: Values) -> str:
    return ", ".join(f"{n}={values[n]}" for n in item.draw) or "its only draw"


@_of_kind.register(schema.Single)
@_of_kind.register(schema.Diagnose)
@_of_kind.register(schema.Multi)
def _options(item: schema.Single | schema.Diagnose | schema.Multi, values: Values) -> Iterator[tuple[str, str]]:
    right = [holds(o, values) for o in item.options]
    if isinstance(item, schema.Multi):
        if all(right) or not any(right):
            yield (
                "options",
                f"{sum(right)} of {len(right)} are right for {_brief_draw(item, values)}; mix right and wrong ones",
            )
    elif sum(right) != 1:
        yield "options", f"{sum(right)} are right for {_brief_draw(item, values)}; exactly one must be"
    for n, (option, is_right) in enumerate(zip(item.options, right, strict=True)):
        if not is_right and not option.why:
            yield f"options.{n}", "is wrong, so it needs a why: the error it stands for"


@_of_kind.register(schema.Order)
def _sorted(item: schema.Order, values: Values) -> Iterator[tuple[str, str]]:
    if any(e.value is None for e in item.order):
        if any(e.value is not None for e in item.order):
            yield "order", "gives a value to some entries only; give one to each or to none"
        return
    found = [evaluate(e.value, values) for e in item.order]
    if len(set(found)) < len(found):
        yield "order", f"has two equal entries for {_brief_draw(item, values)}"
    if not item.draw and found != sorted(found):
        yield "order", f"is not ascending: the values are {', '.join(f'{v:g}' for v in found)}"


@_of_kind.register(schema.Cloze)
def _blanks(item: schema.Cloze, values: Values) -> Iterator[tuple[str, str]]:
    for name, blank in item.blanks.items():
        if not blank.accept and evaluate(blank, values) == 0:
            yield f"blanks.{name}", "is 0 for some draw, so that a relative tolerance means nothing"
