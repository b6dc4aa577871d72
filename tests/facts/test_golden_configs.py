"""Published configs, read: exact parameters, exact cache, and the mistakes that the set is there to catch."""

import json

import pytest

from labcore import facts
from labcore.core.errors import DataError
from labcore.facts import ModelConfig
from tests.facts.golden import GOLDEN, HERE, PRESETS, REFUSED

each = pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: g.name)


@each
def test_parameters(golden):
    config = ModelConfig.from_hf(golden.path, golden.name)
    if golden.parameters is None:
        with pytest.raises(DataError, match=f"{golden.name}: cannot count the parameters exactly"):
            config.parameters()
        return
    assert config.parameters() == golden.parameters
    assert config.weight_bytes(0.5) == golden.parameters / 2
    assert config.active_parameters() == (golden.active or config.active_parameters())
    assert (config.active_parameters() < golden.parameters) == (config.moe is not None)


@each
def test_cache(golden):
    config = ModelConfig.from_hf(golden.path, golden.name)
    assert config.kv_bytes_per_token(1) == golden.elements_per_token
    assert config.kv_bytes(1) == 2 * golden.elements_per_token
    for tokens, elements in golden.kv.items():
        assert config.kv_bytes(tokens, 1) == elements


@pytest.mark.parametrize(("name", "field"), REFUSED.items())
def test_a_cache_that_is_not_modelled_is_refused(name, field):
    with pytest.raises(DataError, match=rf"{name}\.json.*: {field}=.* which this reader does not model"):
        ModelConfig.from_hf(HERE / f"{name}.json")


def test_every_config_file_is_tested_and_every_preset_has_one():
    here = {path.stem for path in HERE.rglob("*.json")}
    presets = {path.stem for path in PRESETS.glob("*.json")}
    assert presets == set(facts.model_ids())
    assert here | presets == {g.name for g in GOLDEN} | REFUSED.keys()


def query_heads(c):
    return 2 * c.n_layers * c.n_heads * c.head_dim


def hidden_over_heads(c):
    return 2 * c.n_layers * c.n_kv_heads * (c.hidden // c.n_heads)


def only_keys(c):
    return c.n_layers * c.n_kv_heads * c.head_dim


def every_layer_attends(c):
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim


MISTAKES = [
    (query_heads, {"llama-3-8b", "falcon-180b", "qwen3-4b"}),
    (hidden_over_heads, {"qwen3-0.6b", "qwen3-4b", "gemma-7b", "gpt-oss-120b", "gemma-4-26b-a4b"}),
    (only_keys, {"llama-3-8b", "gpt-3-175b"}),
    (every_layer_attends, {"deepseek-v3", "qwen3.5-27b"}),
]


@pytest.mark.parametrize(("mistake", "caught"), MISTAKES, ids=lambda m: getattr(m, "__name__", ""))
def test_the_set_catches_the_usual_mistakes(mistake, caught):
    wrong = {g.name for g in GOLDEN if mistake(ModelConfig.from_hf(g.path)) != g.elements_per_token}
    assert caught <= wrong


def test_ignoring_windows_would_show():
    long = {g.name: (t, e) for g in GOLDEN for t, e in g.kv.items() if e != t * g.elements_per_token}
    assert {"mistral-7b-v0.1", "gemma-2-9b", "gemma-3-27b", "gpt-oss-120b", "phi-3-mini-4k"} <= long.keys()


def test_the_state_of_linear_layers_does_not_grow():
    config = facts.model("qwen3.5-35b-a3b")
    recurrent, conv = 30 * 32 * 128 * 128, 30 * (2 * 16 * 128 + 32 * 128) * 3
    assert config.state_bytes() == 4 * recurrent + 2 * conv
    assert config.n_kv_layers == 10 and facts.model("llama-3-8b").state_bytes() == 0


@pytest.mark.parametrize("id", facts.model_ids())
def test_presets_name_their_source(id):
    config = facts.model(id)
    assert config.id == id and config.as_of and config.parameters() >= config.active_parameters() > 0
    assert config.source.startswith(("https://huggingface.co/", "arXiv:"))
    assert repr(config) == f"ModelConfig('{id}')"


def test_a_config_reads_the_same_from_a_path_a_folder_and_a_dict(tmp_path):
    content = json.loads((PRESETS / "qwen3-4b.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content))
    ways = [tmp_path / "config.json", str(tmp_path), content]
    configs = [ModelConfig.from_hf(way, "Q", id="q", source="s", as_of="2025") for way in ways]
    assert configs[0] == configs[1] == configs[2] and configs[0].name == "Q"
