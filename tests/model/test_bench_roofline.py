"""The roofline suite on a tiny model: what it counts, and that every row is checked."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labcore.bench.ceilings import Ceiling
from labcore.bench.record import RunBuilder
from labcore.model import bench_roofline
from labcore.model.bench import Decoder
from labcore.model.bench_roofline import STEPS, attention_flops, product_flops
from tests.model.tiny import tiny_model

IDS = list(range(40, 60))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def run():
    """A run whose ceilings nothing reaches."""
    named = (("read_bandwidth", "B/s"), ("matmul.fp32", "FLOP/s"))
    return RunBuilder("cpu", 1, [Ceiling(n, 1, "fp32", "op", "1", 1e15, "1", unit, (1.0,)) for n, unit in named])


def test_the_flops_of_the_products_are_those_torch_counts(model):
    with FlopCounterMode(display=False) as counter:
        model(torch.tensor(IDS), torch.arange(len(IDS)), lambda layer, q, k, v: q)  # attention left out
    assert counter.get_total_flops() == len(IDS) * product_flops(model)


def test_the_flops_of_attention_are_those_torch_counts(model):
    heads, size, context = model.config.n_heads, model.config.head_dim, 11
    q, keys = torch.randn(heads, 1, size), torch.randn(heads, context, size)
    with FlopCounterMode(display=False) as counter:
        (q @ keys.mT) @ keys
    assert model.config.n_layers * counter.get_total_flops() == attention_flops(model, context)


def test_every_row_is_right_and_a_wrong_one_is_said_to_be(model, run):
    alone = Decoder(model, IDS, 1, 40)
    alone.run(STEPS)
    rows = [bench_roofline.step_row(run, model, IDS, 2, alone.tokens), bench_roofline.prefill_row(run, model, IDS)]
    rows += [bench_roofline.product_row(run, model, 2)] if torch.backends.mkldnn.is_available() else []
    assert all(run.add(row)["correct"]["pass"] for row in rows)
    wrong = bench_roofline.step_row(run, model, IDS, 2, alone.tokens + 1)
    assert wrong.correct["pass"] is False


def test_a_sloppy_product_is_not_correct(model, run, monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    honest = bench_roofline.F.linear
    monkeypatch.setattr(bench_roofline.F, "linear", lambda x, w: honest(x.bfloat16(), w.bfloat16()).float())
    assert bench_roofline.product_row(run, model, 2).correct["pass"] is False
