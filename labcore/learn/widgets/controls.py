"""Controls that several calculators share, and the formats they offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Which peak applies is the point: weight-only formats are widened before the multiplication, so they read fewer bytes
# under the same roof; a higher roof needs weights and activations in the narrow format. `peaks`: the first rate the
# device has. A device without any of them is not offered the format.
_WIDE = ["bf16", "fp16", "fp32"]
PRECISIONS = [
    {"value": "bf16", "label": "BF16 or FP16", "set": {"b_w": 2}, "peaks": _WIDE},
    {"value": "w8a16", "label": "8-bit weights, 16-bit math (W8A16)", "set": {"b_w": 1}, "peaks": _WIDE},
    {"value": "w4a16", "label": "4-bit weights, 16-bit math (W4A16)", "set": {"b_w": 0.5}, "peaks": _WIDE},
    {"value": "w4a16-g128", "label": "W4A16 in groups of 128 (4.25 bits)", "set": {"b_w": 4.25 / 8}, "peaks": _WIDE},
    {"value": "fp8", "label": "FP8 weights and math (W8A8)", "set": {"b_w": 1}, "peaks": ["fp8"]},
    {"value": "int8", "label": "INT8 weights and math (W8A8)", "set": {"b_w": 1}, "peaks": ["int8"]},
    {"value": "nvfp4", "label": "FP4 weights and math (4.5 bits)", "set": {"b_w": 4.5 / 8}, "peaks": ["fp4"]},
]
KV_FORMATS = [
    {"value": "16", "label": "BF16 or FP16 (2 B an element)", "set": {"b_kv": 2}},
    {"value": "8", "label": "FP8 or INT8 (1 B)", "set": {"b_kv": 1}},
    {"value": "4", "label": "4-bit (0.5 B, without scales)", "set": {"b_kv": 0.5}},
]


def whole(name: str, label: str, unit: str, value: int, low: int, high: int) -> dict[str, Any]:
    """A whole number: its box beside a logarithmic slider."""
    shared = {"id": name, "kind": "number", "label": label, "unit": unit, "value": value}
    return shared | {"low": low, "high": high, "log": True, "integer": True}


def any_model(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The model: an id of `facts`, or a Hugging Face config, which the reader may paste."""
    hint = "Take “a config.json …” to paste any Hugging Face config."
    return {"id": "model", "kind": "model", "label": "Model", "value": value, "hint": hint}


def segment(value: str, label: str, hue: str, *, pattern: bool, spare: bool = False) -> dict[str, Any]:
    """A part of `memory_chart`: `value` is the id of its bytes; `pattern` hatches it; one to `spare` is what is left
    over, and not drawn once the others pass the total."""
    part = {"value": value, "label": label, "hue": hue, "pattern": pattern}
    return part | {"spare": True} if spare else part


def memory_chart(label: str, *segments: dict[str, Any]) -> dict[str, Any]:
    """One bar as long as a device's `memory`, cut into segments."""
    return {"kind": "memory", "total": "memory", "label": label, "segments": list(segments)}
