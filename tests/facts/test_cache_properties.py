"""Cache arithmetic over random models: linear where attention is full, monotone, capped where it slides."""

from hypothesis import given
from hypothesis import strategies as st

from labcore.facts import ModelConfig
from labcore.facts.browser import layer_groups

KINDS = ("full_attention", "sliding_attention", "linear_attention")


@st.composite
def configs(draw, kinds=KINDS):
    """A random config.json of a llama-like model, with the given layer types."""
    n_layers, kv_heads = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    return {
        "model_type": "random",
        "num_hidden_layers": n_layers,
        "hidden_size": draw(st.integers(8, 512)),
        "num_attention_heads": kv_heads * draw(st.integers(1, 8)),
        "num_key_value_heads": kv_heads,
        "head_dim": draw(st.integers(1, 256)),
        "intermediate_size": 64,
        "vocab_size": 100,
        "sliding_window": draw(st.integers(1, 500)),
        "layer_types": draw(st.lists(st.sampled_from(kinds), min_size=n_layers, max_size=n_layers)),
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
    }


tokens = st.integers(0, 2000)
widths = st.sampled_from([0.5, 1, 2, 4])


def plain_sum(c, n, width):
    """The same bytes, layer by layer and head by head, straight from the config."""
    per_token = {"full_attention": n, "sliding_attention": min(n, c["sliding_window"]), "linear_attention": 0}
    return sum(2 * c["num_key_value_heads"] * c["head_dim"] * per_token[kind] * width for kind in c["layer_types"])


@given(configs(), tokens, widths)
def test_bytes_are_the_plain_sum_over_layers(config, n, width):
    assert ModelConfig.from_hf(config).kv_bytes(n, width) == plain_sum(config, n, width)


@given(configs(kinds=KINDS[:1]), tokens, tokens, widths)
def test_full_attention_is_linear_in_tokens(config, a, b, width):
    model = ModelConfig.from_hf(config)
    assert model.kv_bytes(a, width) + model.kv_bytes(b, width) == model.kv_bytes(a + b, width)
    assert model.kv_bytes(a, width) == a * model.kv_bytes_per_token(width)


@given(configs(), tokens, st.integers(0, 500))
def test_more_tokens_never_need_less_and_at_most_one_more_share_each(config, n, more):
    model = ModelConfig.from_hf(config)
    grown = model.kv_bytes(n + more) - model.kv_bytes(n)
    assert 0 <= grown <= more * model.kv_bytes_per_token()


@given(configs(kinds=KINDS[1:]), tokens)
def test_windows_cap_the_cache(config, n):
    model, window = ModelConfig.from_hf(config), config["sliding_window"]
    assert model.kv_bytes(window + n) == model.kv_bytes(window) == window * model.kv_bytes_per_token()


@given(configs(kinds=KINDS[:2]), tokens)
def test_a_wide_window_is_no_window(config, n):
    narrow = ModelConfig.from_hf(config).kv_bytes(n)
    wide = ModelConfig.from_hf(config | {"sliding_window": max(n, 1)}).kv_bytes(n)
    assert (
        narrow
        <= wide
        == ModelConfig.from_hf(config | {"layer_types": ["full_attention"] * config["num_hidden_layers"]}).kv_bytes(n)
    )


@given(configs())
def test_state_does_not_depend_on_tokens_and_counts_linear_layers_only(config):
    model = ModelConfig.from_hf(config)
    linear = config["layer_types"].count("linear_attention")
    assert model.state_bytes() == linear * (4 * 4 * 8 * 16 + 2 * (2 * 2 * 8 + 4 * 16) * 3)
    assert model.n_kv_layers == config["num_hidden_layers"] - linear


@given(configs(), tokens)
def test_the_groups_for_the_browser_hold_every_layer(config, n):
    model = ModelConfig.from_hf(config)
    groups = layer_groups(model.layers)
    assert sum(group["count"] for group in groups) == model.n_layers
    kept = sum(g["count"] * g.get("kv_elements", 0) * min(n, g.get("window", n)) for g in groups)
    assert 2 * kept == model.kv_bytes(n)
