"""The facts as plain JSON in base units, for the calculators that run in a page."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import Any

from labcore.facts.hardware import Hardware, hardware, hardware_ids
from labcore.facts.layers import LayerAttention
from labcore.facts.model import ModelConfig
from labcore.facts.models import model, model_ids


def as_json() -> dict[str, dict[str, Any]]:
    """{"hardware": {id: …}, "models": {id: …}} with the field names of Hardware and ModelConfig; absent means None.

    A model's `layers` are merged into groups of equal layers {count, kind, kv_elements, window, recurrent_elements,
    conv_elements}, fields that are 0 or None left out; the three counts of parameters are computed.
    """
    return {
        "hardware": {id: device_json(hardware(id)) for id in hardware_ids()},
        "models": {id: model_json(model(id)) for id in model_ids()},
    }


def device_json(device: Hardware) -> dict[str, Any]:
    """One row of as_json()["hardware"]."""
    names = ("name", "kind", "memory_bytes", "usable_bytes", "bandwidth", "interconnect_bandwidth", "tdp_w", "sms")
    row = {name: getattr(device, name) for name in (*names, "source", "as_of")}
    return _present(row) | {"peak": dict(device.peak)}


def model_json(config: ModelConfig) -> dict[str, Any]:
    """One row of as_json()["models"]."""
    names = ("name", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "context", "note", "source", "as_of")
    row = {name: getattr(config, name) for name in names}
    row |= {"n_kv_layers": config.n_kv_layers, "layers": layer_groups(config.layers)}
    row |= {"parameters": config.parameters(), "active_parameters": config.active_parameters()}
    row["embedding_parameters"] = config.embedding_parameters()
    if config.moe:
        row["moe"] = _present(asdict(config.moe))
    if config.mla:
        row["mla"] = {"kv_rank": config.mla.kv_rank, "rope_dim": config.mla.rope_dim}
    return _present(row)


def layer_groups(layers: Iterable[LayerAttention]) -> list[dict[str, Any]]:
    """Equal layers counted together, in the order in which each kind first appears."""
    layers = list(layers)
    order = {layer: i for i, layer in reversed(list(enumerate(layers)))}
    groups = groupby(sorted(layers, key=order.__getitem__))
    return [{"count": len(list(same))} | _present(asdict(layer)) for layer, same in groups]


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value not in (None, 0, "")}
