"""What transformers really caches: a small model of each family runs once, and its cache tensors are counted."""

import pytest

from labcore.facts import ModelConfig

transformers = pytest.importorskip("transformers", reason="transformers, the oracle of cache sizes, is missing")
torch = pytest.importorskip("torch", reason="torch is missing")
CLASSES = transformers.models.auto.configuration_auto.CONFIG_MAPPING
TOKENS = 7

LLAMA_LIKE = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA_LIKE |= {"intermediate_size": 16, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
WIDE = LLAMA_LIKE | {"head_dim": 24, "sliding_window": 5}
KINDS = ["sliding_attention", "sliding_attention", "full_attention"]
GEMMA4 = WIDE | {"layer_types": KINDS}
GEMMA4 |= {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}  # else tables of 67 M weights a layer
FALCON = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 64}

MODELS = [
    ("llama", LLAMA_LIKE),
    ("llama", LLAMA_LIKE | {"head_dim": 24}),
    ("mistral", WIDE),
    ("mixtral", WIDE | EXPERTS),
    ("qwen2", LLAMA_LIKE | {"sliding_window": 5, "use_sliding_window": False}),
    ("qwen2", LLAMA_LIKE | {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1}),
    ("qwen3", WIDE | {"use_sliding_window": True, "max_window_layers": 2}),
    ("phi3", LLAMA_LIKE | {"sliding_window": 5}),
    ("gemma", LLAMA_LIKE | {"head_dim": 24}),
    ("gemma2", WIDE),
    ("gemma3_text", WIDE | {"num_hidden_layers": 7}),
    ("gemma3_text", WIDE | {"num_hidden_layers": 4, "sliding_window_pattern": 2}),
    ("gemma4_text", GEMMA4 | {"global_head_dim": 40}),
    ("gemma4_text", GEMMA4 | {"global_head_dim": 40, "attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    ("gemma4_text", GEMMA4 | {"num_hidden_layers": 6, "layer_types": KINDS * 2, "num_kv_shared_layers": 3}),
    ("gpt_oss", WIDE | EXPERTS | {"num_hidden_layers": 4}),
    ("cohere2", WIDE | {"num_hidden_layers": 5}),
    ("falcon", FALCON | {"multi_query": True, "new_decoder_architecture": False}),
    ("falcon", FALCON | {"multi_query": False, "new_decoder_architecture": False}),
    ("gpt2", {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 64}),
    (
        "opt",
        {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "ffn_dim": 16, "vocab_size": 64}
        | {"max_position_embeddings": 64, "word_embed_proj_dim": 32, "do_layer_norm_before": True},
    ),
]


def measured(model_type, content, tokens):
    """Elements that each layer of a freshly built model holds after `tokens` tokens."""
    config = CLASSES[model_type].from_dict(content)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        cache = model(torch.ones(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    layers = [layer for layer in cache.layers if layer.keys is not None]  # a layer that shares has no cache
    held = [(layer.keys.numel() + layer.values.numel(), layer.keys.shape[-2]) for layer in layers]
    return sum(elements for elements, _ in held), [kept for _, kept in held]


def test_falcon_shares_heads_that_transformers_writes_out():
    """Engines cache Falcon's num_kv_heads; transformers repeats them for every query head before it caches."""
    content = FALCON | {"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 2}
    config = ModelConfig.from_hf({"model_type": "falcon"} | content)
    repeats = config.n_heads // config.n_kv_heads
    assert measured("falcon", content, tokens=3)[0] == repeats * config.kv_bytes(3, 1) == 2 * config.kv_bytes(3, 1)


@pytest.mark.parametrize(("model_type", "content"), MODELS, ids=[f"{i}-{m[0]}" for i, m in enumerate(MODELS)])
def test_the_cache_holds_what_the_config_says(model_type, content):
    config = ModelConfig.from_hf({"model_type": model_type} | content)
    elements, _ = measured(model_type, content, tokens=3)  # no window is full yet
    assert config.kv_bytes(3, 1) == elements

    _, kept = measured(model_type, content, TOKENS)
    owners = [layer for layer in config.layers if layer.kv_elements]
    # after a step transformers drops the token that the next step would push out of the window
    assert kept == [TOKENS if layer.window is None else layer.window - 1 for layer in owners]
