"""Player and Predict: a recorded run stepped through event by event, and a number written down before it is computed.

Player(trace)                                         # see trace.py for the JSON
predict("paging.u16", "Share of KV memory in use at block size 16?", unit="%")
predict.reveal("paging.u16", utilization)             # the reader's number beside ours
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from labcore.core.errors import InputError
from labcore.core.units import Quantity, magnitude, unit
from labcore.learn.trace import Trace, trace
from labcore.learn.widgets.base import Widget
from labcore.learn.widgets.numbers import number

FALLBACK_ROWS = 24


def describe(event: Mapping[str, Any]) -> str:
    """One event as a phrase: the text of the table, of the fallback and of what a screen reader hears."""
    e = event
    match e["op"]:
        case "allocate":
            return f"{e['seq']} takes block {e['block']}"
        case "share":
            return f"{e['seq']} shares block {e['block']}"
        case "append":
            return f"{e['seq']} writes {e['tokens']} token{'s' * (e['tokens'] != 1)}"
        case "copy":
            return f"{e['seq']} copies block {e['block']} to {e['to']} before writing"
        case "free":
            return f"{e['seq']} frees its blocks"
        case "preempt":
            return f"{e['seq']} is preempted and loses its blocks"
        case "run":
            return f"slot {e['slot']}: {e['request']} {e['kind']} {e['tokens']}"
        case "tile":
            return f"tile ({e['row']}, {e['column']}) {'skipped: masked' if e['skipped'] else 'computed'}"
    drafted = [_visible(token) for token in e["drafted"]]
    kept, lost = drafted[: e["accepted"]], drafted[e["accepted"] :]
    parts = [f"accepted {' '.join(kept) or 'none'}"] + [f"rejected {' '.join(lost)}"] * bool(lost)
    parts += [f"{k} {_visible(e[k])}" for k in ("resampled", "bonus") if k in e]
    return ", ".join(parts)


def _visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "⏎")


class Player(Widget):
    """Steps through a recorded trace: `Player(trace)` takes the dict of trace.py. Raises DataError if it is wrong."""

    def __init__(self, data: Mapping[str, Any] | Trace) -> None:
        self.trace = trace(data)
        spec = self.trace.as_json()
        for step in spec["steps"]:
            step["text"] = (
                "; ".join(filter(None, [step.pop("note"), *map(describe, step["events"])])) or "nothing happens"
            )
        for counter in spec["counters"]:
            counter["scale"] = unit(counter["unit"]).scale
        super().__init__("player", spec, _table(spec))

    def __repr__(self) -> str:
        return f"Player({self.trace.title!r}, {len(self.trace.steps)} steps)"


def _table(spec: Mapping[str, Any]) -> str:
    """The trace as an HTML table, its first rows if it is long."""
    steps, counters = spec["steps"], spec["counters"]
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in _heads(counters))
    rows = []
    for index, step in enumerate(steps[:FALLBACK_ROWS]):
        cells = [str(index), step["text"], *(number(step["counters"][c["name"]] / c["scale"]) for c in counters)]
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    more = len(steps) - FALLBACK_ROWS
    note = f"<p>{more} more steps are shown in the built book.</p>" if more > 0 else ""
    return (
        f"<table><caption>{html.escape(spec['title'])}. {html.escape(spec['source'])}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{note}"
    )


def _heads(counters: list[dict[str, Any]]) -> list[str]:
    units = (f" ({c['unit']})" if c["unit"] != "1" else "" for c in counters)
    return ["step", "what happens", *(c["label"] + u for c, u in zip(counters, units, strict=True))]


class _Predict:
    """`predict(id, question, unit)` asks; `predict.reveal(id, value)` answers. The number stays in the browser."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[str, str]] = {}

    def __call__(self, id: str, question: str, unit: str = "1") -> Widget:
        """A box for the reader's number, in `unit`, kept under `id`. Raises UnitError for an unknown unit."""
        spec = self._spec(id, question, unit)
        self._asked[id] = (question, unit)
        unit_text = "" if unit == "1" else f" (in {unit})"
        return Widget("predict", spec, f"<p><strong>Predict first.</strong> {html.escape(question)}{unit_text}</p>")

    def reveal(self, id: str, value: float | Quantity) -> Widget:
        """The computed `value` (base units, or a Quantity) beside the prediction made under `id`.

        Raises InputError when nothing was asked under that id.
        """
        if id not in self._asked:
            raise InputError(f"predict.reveal({id!r}): nothing was asked under that id; asked: {sorted(self._asked)}")
        question, asked_in = self._asked[id]
        scale = unit(asked_in).scale
        in_unit = value.to(asked_in).value if isinstance(value, Quantity) else magnitude(value, "1") / scale
        spec = self._spec(id, question, asked_in) | {"reveal": in_unit}
        shown = number(in_unit) + ("" if asked_in == "1" else f" {asked_in}")
        return Widget(
            "predict", spec, f"<p><strong>Predicted and computed.</strong> {html.escape(question)} {shown}.</p>"
        )

    @staticmethod
    def _spec(id: str, question: str, asked_in: str) -> dict[str, Any]:
        unit(asked_in)
        return {"id": id, "question": question, "unit": asked_in, "title": question}


predict = _Predict()
