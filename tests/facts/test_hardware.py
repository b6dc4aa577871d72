"""Devices: the figures the book relies on, the shape of every row, and what is said about a bad one."""

import dataclasses

import pytest

from labcore import facts
from labcore.core.errors import DataError, InputError

IDS = "t4 l4 a10 rtx-4090 a100-40-pcie a100-40-sxm a100-80-pcie a100-80-sxm h100-pcie h100-sxm h200 b200 mi300x tpu-v5e"

# bf16 TFLOP/s, TB/s and FLOP/B, dense
RIDGES = [
    ("a100-40-pcie", 312, 1.555, 200.6),
    ("a100-40-sxm", 312, 1.555, 200.6),
    ("a100-80-pcie", 312, 1.935, 161.2),
    ("a100-80-sxm", 312, 2.039, 153.0),
    ("h100-sxm", 989.4, 3.35, 295.3),
    ("h200", 989.4, 4.8, 206.1),
    ("b200", 2250, 8.0, 281.25),
]


def test_every_promised_device_is_there():
    assert facts.hardware_ids() == (*IDS.split(), "laptop")


@pytest.mark.parametrize(("id", "tflops", "tbps", "ridge"), RIDGES)
def test_peak_bandwidth_and_ridge(id, tflops, tbps, ridge):
    device = facts.hardware(id)
    assert device.peak["bf16"] == device.flops("bf16") == pytest.approx(tflops * 1e12, rel=1e-12)
    assert device.bandwidth == pytest.approx(tbps * 1e12, rel=1e-12)
    assert round(device.peak["bf16"] / device.bandwidth, 1) == round(ridge, 1)


@pytest.mark.parametrize("id", facts.hardware_ids())
def test_rates_are_dense_and_plausible(id):
    """Halving the width doubles a tensor rate at most; a factor of four over the width would be a sparse figure."""
    peak = facts.hardware(id).peak
    for wide, narrow, at_most in (
        ("bf16", "fp8", 2.01),
        ("fp8", "fp4", 2.01),
        ("fp16", "int8", 4.01),  # Ada's INT8 is four times its FP16 with FP32 accumulation
        ("int8", "int4", 2.01),
    ):
        if wide in peak and narrow in peak:
            assert 1 <= peak[narrow] / peak[wide] <= at_most
    assert "bf16" not in peak or peak.get("fp16", peak["bf16"]) == peak["bf16"]


def test_a_format_the_device_lacks_is_absent_and_named():
    a100, t4 = facts.hardware("a100-80-sxm"), facts.hardware("t4")
    assert "fp8" not in a100.peak and "bf16" not in t4.peak and "int4" not in facts.hardware("h100-sxm").peak
    with pytest.raises(InputError, match="A100 80GB SXM does not compute in 'fp8': it has fp32, tf32, bf16"):
        a100.flops("fp8")


def test_an_80_gb_card_reports_more_than_80_gb():
    a100 = facts.hardware("a100-80-sxm")
    assert a100.memory_bytes == 80 * 10**9
    assert round(a100.usable_bytes / 2**30, 2) == 79.15 and round(a100.usable_bytes / 1e9, 2) == 84.99
    assert a100.capacity_bytes == a100.usable_bytes
    assert facts.hardware("t4").usable_bytes is None and facts.hardware("t4").capacity_bytes == 16 * 10**9


def test_interconnects_count_one_direction():
    assert facts.hardware("h100-sxm").interconnect_bandwidth == 900e9 / 2
    assert facts.hardware("a100-80-sxm").interconnect_bandwidth == 600e9 / 2


@pytest.mark.parametrize(
    ("id", "message"),
    [("h100", "did you mean h200 or h100-sxm or h100-pcie"), ("A100-80-SXM", "a100-80-sxm"), ("?", "use .*'laptop'")],
)
def test_an_unknown_id_names_close_ones(id, message):
    with pytest.raises(InputError, match=message):
        facts.hardware(id)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peak", {"fp8": 0.0}, r"peak\.fp8=0\.0 must be above 0; leave out a format"),
        ("peak", {"fp16_sparse": 1.0}, r"peak has \['fp16_sparse'\]"),
        ("bandwidth", -1.0, "hardware h200: bandwidth=-1.0 must be above 0"),
        ("source", "", "source is empty"),
        ("as_of", "last year", "as_of='last year' is not a date"),
        ("kind", "fpga", "kind='fpga'"),
    ],
)
def test_a_bad_row_is_refused(field, value, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(facts.hardware("h200"), **{field: value})


def test_facts_cannot_be_changed():
    device = facts.hardware("h200")
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.bandwidth = 1
    with pytest.raises(TypeError):
        device.peak["bf16"] = 1
