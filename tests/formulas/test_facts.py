"""Formulas against the recorded models and hardware: two counts of the same bytes, made independently."""

import pytest

from labcore import facts
from labcore.core.units import Quantity
from labcore.formulas import formula
from tests.formulas import worked

MODELS = [facts.model(id) for id in facts.model_ids()]


def only(*kinds: str) -> list:
    """Models whose layers are all of these kinds."""
    return [pytest.param(m, id=m.id) for m in MODELS if {layer.kind for layer in m.layers} <= set(kinds)]


@pytest.mark.parametrize("config", only("full", "sliding"))
@pytest.mark.parametrize("tokens", [1, 4096, 131_072])
def test_layer_by_layer_bytes_are_the_hybrid_formula(config, tokens):
    windows = {layer.window for layer in config.layers if layer.window}
    assert len(windows) <= 1
    local = sum(layer.kind == "sliding" for layer in config.layers)
    heads = {"n_kv": config.n_kv_heads, "d_h": config.head_dim, "b_kv": 2}
    layers = {"n_local": local, "n_global": len(config.layers) - local}
    value = formula["kv.hybrid_bytes"](B=1, L=tokens, W=max(windows, default=tokens), **layers, **heads)
    assert value == config.kv_bytes(tokens, 2)


@pytest.mark.parametrize("config", only("full", "sliding"))
def test_bytes_per_token(config):
    value = formula["kv.bytes_per_token"](n_layers=config.n_layers, n_kv=config.n_kv_heads, d_h=config.head_dim, b_kv=1)
    assert value == config.kv_bytes_per_token(1)


@pytest.mark.parametrize("config", only("mla"))
def test_latent_bytes_per_token(config):
    latent = {"d_c": config.mla.kv_rank, "d_R": config.mla.rope_dim}
    value = formula["kv.mla_bytes_per_token"](n_layers=config.n_layers, b_kv=2, **latent)
    assert value == config.kv_bytes_per_token(2)


def test_worked_numbers_use_the_recorded_hardware_and_models():
    for device, peak, bandwidth in (
        ("a100-80-sxm", worked.F_A100, worked.A100),
        ("a100-80-pcie", worked.F_A100, worked.A100_PCIE),
        ("a100-40-sxm", worked.F_A100, worked.A100_40),
        ("h100-sxm", worked.F_H100, worked.H100),
        ("h200", worked.F_H100, worked.H200),
    ):
        recorded = facts.hardware(device)
        assert Quantity(recorded.bandwidth, "B/s").to(bandwidth.unit).value == pytest.approx(bandwidth.value, rel=1e-12)
        assert recorded.peak["bf16"] == pytest.approx(peak.base, rel=1e-3)
    for id, values in (("llama-2-70b", worked.LLAMA2_70B), ("llama-3-70b", worked.LLAMA3_70B)):
        m = facts.model(id)
        assert values == {"P": m.parameters(), "n_layers": m.n_layers, "n_q": m.n_heads, "d_h": m.head_dim}
