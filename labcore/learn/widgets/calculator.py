"""Calculator: controls, steps of registered formulas, a sentence, a table, a chart; in Python and in the page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.learn.widgets.base import Widget
from labcore.learn.widgets.environment import environment
from labcore.learn.widgets.numbers import text
from labcore.learn.widgets.steps import holds, run, sentence


class Calculator(Widget):
    """A calculator described by `spec`:

    title, about: text; inputs: controls (kinds number, choice, hardware, precision, model); steps: see steps.py;
    results: rows {id, label, unit, when?, otherwise?, shape?, hue?}; summary: cases for `sentence`; chart: {kind:
    "roofline" | "memory" | "curve", …} or None. Values are in base units.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__("calculator", spec)
        self.fallback = self._table()

    def results(self, **changed: Any) -> dict[str, float | None]:
        """What the page shows, by result id, with some inputs changed; None where there is no such value.

        `roofline_explorer().results(B=64)["t_step"]` is in seconds. Raises InputError for an unknown input or value.
        """
        known = self._known(changed)
        return {
            row["id"]: known.get(row["id"]) if holds(row.get("when"), known) else None for row in self.spec["results"]
        }

    def summary(self, **changed: Any) -> str:
        """The sentence above the chart."""
        return sentence(self.spec["summary"], self._known(changed))

    def _known(self, changed: Mapping[str, Any]) -> dict[str, Any]:
        state = {i["id"]: i["value"] for i in self.spec["inputs"]}
        if unknown := sorted(set(changed) - set(state)):
            raise InputError(
                f"{', '.join(unknown)}: no such input of {self.spec['title']!r}; there are {', '.join(state)}"
            )
        return run(self.spec["steps"], environment(self.spec["inputs"], state | changed))

    def _table(self) -> str:
        """The default results as a plain HTML table: what GitHub, print and a page without scripts show."""
        known = self._known({})
        given = "; ".join(f"{i['label']} {_shown(i)}" for i in self.spec["inputs"])
        rows = "".join(
            f"<tr><td>{html.escape(r['label'])}</td><td>{html.escape(_cell(r, known))}</td></tr>"
            for r in self._rows(known)
        )
        summary = html.escape(sentence(self.spec["summary"], known))
        return (
            f"<p><strong>{html.escape(self.spec['title'])}</strong>: {html.escape(given)}.</p>"
            f"<p>{summary}</p><table><thead><tr><th>result</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"
            f"{self._measured()}"
        )

    def _measured(self) -> str:
        """The points that were measured on the chosen device, as text, with where they come from."""
        chosen = [i["devices"].get(i["value"], {}) for i in self.spec["inputs"] if "devices" in i]
        return "".join(
            f"<p>{html.escape(one['measured']['title'])}: "
            + html.escape("; ".join(point["text"] for point in one["measured"]["points"]))
            + f". {html.escape(one['measured']['provenance'])}</p>"
            for one in chosen
            if "measured" in one
        )

    def _rows(self, known: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [row for row in self.spec["results"] if holds(row.get("show"), known)]


def _cell(row: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if known.get(row["id"]) is not None and holds(row.get("when"), known):
        return text(known[row["id"]], row["unit"])
    return sentence(row.get("otherwise"), known) or "—"


def _shown(control: Mapping[str, Any]) -> str:
    value = control["value"]
    if "choices" in control:
        return next(c["label"] for c in control["choices"] if c["value"] == value)
    if control["kind"] == "hardware" and value in control.get("devices", {}):
        return control["devices"][value]["name"]
    if control["kind"] == "number":
        return text(value / control.get("scale", 1), control.get("unit", "1"))
    return value if isinstance(value, str) else "config.json"


def formula_calculator(*ids: str, chart: str | None = None, title: str | None = None, **values: float) -> Calculator:
    """A calculator for registered formulas that share their inputs: one row each, one control for every input.

    chart: name of the input on the horizontal axis (its own range; logarithmic where that spans a factor of 100 or
    more), None for no chart. values: where the controls start. Raises KeyError for an unknown formula.
    """
    chosen = [formula[name] for name in ids]
    symbols = {i.name: i for f in chosen for i in f.inputs}
    if unknown := sorted((set(values) | ({chart} if chart else set())) - set(symbols)):
        raise InputError(f"{', '.join(unknown)}: no such input; the formulas take {', '.join(symbols)}")
    if chart and len({f.unit for f in chosen}) > 1:
        raise InputError(
            f"{', '.join(ids)} have different units and cannot share a vertical axis; leave out chart={chart!r}"
        )
    controls = [_control(i, values.get(i.name)) for i in symbols.values()]
    rows = [{"id": f"y{n}", "label": f.title, "unit": f.unit} for n, f in enumerate(chosen)]
    spec = {
        "title": title or chosen[0].title,
        "inputs": controls,
        "steps": [{"id": row["id"], "formula": f.id} for row, f in zip(rows, chosen, strict=True)],
        "summary": [{"text": "; ".join(f"{r['label']}: {{{r['id']}|{r['unit']}}}" for r in rows) + "."}],
        "results": rows,
    }
    if chart:
        spec["chart"] = _curve(symbols[chart], rows)
    return Calculator(spec)


def _control(symbol: Any, value: float | None) -> dict[str, Any]:
    low, high = symbol.low, symbol.high
    log = low > 0 and high / low >= 100
    start = value if value is not None else (low * high) ** 0.5 if log else (low + high) / 2
    start = round(start) if symbol.integer else start
    label = symbol.doc[:1].upper() + symbol.doc[1:]
    shared = {"id": symbol.name, "kind": "number", "label": label, "unit": symbol.unit if symbol.unit != "1" else ""}
    low, high = min(low, start), max(high, start)
    return shared | {"value": start, "low": low, "high": high, "log": log, "integer": symbol.integer}


def _curve(symbol: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    hues = ("decode", "prefill", "kv", "highlight")
    lines = [{"value": r["id"], "label": r["label"], "hue": hues[n % 4]} for n, r in enumerate(rows)]
    unit = rows[0]["unit"]
    log_x = symbol.low > 0 and symbol.high / symbol.low >= 100
    return {
        "kind": "curve",
        "input": symbol.name,
        "results": lines,
        "log": [log_x, False],
        "unit": unit,
        "xTitle": f"{symbol.doc} ({symbol.unit})" if symbol.unit != "1" else symbol.doc,
        "yTitle": f"{rows[0]['label']} ({unit})" if unit != "1" else rows[0]["label"],
    }
