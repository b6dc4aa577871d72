"""Llama, Qwen2 and Qwen3 variants: tiny random models written by transformers and by gguf, read by us, same logits."""

import copy
import json
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="the oracle package transformers is not installed")
gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from labcore.core.errors import DataError  # noqa: E402
from labcore.formats.gguf import GGUFFile  # noqa: E402
from labcore.formats.safetensors_folder import SafetensorsFolder  # noqa: E402
from labcore.kv.contiguous import ContiguousKVCache  # noqa: E402
from labcore.model.config import DecoderConfig  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint, replace_module  # noqa: E402

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]
SHAPE = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
VARIANTS = {
    "llama": ("Llama", {}),
    "llama, tied head": ("Llama", {"tie_word_embeddings": True}),
    "llama, biases": ("Llama", {"attention_bias": True}),
    "llama, head_dim 16 of its own": ("Llama", {"head_dim": 16}),
    "llama, theta 500000": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}),
    "llama 3 context extension": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, linear scaling": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "qwen3, biases": ("Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
}


def reference_model(kind: str, changes: dict):
    """A tiny transformers model with random weights, biases and norms included."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3).add_(1.0 if parameter.ndim == 1 and parameter.shape[0] == 48 else 0.0)
    return model


def expected_logits(model, offset: int):
    """Logits of TOKENS at positions offset, offset + 1, …"""
    positions = torch.arange(offset, offset + len(TOKENS))[None]
    with torch.inference_mode():
        return model(torch.tensor([TOKENS]), position_ids=positions).logits[0]


def our_logits(path, offset: int):
    model = load_model(open_checkpoint(path))
    config = model.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(TOKENS))
    attend = cache.extend([(0, len(TOKENS))])
    with torch.inference_mode():
        return model(torch.tensor(TOKENS), attend.positions + offset, attend)


@pytest.mark.parametrize("name", VARIANTS)
def test_safetensors_variants_have_transformers_logits(tmp_path, name):
    kind, changes = VARIANTS[name]
    model = reference_model(kind, changes)
    model.save_pretrained(tmp_path)
    for offset in (0, 1000):
        expected = expected_logits(model, offset)
        torch.testing.assert_close(our_logits(tmp_path, offset), expected, rtol=1e-4, atol=1e-4)


def test_older_configs_spell_rope_differently(tmp_path):
    """transformers 4 wrote rope_theta and rope_scaling at the top level."""
    model = reference_model("Llama", {"rope_parameters": LLAMA3})
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_scaling"] = {key: value for key, value in config.pop("rope_parameters").items() if key != "rope_theta"}
    config["rope_theta"] = LLAMA3["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(our_logits(tmp_path, 0), expected_logits(model, 0), rtol=1e-4, atol=1e-4)


def test_bf16_shards_are_read_and_widened(tmp_path):
    model = reference_model("Llama", {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    copy.deepcopy(model).bfloat16().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert SafetensorsFolder(tmp_path).tensor("model.norm.weight").dtype == torch.bfloat16
    torch.testing.assert_close(our_logits(tmp_path, 0), expected_logits(model, 0), rtol=1e-4, atol=1e-4)


def interleave(weight, heads: int):
    """llama.cpp's convert_hf_to_gguf.py LlamaModel.permute: rotary halves become neighbouring pairs."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(path, model, arch: str) -> None:
    """The transformers model as llama.cpp's converter would write it, F32 throughout."""
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH_NAMES_INVERSE[arch], config.num_hidden_layers)
    if config.rope_parameters["rope_type"] == "llama3":
        inverse = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
        plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
        writer.add_tensor("rope_freqs.weight", (plain / inverse).numpy())
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch == "llama" and ".q_proj." in name:
            weight = interleave(weight, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            weight = interleave(weight, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.contiguous().numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


gguf.MODEL_ARCH_NAMES_INVERSE = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


@pytest.mark.parametrize("name", [name for name in VARIANTS if "linear" not in name and name != "qwen3, biases"])
def test_gguf_variants_have_transformers_logits(tmp_path, name):
    kind, changes = VARIANTS[name]
    model = reference_model(kind, changes)
    write_gguf(tmp_path / "tiny.gguf", model, kind.lower())
    torch.testing.assert_close(
        our_logits(tmp_path / "tiny.gguf", 1000), expected_logits(model, 1000), rtol=1e-4, atol=1e-4
    )


@pytest.fixture
def tiny_gguf(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, reference_model("Llama", {}), "llama")
    return path


def test_swapped_modules_are_never_filled(tiny_gguf):
    """A transform sees an empty model; what it replaces is not read from the file."""
    checkpoint, asked = open_checkpoint(tiny_gguf), []
    original = checkpoint.tensor
    checkpoint.tensor = lambda name: asked.append(name) or original(name)

    class Half(torch.nn.Module):
        def forward(self, x):
            return x[:, :48] / 2

    def transform(model, given):
        assert given is checkpoint and all(parameter.is_meta for parameter in model.parameters())
        for i in range(2):
            replace_module(model, f"layers.{i}.mlp.down_proj", Half())

    model = load_model(checkpoint, transform=transform)
    assert isinstance(model.layers[1].mlp.down_proj, Half)
    assert not any("down_proj" in name for name in asked) and "layers.1.mlp.up_proj.weight" in asked
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_a_tied_head_is_one_tensor(tmp_path):
    write_gguf(tmp_path / "tied.gguf", reference_model("Llama", {"tie_word_embeddings": True}), "llama")
    checkpoint = open_checkpoint(tmp_path / "tied.gguf")
    model = load_model(checkpoint)
    assert model.lm_head.weight is model.embed_tokens.weight
    raw, format = checkpoint.blocks("lm_head.weight")
    assert format.name == "F32" and raw.shape == (64, 4 * 48)


def test_dtype_is_what_was_asked_for(tiny_gguf):
    model = load_model(open_checkpoint(tiny_gguf), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_loading_shows_progress_on_a_terminal(tiny_gguf, capsys, monkeypatch):
    load_model(open_checkpoint(tiny_gguf), progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    load_model(open_checkpoint(tiny_gguf), progress=True)
    assert "loading tensor 21 of 21\n" in capsys.readouterr().err


BASE = {**SHAPE, "model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, r"architecture 'mamba' is not implemented; llama, qwen2, qwen3 are"),
        ({"hidden_act": "gelu"}, r"hidden_act 'gelu' is not implemented; 'silu' is"),
        ({"mlp_bias": True}, r"mlp_bias is not implemented"),
        ({"use_sliding_window": True}, r"use_sliding_window is not implemented"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, r"rope scaling 'yarn' is not implemented"),
        ({"num_key_value_heads": 4}, r"6 query heads cannot share 4 key-value heads evenly"),
        ({"head_dim": 7}, r"head_dim is 7; rotary embedding needs an even number"),
        ({"num_hidden_layers": 0}, r"n_layers is 0; it must be 1 or more"),
    ],
)
def test_a_config_that_cannot_run_is_one_sentence(changes, message):
    with pytest.raises(DataError, match=message):
        DecoderConfig.from_hf(BASE | changes)


def test_a_missing_field_is_named():
    with pytest.raises(DataError, match=r"config.json: field 'hidden_size' is missing"):
        DecoderConfig.from_hf({key: value for key, value in BASE.items() if key != "hidden_size"})


def edited(path, old: bytes, new: bytes):
    assert len(old) == len(new) and path.read_bytes().count(old) >= 1
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    return path


def test_a_gguf_of_another_architecture_is_one_sentence(tiny_gguf):
    edited(tiny_gguf, b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba")
    with pytest.raises(DataError, match=r"tiny.gguf: architecture 'mamba' is not implemented; llama, qwen2, qwen3 are"):
        open_checkpoint(tiny_gguf)


def test_a_gguf_without_a_needed_key_is_one_sentence(tiny_gguf):
    edited(tiny_gguf, b"llama.block_count", b"llama.block_cou__")
    with pytest.raises(DataError, match=r"metadata has no 'llama.block_count'"):
        open_checkpoint(tiny_gguf)


def test_a_missing_tensor_is_one_sentence(tiny_gguf):
    edited(tiny_gguf, b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight")
    with pytest.raises(DataError, match=r"no tensor 'blk.1.ffn_up.weight' among the file's 21"):
        load_model(open_checkpoint(tiny_gguf))


def test_a_tensor_of_another_shape_is_one_sentence(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf)
    original = checkpoint.tensor
    checkpoint.tensor = lambda name: original(name)[:-1] if name == "norm.weight" else original(name)
    with pytest.raises(DataError, match=r"tensor norm.weight: shape \(47,\) in the file, \(48,\) by configuration"):
        load_model(checkpoint)


def test_a_stored_tensor_of_another_shape_is_refused_before_compiled_code_reads_it(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf)
    checkpoint.shapes["layers.0.mlp.down_proj.weight"] = (48, 95)  # what the configuration would ask for
    with pytest.raises(DataError, match=r"tensor blk\.0\.ffn_down\.weight: shape .* in the file, \(48, 95\) by config"):
        checkpoint.blocks("layers.0.mlp.down_proj.weight")


def test_a_folder_with_tensors_that_would_be_left_out_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    reference_model("Llama", {}).save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    weights = load_file(file)
    scale = {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1)}
    save_file(weights | scale, file)
    with pytest.raises(DataError, match=r"weight_scale_inv and 0 other tensors are no part of a llama model as config"):
        load_model(open_checkpoint(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"its weights are quantized \(fp8\), load the original"):
        load_model(open_checkpoint(tmp_path))


@pytest.mark.parametrize("value", [0, "8", None, 4.5, [4, 4]])
def test_a_count_that_is_none_is_one_sentence(value):
    config = {"model_type": "llama", "num_attention_heads": value, "hidden_size": 48}
    with pytest.raises(DataError, match=r"num_attention_heads is .*; it must be 1 or more, an integer"):
        DecoderConfig.from_hf(config, "config.json")


@pytest.mark.model
def test_smollm2s_configuration(smollm2_path):
    config = DecoderConfig.from_gguf(GGUFFile(smollm2_path))
    assert (config.n_layers, config.hidden, config.intermediate, config.vocab) == (30, 576, 1536, 49_152)
    assert (config.n_heads, config.n_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.rope_theta, config.context, config.tied_embeddings) == (100_000.0, 8192, True)
    assert config.norm_eps == pytest.approx(1e-5, rel=1e-6) and config.rope_factors is None
