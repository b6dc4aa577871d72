"""The roofline explorer of a machine that was measured: its own roof, and a dot for every row of a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labcore.bench.record import provenance, rows
from labcore.core.errors import InputError
from labcore.facts import Hardware
from labcore.facts.browser import device_json
from labcore.learn.recorded import ceiling
from labcore.learn.widgets.calculator import Calculator
from labcore.learn.widgets.controls import KV_FORMATS, PRECISIONS
from labcore.learn.widgets.numbers import text
from labcore.learn.widgets.roofline import CHART, explorer_spec

MACHINE = "measured"
FP32 = {"value": "fp32", "label": "FP32", "set": {"b_w": 4}, "peaks": ["fp32"]}
KV_FP32 = {"value": "32", "label": "FP32 (4 B an element)", "set": {"b_kv": 4}}
SHOWN = ("I_step", "I_prompt")  # of the computed points: more would hide the measured ones


def measured_roofline(run: Mapping[str, Any], pattern: str = "cpu.roofline.*", batch: int = 1) -> Calculator:
    """The explorer opened on the machine of a recorded run, with the rows `pattern` as measured points.

    The roof is the run's own ceilings; a row counts FLOP and bytes and took `ours` seconds, so it stands at FLOP/B and
    FLOP/s. Model, context and number format are those of the first decode row. Other devices show no points.
    Raises InputError for rows that are not times of one number format, or not of one model.
    """
    found = rows(run, pattern)
    kinds = {(row["ours"]["unit"], row["dtype"], row["shape"].get("model")) for row in found}
    if len(kinds) > 1 or any(kind[:2] != ("s", "fp32") for kind in kinds):
        raise InputError(f"rows {pattern!r} of {run['run_id']} are not all times of one model in fp32: {sorted(kinds)}")
    decode = next((row for row in found if "batch" in row["shape"]), None)
    if decode is None:
        raise InputError(f"rows {pattern!r} of {run['run_id']} hold no decode step; take in one with shape.batch")
    device = {"id": "hardware", "kind": "hardware", "label": "Device", "value": MACHINE}
    device["devices"] = {MACHINE: machine(run) | {"measured": points(run, found)}}
    spec = explorer_spec(
        device,
        decode["shape"]["model"],
        FP32["value"],
        KV_FP32["value"],
        batch,
        round(decode["shape"]["context"]),
        precisions=[FP32, *PRECISIONS],
        kv_formats=[KV_FP32, *KV_FORMATS],
    )
    spec["title"] = "Roofline explorer with measured points"
    spec["chart"] = CHART | {"points": [point for point in CHART["points"] if point["intensity"] in SHOWN]}
    return Calculator(spec)


def machine(run: Mapping[str, Any]) -> dict[str, Any]:
    """The machine of a run as a row of facts.as_json()["hardware"]: its measured read bandwidth and fp32 rate."""
    device, threads = run["device"], run["threads"]
    measured = Hardware(
        id=MACHINE,
        name=f"{device['name']}, {threads} thread{'s' * (threads > 1)}, measured",
        kind="cpu",
        memory_bytes=device["memory_bytes"],
        bandwidth=ceiling(run, "read_bandwidth"),
        peak={"fp32": ceiling(run, "matmul.fp32")},
        source=f"run {run['run_id']}",
        as_of=f"{run['run_id'][:4]}-{run['run_id'][4:6]}-{run['run_id'][6:8]}",
    )
    return device_json(measured)


def points(run: Mapping[str, Any], found: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What the chart draws of the rows: FLOP/B, FLOP/s, a short label, and the whole as text."""
    return {
        "title": "Measured",
        "provenance": provenance(run),
        "points": [_point(row) for row in found],
    }


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    intensity, rate = row["flops"] / row["bytes"], row["flops"] / row["ours"]["median"]
    batch = row["shape"].get("batch")
    name = f"batch {batch}" if batch else f"prefill of {row['shape']['tokens']} tokens"
    took = text(row["ours"]["median"], "s")
    return {
        "I": intensity,
        "rate": rate,
        "label": str(batch or row["shape"]["tokens"]),
        "hue": "decode" if batch else "prefill",
        "text": f"{name} took {took}, {text(rate, 'FLOP/s')} at {text(intensity, 'FLOP/B')}",
    }
