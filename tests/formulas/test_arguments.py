"""Calling a formula: shapes, units, and refusals in one sentence."""

import numpy as np
import pytest

from labcore.core.errors import InputError, UnitError
from labcore.core.units import Quantity
from labcore.formulas import formula

KV = formula["kv.bytes_per_token"]
HEADS = {"n_layers": 80, "n_kv": 8, "d_h": 128, "b_kv": 2}


def test_scalars_give_a_float():
    assert type(KV(**HEADS)) is float and type(KV(**HEADS | {"n_kv": np.int64(8)})) is float


@pytest.mark.parametrize(
    ("text", "value"),
    [("2.684 GB", 2.684), ("327,680 B/token", 327_680), ("−0.23 GB", -0.23), ("1,234.5 GB", 1234.5), ("1e3 GB", 1000)],
)
def test_quantities_are_read_as_they_are_written(text, value):
    assert Quantity.parse(text).value == value


@pytest.mark.parametrize("text", ["0,5 TB/s", "12,5 GB", "12,50 GB", "1,2,3 GB", "1,2345 GB"])
def test_a_decimal_comma_is_asked_for_again(text):
    with pytest.raises(UnitError, match="is not a number with a unit"):
        Quantity.parse(text)


def test_arrays_broadcast():
    out = formula["kv.bytes"](kappa=327_680, L=np.array([1, 2, 4])[:, None], B=np.array([1, 10]))
    assert out.shape == (3, 2) and out[2, 1] == 327_680 * 40
    assert formula["decode.step_time"](
        b_w=2, P=7e10, F=3e14, beta=2e12, B=np.arange(1, 5), L=0, kappa=1, t_comm=0, t_launch=0
    ).shape == (4,)  # Max of a scalar and an array
    assert formula["kv.capacity.sequences"](
        memory=np.array([1e9, 1e12]), memory_fraction=1, n_gpu=1, b_w=2, P=7e10, L=8192, kappa=327_680, overhead=0
    ).tolist() == [0, 320]


def test_integers_beyond_int64_do_not_wrap():
    assert formula["prefill.flops"](P=10**12, n_layers=128, n_q=256, d_h=256, L=10**7) > 2e19 * 1e0
    assert formula["decode.linear_flops"](P=np.int64(2**40), B=np.int64(2**30)) == 2.0**71


def test_quantities_are_converted():
    assert formula["decode.weight_time"](b_w=2, P=1e9, beta=Quantity(2, "TB/s")) == 1e-3
    assert formula["latency.e2e"](ttft=Quantity(200, "ms"), n_out=11, tpot=Quantity(10, "ms")) == pytest.approx(0.3)
    exact = formula["kv.capacity.free"](
        memory=Quantity(80, "GiB"), memory_fraction=1, b_w=2, P=1e9, n_gpu=1, overhead=Quantity(2, "GB")
    )
    assert exact == 80 * 2**30 - 4e9  # a size in GiB is a size in bytes; nothing to mistake


def test_a_value_knows_its_unit():
    assert formula["kv.bytes"].quantity(kappa=327_680, L=4096, B=1).to("GiB") == Quantity(1.25, "GiB")
    cost = formula["economics.usd_per_mtok"].quantity(price_hour=2.5, throughput=5000, u=1)
    assert cost.unit == "USD/Mtok" and cost.base == pytest.approx(0.1389e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("id", "change", "sentence"),
    [
        ("kv.bytes", {"L": None}, "kv.bytes: L=None is not a number; pass context tokens of a sequence in tokens"),
        (
            "kv.bytes",
            {"L": -3},
            "kv.bytes: L=-3 is refused; context tokens of a sequence (tokens) must be finite and 0",
        ),
        ("kv.bytes", {"L": float("nan")}, "L=nan is refused"),
        ("kv.bytes", {"L": [1, 2, float("inf")]}, "L=inf is refused"),
        ("kv.bytes", {"B": 0}, "must be finite and above 0"),
        ("kv.bytes", {"L": "4096"}, "'4096' is text; write Quantity.parse('4096') or a plain number in tokens"),
        ("kv.bytes", {"L": 1j}, "is not a number"),
        ("kv.bytes", {"L": [1, 2], "B": [1, 2, 3]}, "the shapes of B (3,), L (2,) do not broadcast"),
        ("kv.bytes", {"Kappa": 1}, "kv.bytes takes no input 'Kappa'; did you mean kappa?"),
        ("kv.bytes", {"zzz": 1}, "its inputs are B, L, kappa"),
        ("economics.usd_per_mtok", {"u": 1.2}, "above 0 and at most 1"),
        ("decode.attention_intensity", {"n_q": 8, "n_kv": 64}, "n_kv=64 exceeds n_q=8"),
        ("latency.tpot", {"n_out": 1}, "needs at least 2 output tokens"),
        ("latency.tpot", {"ttft": 9}, "e2e=5 s is below ttft=9 s"),
        ("roofline.max_context", {"R": 7}, "R=7 FLOP/B is not above attention's own 8 FLOP/B"),
        ("decode.kv_equals_weights_batch", {"L": 0}, "L=0 holds no cache"),
        ("moe.experts_hit", {"k": 9}, "k=9 exceeds E=8"),
    ],
)
def test_refusals(id, change, sentence):
    good = dict(
        **{"L": 4096, "B": 1, "kappa": 327_680, "price_hour": 2.5, "throughput": 1e3, "u": 1, "n_q": 64, "n_kv": 8},
        **{"e2e": 5, "ttft": 1, "n_out": 9, "R": 153, "P": 7e10, "n_layers": 80, "d_h": 128, "b_kv": 2, "b_w": 2},
        **{"E": 8, "k": 2},
    )
    values = {i.name: good[i.name] for i in formula[id].inputs} | change
    with pytest.raises(InputError) as caught:
        formula[id](**values)
    message = str(caught.value)
    assert message.startswith(id) and sentence in message and "\n" not in message


def test_missing_inputs_are_described():
    with pytest.raises(InputError) as caught:
        KV(n_layers=80, n_kv=8)
    assert str(caught.value) == (
        "kv.bytes_per_token needs d_h (dimension of one head, elements), "
        "b_kv (bytes of one stored key or value element, B/element); pass d_h=…, b_kv=…"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Quantity(2, "TiB/s"), "2 TiB/s was given where GB/s is meant; write .to('GB/s')"),
        (Quantity(2, "TB"), "2 TB cannot become GB/s"),
        (Quantity(2, "TFLOP/s"), "2 TFLOP/s cannot become GB/s"),
    ],
)
def test_gib_where_gb_is_meant_is_refused(given, sentence):
    with pytest.raises(UnitError) as caught:
        formula["decode.weight_time"](b_w=2, P=1e9, beta=given)
    assert str(caught.value).startswith("decode.weight_time: beta (memory bandwidth of one GPU): ")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_an_array_with_one_point_outside_is_refused_by_that_point():
    with pytest.raises(InputError, match=r"no batch is compute-bound at L=4096 tokens.*L_max = 2903"):
        formula["roofline.crossover_batch_kv"](
            L=[512, 4096], P=68_976_648_192, n_layers=80, n_q=64, d_h=128, kappa=327_680, R=312 / 2.039, b_w=2
        )


def test_no_value_is_an_error_not_infinity():
    with pytest.raises(InputError, match=r"kv\.bytes has no finite value at B=1e\+300"):
        formula["kv.bytes"](B=1e300, L=1e9, kappa=1e9)
