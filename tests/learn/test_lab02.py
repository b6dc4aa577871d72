"""The references of the KV-cache lab agree with the library: its caches, its formats, its facts and its formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labcore import facts
from labcore.formats.uniform import Uniform
from labcore.formulas import formula
from labcore.kv.contiguous import ContiguousKVCache
from labcore.kv.mla import random_latent_attention
from labcore.kv.windows import SlidingWindowKVCache
from labcore.learn.labs import lab02_references as ref
from labcore.learn.labs.lab02_sizes import CALCULATORS
from labcore.learn.labs.lab02_smaller import drawn_latents
from labcore.learn.labs.lab02_tools import empty_cache, expanded_attention, full_pass, published_config, window_mask
from tests.model.tiny import tiny_model

CLOSE = {"rtol": 0, "atol": 1e-5}
# The config.json of these says what a layer keeps in words that lab 2 leaves to facts: GPT-2's names, Falcon's spelling
# of KV heads, Gemma 3's unwritten pattern of windows, linear-attention layers.
OTHER_WORDS = {"gpt-3-175b", "falcon-7b", "falcon-180b", "gemma-3-27b", "qwen3.5-35b-a3b"}
MODELS = [facts.model(id) for id in facts.model_ids() if id not in OTHER_WORDS]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def ids(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 250, (n,), generator=torch.Generator().manual_seed(seed))


def through(model, cache, tokens, pieces):
    """Logits of the library's cache, the tokens arriving in passes of so many."""
    rows = []
    for piece in tokens.split(pieces):
        attend = cache.extend([(0, len(piece))])
        rows.append(model(piece, attend.positions, attend))
    return torch.cat(rows)


@pytest.mark.parametrize("pieces", [[9], [5, 1, 1, 2], [1] * 9, [3, 6]], ids=str)
def test_cached_pass_is_the_librarys_cache_and_a_pass_without_any(model, pieces):
    tokens, cache = ids(9), empty_cache(model, 9)
    mine = torch.cat([ref.cached_pass(model, cache, piece) for piece in tokens.split(pieces)])
    shape = model.config.n_layers, model.config.n_kv_heads, model.config.head_dim
    library = ContiguousKVCache(*shape, slots=1, capacity=9)
    torch.testing.assert_close(mine, through(model, library, tokens, pieces), **CLOSE)
    torch.testing.assert_close(mine, full_pass(model, tokens), **CLOSE)
    torch.testing.assert_close(cache.keys, library.keys[:, 0], **CLOSE)
    assert cache.length == library.lengths[0] == 9


@pytest.mark.parametrize("window", [1, 3, 4, 20])
def test_a_stream_without_sinks_is_the_librarys_sliding_window(model, window):
    tokens, config = ids(12), model.config
    library = SlidingWindowKVCache([window] * config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=12)
    mine = ref.stream_logits(model, tokens, 0, window)
    torch.testing.assert_close(mine, through(model, library, tokens, [1] * 12), **CLOSE)


@pytest.mark.parametrize(("sinks", "window"), [(1, 1), (2, 4), (4, 3), (6, 10)])
def test_a_stream_is_one_pass_under_a_mask(model, sinks, window):
    tokens = ids(14)
    mine = ref.stream_logits(model, tokens, sinks, window)
    torch.testing.assert_close(mine, full_pass(model, tokens, window_mask(14, sinks, window)), **CLOSE)


def test_the_broken_stream_is_right_exactly_as_long_as_the_window(model):
    """What the lab promises: each error hides until something has to be forgotten."""
    for sinks, window in ((0, 4), (2, 4), (3, 6)):
        tokens = ids(14)
        off = ref.broken_stream_logits(model, tokens, sinks, window) - ref.stream_logits(model, tokens, sinks, window)
        first = int((off.abs().amax(1) > 1e-3).nonzero()[0, 0])
        assert first == window


@pytest.mark.parametrize("config", MODELS, ids=lambda one: one.id)
@pytest.mark.parametrize("tokens", [1, 100, 4096, 100_000])
def test_kv_bytes_are_the_facts(config, tokens):
    assert ref.kv_bytes(published_config(config.id), tokens) == config.kv_bytes(tokens)


def test_layers_that_slide_without_a_window_keep_every_token():
    config = published_config("gpt-oss-20b")
    plain = {k: v for k, v in config.items() if k not in ("sliding_window", "layer_types")}
    assert "sliding_attention" in config["layer_types"]
    assert ref.kv_bytes(config | {"sliding_window": None}, 5000) == ref.kv_bytes(plain, 5000)


@pytest.mark.parametrize("id", ["falcon-180b", "gemma-3-27b"])
def test_what_the_lab_leaves_out_its_function_gets_wrong_as_the_lab_says(id):
    assert ref.kv_bytes(published_config(id), 100_000) != facts.model(id).kv_bytes(100_000)


def test_kv_bytes_are_the_formulas():
    llama, deepseek = facts.model("llama-3-8b"), published_config("deepseek-v3")
    kappa = formula["kv.bytes_per_token"](n_layers=32, n_kv=8, d_h=128, b_kv=2)
    assert ref.kv_bytes(published_config(llama.id), 100) == formula["kv.bytes"](kappa=kappa, L=100, B=1)
    mla = formula["kv.mla_bytes_per_token"](n_layers=61, d_c=512, d_R=64, b_kv=2)
    assert ref.kv_bytes(deepseek, 1) == mla
    window = formula["kv.window_bytes"](kappa=kappa, L=32_768, W=4096, B=1)
    assert ref.kv_bytes(published_config("mistral-7b-v0.1"), 32_768) == window


@pytest.mark.parametrize("id", ["llama-3-70b", "llama-3-8b", "llama-2-7b"])
@pytest.mark.parametrize("n_gpu", [1, 2, 8, 16])
@pytest.mark.parametrize(("context", "fraction", "overhead"), [(8192, 0.92, 2.0), (1000, 1.0, 0.0)])
def test_sequences_that_fit_are_the_formula(id, n_gpu, context, fraction, overhead):
    model, gib = facts.model(id), 79.15
    rank = formula["kv.tp.bytes_per_token"](
        n_layers=model.n_layers, n_kv=model.n_kv_heads, d_h=model.head_dim, b_kv=2, n_gpu=n_gpu
    )
    wanted = formula["kv.capacity.sequences"](
        memory=gib * 2**30,
        memory_fraction=fraction,
        b_w=2,
        P=model.parameters(),
        n_gpu=n_gpu,
        overhead=overhead * 1e9,
        L=context,
        kappa=rank * n_gpu,
    )
    assert ref.sequences_that_fit(model, context, n_gpu, gib, fraction, overhead) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_absorbed_is_expanded(seed):
    args = drawn_latents(np.random.default_rng(seed), heads=3, tokens=7)
    torch.testing.assert_close(ref.latent_attention(*args), expanded_attention(*args))


def test_absorbed_is_the_librarys_layer():
    layer = random_latent_attention(hidden=12, n_heads=3, d_h=4, d_c=6, d_r=2, rotate=lambda x, positions: x)
    h = torch.randn(7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    latents, rotary_keys = layer.compress(h, torch.arange(7))
    content, rotary = (one[:, 0] for one in layer.queries(h[-1:], torch.tensor([6])))
    heads = ref.latent_attention(content, rotary, latents, rotary_keys, layer.w_uk, layer.w_uv)
    wanted = layer.absorbed(h[-1:], torch.tensor([6]), latents, rotary_keys)
    torch.testing.assert_close((heads.flatten() @ layer.w_o.T)[None], wanted)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("group", [2, 8])
def test_quantize_is_the_librarys_format(bits, axis, group):
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(bits))
    x[:8, 0] = 3.0  # a group without spread
    mine, library = ref.quantize(x, bits, axis, group), Uniform(bits, parameter_dtype=torch.float32)
    for one, other in zip(mine, library.quantize(x, axis, group), strict=True):
        torch.testing.assert_close(one, other)
    back = library.dequantize(*mine, axis=axis, group=group)
    steps = mine[1].repeat_interleave(group, axis)
    assert ((back - x).abs() <= steps / 2 + 1e-6).all()


def test_the_gallery_refutes_every_wrong_calculator_and_holds_nothing_idle(monkeypatch):
    wrong = {one.name for one in CALCULATORS if one.blind}
    assert {one.name for one in CALCULATORS if ref.refute(one) is not None} == wrong
    assert len(wrong) == len(CALCULATORS) - 2
    needed = 0
    for config in ref.GALLERY[1:]:  # the first is what the others are made of
        monkeypatch.setattr(ref, "GALLERY", [one for one in ref.GALLERY if one is not config])
        needed += {one.name for one in CALCULATORS if ref.refute(one) is not None} != wrong
        monkeypatch.undo()
    assert needed >= 4


def test_every_calculator_is_right_about_llama_3_8b_or_wrong_by_a_factor():
    """A published figure for one model proves little: most wrong calculators agree with it."""
    config = published_config("llama-3-8b")
    agree = {one.name for one in CALCULATORS if abs(one(config, 4096) / ref.kv_bytes(config, 4096) - 1) < 0.05}
    assert {one.name for one in CALCULATORS} - agree == {"A", "B"}
