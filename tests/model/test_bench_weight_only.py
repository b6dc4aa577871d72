"""The weight-only suite on two small matrices: what it counts, and that a wrong product is noticed."""

import numpy as np
import pytest
import torch

from labcore.bench.ceilings import Ceiling
from labcore.bench.record import RunBuilder
from labcore.formats import block_encode, blocks
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.bench_weight_only import row

pytestmark = pytest.mark.skipif(
    why_unavailable() is not None or not torch.backends.mkldnn.is_available(), reason="the compiled kernel or oneDNN"
)


@pytest.fixture
def matrices():
    """Two weights in fp32, and as layers over the same Q4_1 blocks."""
    rng, format = np.random.default_rng(0), blocks.named("Q4_1")
    raws = [block_encode.quantize(rng.normal(size=(64, 128)).astype("f"), format) for _ in range(2)]
    return [torch.from_numpy(blocks.dequantize(raw, format)) for raw in raws], [BlockLinear(r, format) for r in raws]


@pytest.fixture
def run():
    """A machine that nothing outruns, with a ridge of 10 FLOP/B."""
    named = (("read_bandwidth", "B/s", 1e15), ("matmul.fp32", "FLOP/s", 1e16))
    return RunBuilder("cpu", 1, [Ceiling(n, 1, "fp32", "op", "1", rate, "1", unit, (1.0,)) for n, unit, rate in named])


def test_a_row_counts_stored_bytes_and_predicts_from_both_limits(matrices, run):
    one, many = (row(run, *matrices, batch) for batch in (1, 64))
    weights = 2 * 64 * 128
    assert one.config["bits"] == 5 and one.bytes == weights * 5 / 8 and one.flops == 2 * weights
    assert one.predicted == pytest.approx(one.bytes / 1e15) and one.config["bound"] == pytest.approx(32 / 5)
    assert many.predicted == pytest.approx(64 * 2 * weights / 1e16) and many.config["bound"] == 1
    assert all(run.add(found)["correct"]["pass"] for found in (one, many))


def test_a_wrong_product_is_not_correct(matrices, run):
    wide, narrow = matrices
    assert row(run, [w + 0.1 for w in wide], narrow, 2).correct["pass"] is False
