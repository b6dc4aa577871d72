"""The JSON for the browser carries what its calculators need, in base units, and stays small."""

import json

import pytest

from labcore import facts
from labcore.facts import ModelConfig
from labcore.facts.browser import model_json
from tests.facts.golden import GOLDEN

DATA = json.loads(json.dumps(facts.as_json()))


def test_it_is_small_and_deterministic():
    text = json.dumps(facts.as_json(), ensure_ascii=False, separators=(",", ":"))
    assert len(text.encode()) < 25_000
    assert text == json.dumps(facts.as_json(), ensure_ascii=False, separators=(",", ":"))


def test_every_row_is_there_with_its_source():
    assert (*DATA["hardware"],) == facts.hardware_ids() and (*DATA["models"],) == facts.model_ids()
    for row in (*DATA["hardware"].values(), *DATA["models"].values()):
        assert row["name"] and row["source"] and row["as_of"]


def test_devices_are_in_base_units():
    for id, row in DATA["hardware"].items():
        device = facts.hardware(id)
        assert row["peak"] == dict(device.peak)
        assert (row["bandwidth"], row["memory_bytes"]) == (device.bandwidth, device.memory_bytes)
        assert row.get("usable_bytes") == device.usable_bytes


def cache_bytes(row, tokens, width):
    """How a page computes the cache of one sequence from a row."""
    kept = (g["count"] * g.get("kv_elements", 0) * min(tokens, g.get("window", tokens)) for g in row["layers"])
    return width * sum(kept)


@pytest.mark.parametrize("golden", [g for g in GOLDEN if g.parameters], ids=lambda g: g.name)
def test_a_row_is_enough_for_the_cache_and_the_weights(golden):
    config = ModelConfig.from_hf(golden.path)
    row = json.loads(json.dumps(model_json(config)))
    for tokens in (0, 1, 128, 4096, 131_072):
        assert cache_bytes(row, tokens, 2) == config.kv_bytes(tokens)
    assert (row["parameters"], row["active_parameters"]) == (config.parameters(), config.active_parameters())
    assert ("moe" in row, "mla" in row) == (config.moe is not None, config.mla is not None)
