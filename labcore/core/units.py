"""Units of inference: bytes, FLOP, seconds, joules, US dollars, and plain counts.

Decimal and binary prefixes are different units on purpose: 80 GB and 80 GiB differ by 7.4 %, and mixing
them is the commonest error in KV-cache arithmetic. Conversion is always spelled out: `q.to("GB")`.
Source of the prefixes: IEC 80000-13.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from labcore.core.errors import UnitError

_DECIMAL = {"": 1.0, "m": 1e-3, "µ": 1e-6, "u": 1e-6, "n": 1e-9, "p": 1e-12}
_DECIMAL |= {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

# name -> (size in base units, exponents of the base dimensions, prefixes it takes)
_ATOMS: dict[str, tuple[float, dict[str, int], str]] = {
    "B": (1.0, {"B": 1}, "binary decimal"),
    "bit": (0.125, {"B": 1}, "decimal"),
    "b": (0.125, {"B": 1}, "decimal"),
    "FLOP": (1.0, {"FLOP": 1}, "decimal"),
    "FLOPs": (1.0, {"FLOP": 1}, "decimal"),
    "OP": (1.0, {"FLOP": 1}, "decimal"),
    "s": (1.0, {"s": 1}, "decimal"),
    "min": (60.0, {"s": 1}, ""),
    "h": (3600.0, {"s": 1}, ""),
    "day": (86400.0, {"s": 1}, ""),
    "month": (365.25 * 86400 / 12, {"s": 1}, ""),
    "J": (1.0, {"J": 1}, "decimal"),
    "Wh": (3600.0, {"J": 1}, "decimal"),
    "W": (1.0, {"J": 1, "s": -1}, "decimal"),
    "Hz": (1.0, {"s": -1}, "decimal"),
    "USD": (1.0, {"USD": 1}, ""),
    "1": (1.0, {}, ""),
    "×": (1.0, {}, ""),
    "x": (1.0, {}, ""),
    "%": (0.01, {}, ""),
    "tok": (1.0, {}, "decimal"),
}
# Counted things: dimensionless, the word is for the reader.
_COUNTS = ("token", "sequence", "request", "layer", "head", "element", "parameter", "block", "step", "expert", "level")
_COUNTS += ("GPU", "pass", "use", "query", "SM", "split", "batch", "kernel", "call", "slot", "chunk", "stage", "rank")
for _word in _COUNTS:
    _ATOMS[_word] = _ATOMS[_word + ("es" if _word in ("pass", "batch") else "s")] = (1.0, {}, "")


@dataclass(frozen=True)
class Unit:
    """A parsed unit: `scale` base units, and the exponents of B, FLOP, s, J and USD."""

    text: str
    scale: float
    dimension: tuple[tuple[str, int], ...]
    binary: bool

    def __str__(self) -> str:
        return self.text


def _atom(word: str) -> tuple[float, dict[str, int], bool]:
    if word in _ATOMS:
        scale, dimension, _ = _ATOMS[word]
        return scale, dimension, False
    for prefixes, kind in ((_BINARY, "binary"), (_DECIMAL, "decimal")):
        for prefix, factor in prefixes.items():
            name = word.removeprefix(prefix)
            if prefix and word != name and name in _ATOMS and kind in _ATOMS[name][2]:
                scale, dimension, _ = _ATOMS[name]
                return factor * scale, dimension, kind == "binary"
    raise UnitError(f"unit {word!r} is unknown; use B, FLOP, s, J, W, USD, % or a count, with an SI or binary prefix")


@cache
def unit(text: str) -> Unit:
    """Parse `"GB"`, `"TFLOP/s"`, `"B/token"`, `"USD/Mtok"`; products with `·`, at most one `/`.

    Raises UnitError for a word that is not in the table.
    """
    scale, dimension, binary = 1.0, {}, False
    above, _, below = text.strip().partition("/")
    for side, sign in ((above, 1), (below, -1)):
        for word in filter(None, re.split(r"[·*\s]+", side.strip("() "))):
            size, exponents, is_binary = _atom(word)
            scale *= size**sign
            binary |= is_binary
            for base, power in exponents.items():
                dimension[base] = dimension.get(base, 0) + sign * power
    return Unit(text.strip() or "1", scale, tuple(sorted((b, p) for b, p in dimension.items() if p)), binary)


@dataclass(frozen=True)
class Quantity:
    """A number with its unit. `Quantity(80, "GB").to("GiB")` is `Quantity(74.5…, "GiB")`."""

    value: float
    unit: str = "1"

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Read `"2.684 GB"`, `"−0.23 GB"`, `"327,680 B/token"`, `"4.2 %"`. Raises UnitError if there is no number; a
        comma stands before three digits, so a decimal comma is refused (`"0,5 TB/s"`)."""
        match = re.fullmatch(
            r"\s*([-+−]?(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\d,])\s*(.*?)\s*", text
        )
        if not match:
            raise UnitError(f"{text!r} is not a number with a unit; write it like '2.684 GB'")
        return cls(float(match[1].replace(",", "").replace("_", "").replace("−", "-")), unit(match[2] or "1").text)

    @property
    def base(self) -> float:
        """The value in base units (B, FLOP, s, J, USD, 1)."""
        return self.value * unit(self.unit).scale

    def to(self, target: str) -> Quantity:
        """The same amount in another unit of the same dimension. Raises UnitError if the dimensions differ."""
        here, there = unit(self.unit), unit(target)
        if here.dimension != there.dimension:
            raise UnitError(f"{self} cannot become {target}: one measures {_name(here)}, the other {_name(there)}")
        return Quantity(self.base / there.scale, target)

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"


def _name(u: Unit) -> str:
    return "·".join(b if p == 1 else f"{b}^{p}" for b, p in u.dimension) or "a plain number"


def magnitude(value: float | Quantity, wanted: str) -> float:
    """`value` as a plain number of `wanted` units.

    A plain number is taken to be in `wanted` already. A Quantity is rescaled within one prefix family; a binary
    unit where a decimal one is meant (GiB for GB), or the reverse, raises UnitError instead of being converted
    silently, because on paper that is nearly always a mistake.
    """
    if not isinstance(value, Quantity):
        return value
    here, there = unit(value.unit), unit(wanted)
    if here.dimension != there.dimension:
        value.to(wanted)
    binary_for_decimal = here.binary and not there.binary and there.scale != 1
    decimal_for_binary = there.binary and not here.binary and here.scale != 1
    if binary_for_decimal or decimal_for_binary:
        raise UnitError(f"{value} was given where {wanted} is meant; write .to({wanted!r}) to convert on purpose")
    return value.base / there.scale
