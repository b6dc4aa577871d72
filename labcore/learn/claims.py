"""Numbers in prose that cannot rot: `claim` for what we compute, `quoted` for what others published, `given` for data.

They stand in a folded cell beside the sentence. A claim fails the notebook when the shown figure is not the computed
one at the shown precision; a test compares every figure with a unit in the prose with the three (claims_check).
"""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from labcore.core.errors import InputError, UnitError
from labcore.core.units import Quantity, unit

VERDICTS = ("right", "wrong", "imprecise", "outdated", "unsupported")
SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
NUMBER = r"[-+−]?\d[\d,_]*(?:\.\d+)?(?:[eE][-+]?\d+|\s?[×·]\s?10(?:\^[-−]?\d+|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?"
SHOWN = re.compile(
    rf"(?P<about>about|roughly|some|~|≈)?\s*(?P<usd>USD)?\s*(?P<low>{NUMBER})(?:\s?(?:–|to)\s?(?P<high>{NUMBER}))?"
    r"\s*(?P<unit>.*?)\s*"
)
NOISE = Fraction(1, 10**12)  # relative: what double precision can have added to a computed value
LOOSEST = Fraction(5, 100)  # how far off an "about" may be, whatever its zeros


class ClaimError(InputError):
    """A figure in prose is not what was computed."""


@dataclass(frozen=True)
class Entry:
    """One line of the claims ledger. `kind` is "claim", "quoted" or "given"; `ordinal` counts equal ids from 1."""

    notebook: str
    kind: str
    text: str
    id: str = ""
    ordinal: int = 1
    source: str = ""
    verdict: str = ""

    def __repr__(self) -> str:
        mark = {"claim": "✓", "quoted": "❝", "given": "·"}[self.kind]
        return f"{mark} {self.text}" + (f" [{self.source}]" if self.source else "")


_notebook = ""
_entries: list[Entry] = []
_ordinals: Counter[tuple[str, str]] = Counter()


def start_notebook(name: str) -> None:
    """Begin the registry of one notebook afresh."""
    global _notebook
    _notebook = name
    _entries.clear()
    _ordinals.clear()


def registry() -> list[Entry]:
    """What this notebook has claimed, quoted and been given so far, in order."""
    return list(_entries)


def _record(**fields: str) -> Entry:
    key = fields["kind"], fields.get("id", "")
    _ordinals[key] += 1
    entry = Entry(_notebook, ordinal=_ordinals[key], **fields)
    _entries.append(entry)
    return entry


def claim(text: str, value: object, *, id: str) -> Entry:
    """State that `value` is `text`, for instance `claim("2.684 GB", kv_bytes, id="P1.2")`.

    `value` is a number in base units (B, s, FLOP, USD, 1) or a Quantity; a pair of them for a range ("7.2–8.1 GB").
    It passes when the shown figure is the value rounded to the shown digits; a value halfway between two figures
    may be shown as either. A leading "about" makes trailing zeros of a whole number insignificant, up to 5 %.
    Raises ClaimError naming the shown and the computed figure.
    """
    shown = Figure.read(text)
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(values) != len(shown.numbers):
        raise ClaimError(f"claim {text!r} [{id}] shows {len(shown.numbers)} numbers and was given {len(values)}")
    for number, one in zip(shown.numbers, values, strict=True):
        exact = shown.in_unit(one, f"claim {text!r} [{id}]")
        if not shown.matches(number, exact):
            wrong = shown.round_like(number, exact)
            raise ClaimError(f"claim {text!r} [{id}] is wrong: computed {wrong} {shown.unit} ({_plain(one)})")
    return _record(kind="claim", text=text, id=id)


def quoted(text: str, *, source: str, verdict: str = "", id: str = "") -> Entry:
    """Record a figure somebody else published; `source` is a key of references.bib.

    `verdict`, for the ones the book checks: right, wrong, imprecise, outdated or unsupported.
    """
    if verdict and verdict not in VERDICTS:
        raise ClaimError(f"verdict {verdict!r} of the quotation {text!r} is unknown; use one of {', '.join(VERDICTS)}")
    if not source:
        raise ClaimError(f"the quotation {text!r} has no source; give its key in references.bib")
    return _record(kind="quoted", text=text, source=source, verdict=verdict, id=id)


def given(*texts: str) -> None:
    """Record problem data: figures the reader is told, not ones that were computed."""
    for text in texts:
        _record(kind="given", text=text)


@dataclass(frozen=True)
class Figure:
    """A figure as shown: one number, or two for a range, each with its last significant digit, and one unit."""

    numbers: tuple[Decimal, ...]
    unit: str
    about: bool

    @classmethod
    def read(cls, text: str) -> Figure:
        """Parse "2.684 GB", "−0.23 GB", "USD 5.00", "USD 0.14/Mtok", "60–80 %", "1.2 × 10⁹ FLOP", "about 300 FLOP/B".

        Raises ClaimError if there is no number, or the unit is unknown to `labcore.core.units`.
        """
        match = SHOWN.fullmatch(text.strip().replace("\u202f", " ").replace("\u00a0", " "))
        if not match:
            raise ClaimError(f"{text!r} is not a figure with a unit; write it like '2.684 GB' or 'USD 5.00'")
        name = (match["unit"] or "1") if not match["usd"] else f"USD{match['unit'].replace('per ', '/')}"
        try:
            unit(name)
        except UnitError as error:
            raise ClaimError(f"the figure {text!r} cannot be read: {error}") from None
        numbers = tuple(_decimal(match[end]) for end in ("low", "high") if match[end])
        return cls(numbers, name, match["about"] is not None)

    def in_unit(self, value: object, what: str) -> Fraction:
        """`value` (base units, or a Quantity) in this figure's unit, exactly."""
        here = unit(self.unit)
        if isinstance(value, Quantity):
            there = unit(value.unit)
            if there.dimension != here.dimension:
                raise ClaimError(f"{what} was given {value}, which does not measure {self.unit}")
            return _exact(value.value, what) * _scale(value.unit) / _scale(self.unit)
        return _exact(value, what) / _scale(self.unit)

    def step(self, number: Decimal) -> Fraction:
        """The value of the last significant digit: 0.001 for 2.684, 1 for 20,000, 10,000 for about 20,000."""
        exponent = number.as_tuple().exponent
        if self.about and exponent >= 0 and number:
            exponent = number.normalize().as_tuple().exponent
        return Fraction(10) ** exponent

    def matches(self, number: Decimal, exact: Fraction) -> bool:
        """Whether `exact` rounds to `number`; both neighbours of a halfway value are right."""
        shown, off = Fraction(number), abs(exact - Fraction(number))
        if self.about and off > LOOSEST * abs(shown):
            return False
        return off <= self.step(number) / 2 + NOISE * abs(exact)

    def round_like(self, number: Decimal, exact: Fraction) -> str:
        """`exact` with as many digits as `number` shows."""
        decimals = max(0, -number.as_tuple().exponent)
        return f"{Decimal(exact.numerator) / Decimal(exact.denominator):,.{decimals}f}"


def _decimal(text: str) -> Decimal:
    text = text.replace(",", "").replace("_", "").replace("−", "-").replace(" ", "")
    if power := re.search(r"[×·]10\^?([-⁻⁰¹²³⁴⁵⁶⁷⁸⁹\d]+)$", text):
        text = f"{text[: power.start()]}e{power[1].translate(SUPERSCRIPT)}"
    return Decimal(text)


def _scale(name: str) -> Fraction:
    """Base units in one `name`, exactly: a hundredth is 1/100, not the double nearest to it."""
    return Fraction(repr(unit(name).scale))


def _exact(value: object, what: str) -> Fraction:
    """A number of any kind (Python, numpy, sympy, one-element tensor) as a fraction. Raises ClaimError for others."""
    if isinstance(value, numbers.Rational | Decimal):
        return Fraction(value)
    if getattr(value, "is_Rational", False):
        return Fraction(int(value.p), int(value.q))
    try:
        number = None if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ClaimError(f"{what} was given {value!r}, which is not a number")
    if not math.isfinite(number):
        raise ClaimError(f"{what} was given {number}, which is not a finite number")
    return Fraction(number)


def _plain(value: object) -> str:
    return str(value) if isinstance(value, Quantity) else f"{float(value):,.10g} in base units"
