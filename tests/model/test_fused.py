"""The fused decoder is the plain one: same outputs, same memory, whatever the projections and the cache are."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.kv.contiguous import ContiguousKVCache  # noqa: E402
from labcore.model.fused import FusedBlock, fused  # noqa: E402
from labcore.model.loader import replace_module  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

KINDS = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}, "biases": {"output_bias": True}}


def logits(model, tokens=7):
    config = model.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=tokens + 1)
    attend = cache.extend([(0, tokens)])
    return model(torch.arange(tokens) * 5, attend.positions, attend)


def varied(**kind):
    """A tiny model whose norms and biases are not the ones and zeros of a new module."""
    model = tiny_model(head_dim=16, **kind)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 7])  # one alone takes the way of `kernels.gemv`
@torch.inference_mode()
def test_same_logits(kind, tokens):
    model = varied(**KINDS[kind])
    expected = logits(model, tokens)
    twin = fused(model)
    assert all(type(layer) is FusedBlock for layer in twin.layers)
    torch.testing.assert_close(logits(twin, tokens), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-5, atol=1e-5)  # which still works


def test_weights_are_shared_and_joined_once():
    model = tiny_model(head_dim=16)
    first, second = fused(model).layers[0], fused(model).layers[0]
    for name in ("qkv", "gate_up"):
        assert getattr(first, name).weight.data_ptr() == getattr(second, name).weight.data_ptr()
    with torch.no_grad():
        model.layers[0].self_attn.k_proj.weight.zero_()
    n, n_kv, size = model.config.n_heads, model.config.n_kv_heads, model.config.head_dim
    heads = first.qkv.weight.unflatten(0, (-1, size))
    assert not heads[n : n + n_kv].any() and heads[:n].any() and heads[n + n_kv :].any()


class Doubled(torch.nn.Module):
    """Stands for a quantized layer: no nn.Linear."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return 2 * self.linear(x)


@torch.inference_mode()
def test_projections_that_are_not_plain_stay_apart():
    model = tiny_model(head_dim=16)
    for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        replace_module(model, f"layers.0.{name}", Doubled(model.get_submodule(f"layers.0.{name}")))
    torch.testing.assert_close(logits(fused(model)), logits(model), rtol=1e-5, atol=1e-5)


def test_layers_that_are_something_else_are_left_alone():
    model = tiny_model()
    model.layers = torch.nn.ModuleList([torch.nn.Identity()])
    assert fused(model) is model
