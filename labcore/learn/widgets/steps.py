"""A calculator is a list of steps, each naming a registered formula; js/steps.js runs the same list in the page.

step = {"id": result, "formula": id, "with": {input: name or number}, "when": [[name, sign, name or number], …]}, where
sign is "<", ">=" or "=".

A formula's inputs are looked up among what is known under their own names; `with` renames. Of several steps with one
id the first whose conditions hold counts. A value may be unknown (None: a config that does not tell the parameters);
what needs it is unknown as well. Besides formulas there is bookkeeping: {"product": [a, b]}, {"ratio": [a, b]},
{"sum": [[a, factor], …]}, and {"search": x, "value": v, "reaches": r}, the smallest whole x from 1 at which v is at
least r, unknown if there is none up to 2**30. {"best": x, "to": n, "value": v} is the whole x from 1 to n at which v is
largest, the first of several, and {"at": x, "from": y, "value": v} is v if x were what y is. These three may rest
on any earlier step but one of their own kinds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.learn.widgets.numbers import text

Known = dict[str, Any]
_SIGNS = {"<": operator.lt, ">=": operator.ge, "=": operator.eq}


def _look(known: Mapping[str, Any], name: str | float) -> Any:
    return known.get(name) if isinstance(name, str) else name


def holds(conditions: Sequence[Sequence[Any]] | None, known: Mapping[str, Any]) -> bool:
    """Every condition holds; one on a value that is not known never does."""
    for left, sign, right in conditions or ():
        a, b = _look(known, left), _look(known, right)
        if a is None or b is None or not _SIGNS[sign](a, b):
            return False
    return True


def _arguments(step: Mapping[str, Any]) -> dict[str, str | float]:
    """What a step needs: formula input (or position) -> name or number."""
    if "formula" in step:
        names = step.get("with", {})
        return {i.name: names.get(i.name, i.name) for i in formula[step["formula"]].inputs}
    listed = step.get("product") or step.get("ratio") or [name for name, _ in step["sum"]]
    return dict(enumerate(listed))


def _evaluate(step: Mapping[str, Any], known: Known) -> float | None:
    needs = _arguments(step)
    for name in needs.values():
        if isinstance(name, str) and name not in known:
            raise InputError(
                f'step {step["id"]!r} needs {name!r}; compute it in an earlier step or rename it under "with"'
            )
    values = {key: _look(known, name) for key, name in needs.items()}
    if None in values.values():
        return None
    if "formula" in step:
        return float(formula[step["formula"]](**values))
    if "product" in step:
        return values[0] * values[1]
    if "ratio" in step:
        return values[0] / values[1]
    return sum(values[n] * factor for n, (_, factor) in enumerate(step["sum"]))


def _search(step: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], given: Known) -> int | None:
    def enough(x: int) -> bool:
        known = run(earlier, given | {step["search"]: x})
        return (
            None not in (known[step["value"]], known[step["reaches"]])
            and known[step["value"]] >= known[step["reaches"]]
        )

    low, high = 0, 1
    while not enough(high):
        if high >= 2**30:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _best(step: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], given: Known) -> int | None:
    values = {x: run(earlier, given | {step["best"]: x})[step["value"]] for x in range(1, step["to"] + 1)}
    there = [x for x, value in values.items() if value is not None]
    return max(there, key=values.get) if there else None


def _at(step: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], given: Known, x: float | None) -> float | None:
    return None if x is None else run(earlier, given | {step["at"]: x})[step["value"]]


def plain(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The steps that do not run others."""
    return [step for step in steps if not {"search", "best", "at"} & step.keys()]


def _value(step: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], given: Known, known: Known) -> float | None:
    if "search" in step:
        return _search(step, earlier, given)
    if "best" in step:
        return _best(step, earlier, given)
    if "at" in step:
        return _at(step, earlier, given, known[step["from"]])
    return _evaluate(step, known)


def run(steps: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Known:
    """`given` and everything the steps add to it. Raises InputError when a step names something that is not there."""
    known = dict(given)
    for i, step in enumerate(steps):
        known.setdefault(step["id"], None)
        if known[step["id"]] is None and holds(step.get("when"), known):
            known[step["id"]] = _value(step, plain(steps[:i]), dict(given), known)
    return known


def sentence(cases: Sequence[Mapping[str, Any]] | None, known: Mapping[str, Any]) -> str:
    """The first text whose conditions hold, with {name|unit} replaced: "one step takes {t_step|s}"."""
    found = next((case for case in cases or () if holds(case.get("when"), known)), None)
    if found is None:
        return ""
    return re.sub(r"\{(\w+)(?:\|([^}]*))?\}", lambda m: text(_look(known, m[1]), m[2] or "1"), found["text"])
