"""The references of the roofline lab are the book's formulas, on every model and device they are used with."""

from __future__ import annotations

import numpy as np
import pytest

from labcore import facts
from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.learn.labs import lab01_references as ref

MODELS = [facts.model(id) for id in ("llama-2-7b", "llama-2-70b", "llama-3-8b", "falcon-7b", "smollm2-135m")]
DEVICES = [facts.hardware(id) for id in ("a100-80-sxm", "h100-sxm", "b200")]
CASES = [(model, device) for model in MODELS for device in DEVICES]


def shape(model):
    return {"P": model.parameters(), "n_layers": model.n_layers, "n_q": model.n_heads, "d_h": model.head_dim}


@pytest.mark.parametrize(("model", "device"), CASES, ids=lambda one: one.id)
def test_references_are_the_formulas(model, device):
    peak, bandwidth = device.flops("bf16"), device.bandwidth
    ridge, kappa = peak / bandwidth, model.kv_bytes_per_token()
    linear = formula["decode.linear_intensity"](B=7, b_w=2)
    assert ref.attainable(np.array([linear]), peak, bandwidth)[0] == pytest.approx(
        formula["roofline.attainable"](F=peak, intensity=linear, beta=bandwidth)
    )
    assert ref.crossover_batch({16: peak}, bandwidth, 4, 16) == pytest.approx(
        formula["roofline.crossover_batch"](R=ridge, b_w=0.5)
    )
    for batch, context in ((1, 1), (64, 700), (500, 4096)):
        assert sum(ref.step_seconds(model, batch, context, peak, bandwidth, 2)) == pytest.approx(
            formula["decode.step_time"](
                P=model.parameters(),
                B=batch,
                L=context,
                b_w=2,
                kappa=kappa,
                F=peak,
                beta=bandwidth,
                t_comm=0,
                t_launch=0,
            )
        )
        assert ref.step_intensity(model, batch, context, 2) == pytest.approx(
            formula["roofline.intensity_kv"](B=batch, L=context, b_w=2, kappa=kappa, **shape(model))
        )


@pytest.mark.parametrize(("model", "device"), CASES, ids=lambda one: one.id)
@pytest.mark.parametrize("context", [0, 100, 1000, 2903, 2904, 50_000])
def test_none_exactly_where_the_formula_refuses(model, device, context):
    ridge = device.flops("bf16") / device.bandwidth
    args = {"R": ridge, "b_w": 2, "kappa": model.kv_bytes_per_token(), "L": context, **shape(model)}
    mine = ref.crossover_kv(model, context, ridge, 2)
    if mine is None:
        with pytest.raises(InputError, match="no batch is compute-bound"):
            formula["roofline.crossover_batch_kv"](**args)
    else:
        assert mine == pytest.approx(formula["roofline.crossover_batch_kv"](**args))
        assert ref.step_intensity(model, mine, context, 2) == pytest.approx(ridge)


def test_experts_hit_meets_the_expectation_under_uniform_routing():
    generator = np.random.default_rng(1)
    routing = np.argsort(generator.random((2000, 16, 64)), axis=-1)[..., :4]
    assert ref.experts_hit(routing) == pytest.approx(formula["moe.experts_hit"](E=64, k=4, B=16), rel=0.01)


@pytest.mark.parametrize(("model", "device"), [c for c in CASES if c[0].context], ids=lambda one: one.id)
def test_the_ends_of_the_context_find_every_counterexample(model, device):
    peak, bandwidth = device.flops("bf16"), device.bandwidth
    contexts = np.unique(np.geomspace(1, model.context, 60).astype(int))
    for claimed in (1, 50, 156, 300, 5000):
        lowest = min(ref.step_intensity(model, claimed, int(context), 2) for context in contexts)
        found = ref.counterexample(model, claimed, peak, bandwidth, 2)
        assert (found is not None) == (lowest < peak / bandwidth)
