"""A recorded run as text for the terminal: ceilings with their spread, rows with ratio, interval and bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labcore.bench.record import provenance

PREFIXES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6, "n": 1e-9}


def report(run: Mapping) -> str:
    """The whole run as aligned tables, provenance first."""
    parts = [provenance(run), "", _table(_CEILING_HEAD, [_ceiling_cells(one) for one in run["ceilings"]])]
    if run["rows"]:
        parts += ["", _table(_ROW_HEAD, [_row_cells(row) for row in run["rows"]])]
    parts += [f"skipped {one['suite']}: {one['why']}" for one in run["skipped"]]
    if not run["stable"]:
        parts += ["", "UNSTABLE: a ceiling moved by more than 3 % during the run; repeat it on a calm machine."]
    return "\n".join(parts)


_CEILING_HEAD = ("ceiling", "value", "q20–q80 before", "q20–q80 after", "drift", "n", "measured with")
_ROW_HEAD = ("row", "ours", "q20–q80", "baseline", "ratio", "interval", "kind", "met", "right")


def _ceiling_cells(one: Mapping) -> tuple[str, ...]:
    spans = [_span(one[side], one["unit"]) for side in ("before", "after")]
    value, drift = si(one["value"], one["unit"]), f"{100 * one['drift']:+.1f} %"
    return (one["key"], value, *spans, drift, str(one["before"]["n"]), f"{one['op']}, {one['shape']}")


def _row_cells(row: Mapping) -> tuple[str, ...]:
    ours, share, unit = row["ours"], row["ratio"], row["ours"]["unit"]
    baseline = f"{row['baseline']['name']} {si(row['baseline']['median'], unit)}" if row["baseline"] else "–"
    figures = (f"{share['median']:.3g}", f"{share['lo']:.3g}–{share['hi']:.3g}", share["kind"], row["met"] or "–")
    return (
        row["key"],
        si(ours["median"], unit),
        _span(ours, unit),
        baseline,
        *figures,
        "yes" if row["correct"]["pass"] else "NO",
    )


def _span(summary: Mapping, unit: str) -> str:
    return f"{si(summary['q20'], unit)} – {si(summary['q80'], unit)}"


def si(value: float, unit: str = "") -> str:
    """`value` to three digits with an SI prefix, 2.95e10 B/s as "29.5 GB/s"; a plain number (unit "1") as it is."""
    if unit == "1":
        return f"{value:.3g}"
    for prefix, size in PREFIXES.items():
        if abs(value) >= 0.9995 * size:  # 999.6 GB/s is written 1 TB/s, not 1e+03 GB/s
            return f"{value / size:.3g} {prefix}{unit}".strip()
    return f"{value:.3g} {unit}".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
