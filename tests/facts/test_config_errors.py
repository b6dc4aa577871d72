"""A config that lacks a field, contradicts itself or is no config: one sentence with the file and the field."""

import json

import pytest

from labcore.core.errors import DataError, InputError
from labcore.facts import ModelConfig, model
from tests.facts.golden import GOLDEN, PRESETS

GONE = object()


def variant(tmp_path, base="llama-3-8b", **changes):
    """A preset's config with some fields changed or GONE, written to a file."""
    content = json.loads((PRESETS / f"{base}.json").read_text())
    for name, value in changes.items():
        if value is GONE:
            del content[name]
        else:
            content[name] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return path


BROKEN = [
    ("llama-3-8b", {"num_hidden_layers": GONE}, "num_hidden_layers .*is missing"),
    ("llama-3-8b", {"hidden_size": None}, "hidden_size .*is missing"),
    ("llama-3-8b", {"vocab_size": GONE}, "vocab_size is missing"),
    ("llama-3-8b", {"intermediate_size": GONE}, "intermediate_size .*is missing"),
    ("llama-3-8b", {"model_type": GONE}, "model_type is missing"),
    ("llama-3-8b", {"num_hidden_layers": "32"}, "num_hidden_layers='32' must be a whole number"),
    ("llama-3-8b", {"num_hidden_layers": 0}, "num_hidden_layers=0 must be a whole number, 1 or more"),
    ("llama-3-8b", {"num_hidden_layers": True}, "num_hidden_layers=True"),
    ("llama-3-8b", {"hidden_size": 4096.5}, "hidden_size=4096.5"),
    ("llama-3-8b", {"num_key_value_heads": 7}, "num_key_value_heads=7 does not divide num_attention_heads=32"),
    ("llama-3-8b", {"num_key_value_heads": 64}, "num_key_value_heads=64 does not divide"),
    ("llama-3-8b", {"num_attention_heads": 24, "num_key_value_heads": 8}, "head_dim is missing, and hidden_size=4096"),
    ("llama-3-8b", {"n_layer": 31}, "num_hidden_layers=32 contradicts n_layer=31"),
    ("llama-3-8b", {"tie_word_embeddings": "no"}, "tie_word_embeddings='no' must be true or false"),
    ("llama-3-8b", {"model_type": "novel", "num_key_value_heads": GONE}, "num_key_value_heads .*is missing"),
    ("llama-3-8b", {"model_type": "novel", "sliding_window": 4096}, "sliding_window=4096 is set, but layer_types"),
    ("llama-3-8b", {"is_encoder_decoder": True}, "is_encoder_decoder=True means"),
    ("llama-3-8b", {"architectures": ["BertForMaskedLM"]}, "is an encoder"),
    ("llama-3-8b", {"layer_types": ["full_attention"] * 31}, "layer_types lists 31 layers, but num_hidden_layers=32"),
    ("llama-3-8b", {"layer_types": ["sliding_attention"] * 32}, "sliding_window is missing or null"),
    ("llama-3-8b", {"layer_types": ["lightning"] * 32}, "layer_types has 'lightning'"),
    ("llama-3-8b", {"layer_types": ["linear_attention"] * 32}, "linear_num_value_heads is missing"),
    ("qwen3-4b", {"layer_types": ["sliding_attention"] * 36, "sliding_window": 8}, "use_sliding_window is false"),
    ("gpt-oss-20b", {"sliding_window": None}, "sliding_window is missing or null"),
    ("gpt-oss-20b", {"experts_per_token": 8}, "num_experts_per_tok=4 contradicts experts_per_token=8"),
    ("mixtral-8x7b", {"num_experts_per_tok": 9}, "num_experts_per_tok=9 is more than the 8 experts"),
    ("mixtral-8x7b", {"num_experts_per_tok": GONE}, "num_experts_per_tok .*is missing"),
    ("deepseek-v3", {"qk_rope_head_dim": GONE}, "qk_rope_head_dim is missing"),
    ("deepseek-v3", {"intermediate_size": GONE}, "intermediate_size .*is missing"),
    ("deepseek-v3", {"layer_types": ["sliding_attention"] * 61}, "kv_lora_rank is set, but not every layer"),
    ("gemma-3-27b", {"text_config": {"model_type": "gemma3_text", "hidden_size": 8}}, "text_config: num_hidden_layers"),
]


@pytest.mark.parametrize(("base", "changes", "message"), BROKEN, ids=lambda v: "" if isinstance(v, dict) else v[:40])
def test_a_broken_config_names_field_and_file(tmp_path, base, changes, message):
    path = variant(tmp_path, base, **changes)
    with pytest.raises(DataError, match=message) as caught:
        ModelConfig.from_hf(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[1]", "holds a list"), ("\udcff", "is not JSON")],
)
def test_a_file_that_is_no_config(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        ModelConfig.from_hf(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        ModelConfig.from_hf(tmp_path / "absent.json")


def test_an_unknown_architecture_gets_a_cache_but_no_parameter_count(tmp_path):
    config = ModelConfig.from_hf(variant(tmp_path, model_type="novel"), "Novel")
    assert config.kv_bytes(4096) == model("llama-3-8b").kv_bytes(4096)
    with pytest.raises(DataError, match=r"cannot count the parameters exactly.*'novel'"):
        config.parameters()


def test_null_overrules_the_default_of_the_class(tmp_path):
    left_out = ModelConfig.from_hf(variant(tmp_path, "mistral-7b-v0.1", sliding_window=GONE))
    null = ModelConfig.from_hf(variant(tmp_path, "mistral-7b-v0.1", sliding_window=None))
    assert left_out.layers[0].window == 4096 and null.layers[0].window is None


def test_a_window_counts_only_where_it_is_used(tmp_path):
    base = {"base": "qwen3-4b", "sliding_window": 1024, "max_window_layers": 20}
    unused = ModelConfig.from_hf(variant(tmp_path, **base, use_sliding_window=False))
    used = ModelConfig.from_hf(variant(tmp_path, **base, use_sliding_window=True))
    assert {layer.kind for layer in unused.layers} == {"full"}
    assert [layer.window for layer in used.layers] == [None] * 20 + [1024] * 16


def test_layer_rules_stand_in_for_layer_types_that_are_left_out(tmp_path):
    listed = ModelConfig.from_hf(variant(tmp_path, "gpt-oss-20b"))
    assert ModelConfig.from_hf(variant(tmp_path, "gpt-oss-20b", layer_types=GONE)).layers == listed.layers


def test_values_narrower_than_keys(tmp_path):
    path = variant(tmp_path, model_type="novel", head_dim=192, v_head_dim=128)
    assert ModelConfig.from_hf(path).kv_bytes_per_token(1) == 32 * 8 * (192 + 128)


@pytest.mark.parametrize("tokens", [-1, 1.5, float("inf"), float("nan")])
def test_a_number_of_tokens_that_is_none(tokens):
    with pytest.raises(InputError, match="tokens="):
        model("llama-3-8b").kv_bytes(tokens)


@pytest.mark.parametrize("method", ["kv_bytes_per_token", "weight_bytes"])
def test_a_width_that_is_none(method):
    with pytest.raises(InputError, match="must be above 0"):
        getattr(model("llama-3-8b"), method)(0)


def test_no_golden_config_depends_on_fields_of_another():
    """Reading is a function of the file: twice the same result, and the content is not changed."""
    for golden in GOLDEN:
        content = json.loads(golden.path.read_text())
        before = json.dumps(content)
        assert ModelConfig.from_hf(content) == ModelConfig.from_hf(content)
        assert json.dumps(content) == before
