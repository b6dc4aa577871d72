"""The roofline suite on a tiny model: what it counts, how it splits a step, and that every row is checked."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labcore.bench.ceilings import Ceiling
from labcore.bench.record import RunBuilder
from labcore.model import bench_roofline
from labcore.model.bench import Decoder
from labcore.model.bench_roofline import STEPS, Parts, WatchedDecoder, attention_flops, product_flops
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


def test_a_step_splits_into_parts_that_add_up(model):
    found = bench_roofline.split(model, IDS, 3)
    config = model.config
    assert found["operators"]["linear"] >= 7 * config.n_layers + 1
    assert found["operators"]["attention"] > 3 * config.n_layers and found["operators"]["other"] > 0
    assert set(found["seconds"]) == set(bench_roofline.PARTS) and min(found["seconds"].values()) > 0
    more = bench_roofline.split(model, IDS, 6)
    assert more["operators"]["linear"] == found["operators"]["linear"], "one product for all sequences"
    assert more["operators"]["attention"] > 1.5 * found["operators"]["attention"], "one attention a sequence"


def test_watching_changes_no_token_and_leaves_no_hook(model):
    parts = Parts()
    plain, watched = Decoder(model, IDS, 2, 40), WatchedDecoder(parts, model, IDS, 2, 40)
    with parts.watching(model):
        plain.run(STEPS)
        watched.run(STEPS)
    assert torch.equal(plain.tokens, watched.tokens)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_time_belongs_to_the_part_it_passed_in(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(bench_roofline.time, "perf_counter", lambda: next(clock))
    parts = Parts()
    parts.enter("linear")  # one second of other, then two of linear, then four of attention
    parts.enter("attention")
    parts.enter("other")
    assert parts.seconds == {"other": 1.0, "linear": 2.0, "attention": 4.0}


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
