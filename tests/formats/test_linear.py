"""The block linears against the dequantized weights they stand for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import DataError  # noqa: E402
from labcore.formats.blocks import FORMATS, dequantize  # noqa: E402
from labcore.formats.linear import FEW_ROWS, Int4BlockLinear, Q8BlockHead, int4_codes  # noqa: E402

BY_NAME = {format.name: format for format in FORMATS.values()}


def blocks(name: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random raw rows of a format, with scales of the size that weights have."""
    format, generator = BY_NAME[name], np.random.default_rng(seed)
    records = np.zeros((rows, columns // format.size), dtype=format.layout)
    for field in format.layout.names:
        shape = records[field].shape
        if field in ("d", "m"):
            records[field] = generator.normal(0, 0.02, shape)
        else:
            low, high = (-127, 128) if records[field].dtype == np.int8 else (0, 256)
            records[field] = generator.integers(low, high, shape)
    return records.view(np.uint8).reshape(rows, -1)


@given(st.sampled_from(["Q4_0", "Q4_1"]), st.integers(0, 2**32 - 1))
def test_codes_scale_and_centre_are_the_block(name, seed):
    raw = blocks(name, 8, 64, seed)
    codes, scale, centre = int4_codes(raw, BY_NAME[name])
    weights = np.repeat(scale, 32, axis=1) * (codes.astype(np.float32) - 8) + np.repeat(centre, 32, axis=1)
    np.testing.assert_allclose(weights, dequantize(raw, BY_NAME[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1"])
@pytest.mark.parametrize("rows", [1, 3, FEW_ROWS, FEW_ROWS + 1, 40])
def test_int4_linear_multiplies_by_the_dequantized_weights(name, rows):
    raw = blocks(name, 96, 128, seed=rows)
    exact = torch.from_numpy(dequantize(raw, BY_NAME[name]))
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(rows)).bfloat16()
    y = Int4BlockLinear(raw, BY_NAME[name])(x)
    assert y.dtype == torch.bfloat16 and y.shape == (rows, 96)
    same_dtype = (torch.nn.functional.linear(x, exact.bfloat16()).float() - x.float() @ exact.T).norm()
    assert (y.float() - x.float() @ exact.T).norm() <= 2 * same_dtype  # twice the error of plain bf16


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
def test_q8_head_multiplies_by_the_dequantized_table(rows):
    raw = blocks("Q8_0", 200, 96, seed=7)
    exact = torch.from_numpy(dequantize(raw, BY_NAME["Q8_0"]))
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows)).bfloat16()
    logits = Q8BlockHead(raw, BY_NAME["Q8_0"], exact.bfloat16())(x)
    assert logits.dtype == torch.float32 and logits.shape == (rows, 200)
    wanted = x.float() @ exact.T
    assert (logits - wanted).norm() <= 0.004 * wanted.norm()  # bf16 rounding of 3 partial products: 2^-9 each


def test_scales_of_the_head_are_not_rounded():
    """One block and x = 1 on one code: the logit is the fp16 scale times an integer, which bf16 cannot hold."""
    raw = blocks("Q8_0", 16, 32, seed=3)
    record = raw.view(BY_NAME["Q8_0"].layout)
    record["qs"], record["d"] = 1, np.float16(1.0009765625)  # the fp16 after 1; bf16 rounds it to 1
    x = torch.zeros(1, 32).bfloat16()
    x[0, 0] = 1
    assert Q8BlockHead(raw, BY_NAME["Q8_0"], torch.zeros(16, 32).bfloat16())(x)[0, 0].item() == 1.0009765625


def test_other_formats_are_refused_by_name():
    raw = blocks("Q8_0", 4, 32, seed=0)
    with pytest.raises(DataError, match="Q8_0; the int4 kernel reads Q4_0 and Q4_1"):
        Int4BlockLinear(raw, BY_NAME["Q8_0"])
    raw = blocks("Q4_1", 4, 32, seed=0)
    with pytest.raises(DataError, match="Q4_1; the 8-bit head reads Q8_0"):
        Q8BlockHead(raw, BY_NAME["Q4_1"], torch.zeros(4, 32))
