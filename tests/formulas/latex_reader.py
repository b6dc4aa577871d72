"""Evaluates the LaTeX that the printer writes, with nothing but the letters on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from labcore.formulas.symbols import TABLE


class Reader:
    """Recursive descent over sums, juxtaposed products, powers, fractions, brackets, min, max, floor, ceiling, log."""

    def __init__(self, text: str, values: Mapping[str, float]) -> None:
        self.rest = text.strip()
        by_latex = {i.latex: values[name] for name, i in TABLE.items() if name in values}
        self.symbols = sorted(by_latex.items(), key=lambda pair: -len(pair[0]))

    def take(self, pattern: str) -> str | None:
        """Consume `pattern` at the front, and blanks after it."""
        match = re.match(pattern, self.rest)
        if match:
            self.rest = self.rest[match.end() :].lstrip()
        return match and match[0].strip()

    def need(self, pattern: str) -> None:
        if self.take(pattern) is None:
            raise ValueError(f"expected {pattern} before {self.rest!r}")

    def sum(self) -> float:
        total = -self.product() if self.take("-") else self.product()
        while sign := self.take("[+-]"):
            total += self.product() if sign == "+" else -self.product()
        return total

    def product(self) -> float:
        total = self.power()
        while (factor := self.power(optional=True)) is not None:
            total *= factor
        return total

    def power(self, optional: bool = False) -> float | None:
        base = self.atom()
        if base is None and not optional:
            raise ValueError(f"expected a factor before {self.rest!r}")
        if base is not None and self.take(r"\^"):
            base **= self.group()
        return base

    def group(self) -> float:
        self.need(r"\{")
        value = self.sum()
        self.need(r"\}")
        return value

    def bracket(self) -> list[float]:
        self.need(r"\\left\(")
        values = [self.sum()]
        while self.take(","):
            values.append(self.sum())
        self.need(r"\\right\)")
        return values

    def atom(self) -> float | None:
        if number := self.take(r"\d+(\.\d+)?"):
            return float(number)
        if self.take(r"\\frac"):
            above = self.group()
            return above / self.group()
        if name := self.take(r"\\(min|max)(?![a-z])"):
            return {"\\min": min, "\\max": max}[name](self.bracket())
        if name := self.take(r"\\left\\l(floor|ceil)"):
            value = self.group()
            self.need(r"\\right\\r(floor|ceil)")
            return float(math.floor(value) if "floor" in name else math.ceil(value))
        if self.take(r"\\log(?![a-z])"):
            return math.log(self.group())
        if self.take(r"\\gamma(?![a-z])"):
            return 0.5772156649015329  # Euler's
        if self.rest.startswith(r"\left("):
            (value,) = self.bracket()
            return value
        for latex, value in self.symbols:
            if self.take(re.escape(latex) + r"(?![a-zA-Z_])"):
                return value
        if self.take(r"e(?=\^)"):  # Euler's number, unless an input is written e
            return math.e
        return None


def evaluate(latex: str, values: Mapping[str, float]) -> float:
    """The number that a right-hand side stands for. Raises ValueError for what it cannot read."""
    reader = Reader(latex, values)
    result = reader.sum()
    if reader.rest:
        raise ValueError(f"cannot read {reader.rest!r}")
    return result
