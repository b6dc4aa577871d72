"""Numbers as the widgets write them: the Python half of `ui.number` and `ui.format` in js/ui.js.

The fallback of a calculator (GitHub, print, no scripts) must show the same text as the calculator itself; a test runs
both halves on the same values.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Context, Decimal

_UP = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_DOWN = (*_UP, (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_BINARY = ((2.0**40, "Ti"), (2.0**30, "Gi"), (2.0**20, "Mi"), (2.0**10, "Ki"))
_PREFIXED = {"B": _UP, "FLOP": _UP, "FLOP/s": _UP, "B/s": _UP, "s": _DOWN, "J": _DOWN, "W": _UP}


def number(value: float | None, digits: int = 4) -> str:
    """`digits` significant digits below 1,000, whole numbers with thousands separators above."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size, sign = abs(value), "−" if value < 0 else ""
    # JavaScript rounds exact ties away from zero, Python's format to even: Decimal decides here.
    if size >= 1e15 or 0 < size < 1e-4:
        mantissa, _, power = f"{Decimal(size).normalize(Context(digits, ROUND_HALF_UP)):.{digits - 1}e}".partition("e")
        return f"{sign}{mantissa}e{power.replace('-', '−')}"
    if size >= 1000:
        return f"{sign}{int(Decimal(size).quantize(Decimal(1), ROUND_HALF_UP)):,}"
    text = f"{Context(digits, ROUND_HALF_UP).create_decimal(Decimal(size)):,f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def _prefixed(value: float, unit: str, table: tuple[tuple[float, str], ...]) -> str:
    scale, prefix = next((row for row in table if abs(value) >= row[0] * 0.99995), table[-1])
    return f"{number(value / scale)} {prefix}{unit}"


def text(value: float | None, unit: str = "1") -> str:
    """A value in base units as text: `text(2.684e9, "B")` is "2.684 GB = 2.5 GiB"; bytes come in both bases."""
    if value is None or not math.isfinite(value) or unit in ("", "1"):
        return number(value)
    if unit.startswith("USD"):
        return f"USD {number(value)}{unit[3:]}"
    if unit == "%":
        return f"{number(value * 100)} %"
    if unit not in _PREFIXED:
        return f"{number(value)} {unit}"
    decimal = _prefixed(value, unit, _PREFIXED[unit] if value else ((1.0, ""),))
    return f"{decimal} = {_prefixed(value, unit, _BINARY)}" if unit == "B" and abs(value) >= 1024 else decimal
