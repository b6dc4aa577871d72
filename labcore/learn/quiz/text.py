"""Text of quiz items: `{name}` becomes a value, `code`, *emphasis* and $math$ become markup. Twin of js/quiz/text.js.

`{n}` writes the number, `{beta:TB/s}` converts from base units and adds the unit, `{u:.1%}` and `{x:.2f}` fix the
decimals. Braces inside `$…$` belong to TeX.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from labcore.core.errors import InputError
from labcore.core.units import unit
from labcore.learn.widgets.numbers import number

FIELD = re.compile(r"\{(\w+)(?::([^{}]+))?\}")
FIXED = re.compile(r",?\.(\d)(f|%)")
_MATH = re.compile(r"(\$[^$]+\$)")
_SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\$([^$]+)\$")


def fixed(value: float, decimals: int) -> str:
    """`value` with that many decimals and thousands separators; ties away from zero, as JavaScript's toFixed."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded:,}".replace("-", "−")


def shown(value: Any, spec: str | None) -> str:
    """One value as `{name:spec}` writes it. Raises UnitError for a spec that is neither a format nor a unit."""
    if isinstance(value, str):
        return value
    if not spec:
        return number(value)
    if match := FIXED.fullmatch(spec):
        percent = match[2] == "%"
        return fixed(value * 100 if percent else value, int(match[1])) + (" %" if percent else "")
    return f"{number(value / unit(spec).scale)} {spec}"


def fields(text: str) -> list[tuple[str, str | None]]:
    """(name, spec) of every `{…}` outside math."""
    return [m for part in _MATH.split(text)[::2] for m in FIELD.findall(part)]


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Write the values into the text. Raises InputError for a name that has no value."""

    def one(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InputError(f"{{{match[1]}}} has no value; the names are {', '.join(sorted(values)) or 'none'}")
        return shown(values[match[1]], match[2])

    return "".join(p if p.startswith("$") else FIELD.sub(one, p) for p in _MATH.split(text))


def inline(text: str) -> str:
    r"""Escaped HTML of one paragraph; math as \(…\), which Anki and MathJax read."""

    def span(match: re.Match[str]) -> str:
        code, strong, emphasis, math = match.groups()
        if code:
            return f"<code>{code}</code>"
        if math:
            return f'<span class="math">\\({math}\\)</span>'
        return f"<strong>{strong}</strong>" if strong else f"<em>{emphasis}</em>"

    return _SPAN.sub(span, html.escape(" ".join(text.split()), quote=False))


def to_html(text: str) -> str:
    """Paragraphs of `inline` HTML; a blank line separates two."""
    return "".join(f"<p>{inline(part)}</p>" for part in re.split(r"\n\s*\n", text.strip()))
