"""Writing block formats: byte for byte what gguf-py and ggml's C library write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.formats.block_encode import ENCODERS, fitting, quantize
from labcore.formats.blocks import FORMATS, dequantize, named
from tests.formats.ggml_library import ggml

LEGACY = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
KQUANTS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def rows(kind: str, count: int = 32, seed: int = 0) -> np.ndarray:
    """float32 [count, 512] of one kind of difficulty."""
    rng = np.random.default_rng(seed)
    x = {
        "normal": lambda: rng.normal(0, 0.03, (count, 512)),
        "laplace": lambda: rng.laplace(0, 0.02, (count, 512)),
        "positive": lambda: rng.random((count, 512)),
        "tiny": lambda: rng.normal(0, 1e-6, (count, 512)),
        "huge": lambda: rng.normal(0, 1e4, (count, 512)),
        "zeros": lambda: np.zeros((count, 512)),
        "constant": lambda: np.full((count, 512), -0.25),
        "outliers": lambda: np.where(rng.random((count, 512)) < 0.01, 5, 0.01) * rng.normal(size=(count, 512)),
        "grid": lambda: rng.integers(-8, 8, (count, 512)) / 8,  # many ties
    }[kind]()
    return x.astype(np.float32)


KINDS = ["normal", "laplace", "positive", "tiny", "huge", "zeros", "constant", "outliers", "grid"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEGACY)
def test_the_bytes_of_gguf_py(name, kind):
    gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
    x = rows(kind)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    if kind == "huge" and name == "F16":
        return  # values above 65504 become infinite there, and an error here; see below
    assert quantize(x, named(name)).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEGACY[3:] + KQUANTS)
def test_the_numbers_of_ggml(name, kind):
    """Equal after dequantization. Bytes: also equal, unless a scale was stored as 0 and the codes mean nothing."""
    format, x = named(name), rows(kind)
    ours, theirs = quantize(x, format), ggml()(x, format)
    same = np.isclose(dequantize(ours, format), dequantize(theirs, format), rtol=0, atol=0)
    assert same.reshape(-1, format.size).all(1).mean() >= 0.97
    error = [np.sqrt(np.mean((dequantize(raw, format).astype(np.float64) - x) ** 2)) for raw in (ours, theirs)]
    assert error[0] <= error[1] * 1.001


@pytest.mark.parametrize("name", KQUANTS)
def test_the_bytes_of_ggml_on_weights(name):
    format, x = named(name), rows("normal", 128)
    blocks = [raw.reshape(-1, format.layout.itemsize) for raw in (quantize(x, format), ggml()(x, format))]
    assert (blocks[0] == blocks[1]).all(1).mean() >= 0.995


@pytest.mark.parametrize("name", KQUANTS)
def test_a_super_block_of_zeros_has_the_bytes_of_ggml(name):
    format, x = named(name), rows("zeros", 1)
    assert quantize(x, format).tobytes() == ggml()(x, format).tobytes()


@pytest.mark.parametrize("name", LEGACY)
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_what_was_written_once_is_written_the_same_again(name, seed):
    """Q4_1 and Q5_1 may store a minimum that moved by half an ulp of fp16; every other legacy type is a fixed point."""
    format = named(name)
    once = dequantize(quantize(rows("normal", 1, seed), format), format)
    again = dequantize(quantize(once, format), format)
    step = np.abs(once).max() / 2 ** (format.bits_per_weight - 1)
    assert np.abs(again - once).max() <= (0 if name in ("F32", "F16", "BF16") else step / 100)


@given(rows_=st.integers(1, 3), blocks=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_every_format_is_a_round_trip_within_its_step(rows_, blocks, seed):
    for name in ENCODERS:
        format = named(name)
        x = np.random.default_rng(seed).normal(size=(rows_, blocks * format.size)).astype(np.float32)
        raw = quantize(x, format)
        assert raw.shape == (rows_, format.row_bytes(x.shape[1]))
        rounding = {"F32": 0, "F16": 2**-11, "BF16": 2**-8}.get(name)
        step = rounding if rounding is not None else 1.5 / (2 ** int(name[1]) - 1)
        assert np.abs(dequantize(raw, format) - x).max() <= step * np.ptp(x) + step * np.abs(x).max()


@pytest.mark.parametrize("name", LEGACY[3:] + KQUANTS)
def test_denormal_weights_are_zeros(name):
    """A scale that small is 0 in fp16; ggml and gguf-py divide by it first, and C says nothing about what comes out."""
    x = np.random.default_rng(0).normal(0, 1e-41, (2, 256)).astype(np.float32)
    format = named(name)
    with np.errstate(all="raise"):
        assert not dequantize(quantize(x, format), format).any()


def test_every_readable_format_can_be_written():
    assert set(ENCODERS) == {format.name for format in FORMATS.values()}


def test_more_bits_err_less():
    x = rows("normal", 64)
    error = {name: float(np.abs(dequantize(quantize(x, named(name)), named(name)) - x).mean()) for name in ENCODERS}
    order = ["Q2_K", "Q3_K", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16", "F32"]
    assert sorted(order, key=error.get, reverse=True) == order


@pytest.mark.parametrize(
    ("asked", "columns", "written"),
    [("Q4_K", 512, "Q4_K"), ("Q4_K", 576, "Q5_0"), ("Q2_K", 576, "Q4_0"), ("Q3_K", 96, "Q4_0"), ("Q5_K", 32, "Q5_1"),
     ("Q6_K", 64, "Q8_0"), ("Q6_K", 33, "F16"), ("Q8_0", 64, "Q8_0"), ("F16", 7, "F16")],
)  # fmt: skip
def test_rows_that_do_not_fit_fall_back_as_in_llama_cpp(asked, columns, written):
    assert fitting(asked, columns).name == written


def test_what_cannot_be_written_is_one_sentence():
    with pytest.raises(InputError, match="'IQ9'"):
        fitting("IQ9", 256)
    with pytest.raises(InputError, match=r"33 weights .* use F16"):
        fitting("Q4_0", 33)
    with pytest.raises(InputError, match=r"100 weights .* Q4_K blocks of 256"):
        quantize(np.zeros((2, 100)), named("Q4_K"))
    bad = np.zeros((2, 64), np.float32)
    bad[1, 40] = np.nan
    with pytest.raises(InputError, match=r"weight \[1, 40\] is nan"):
        quantize(bad, named("Q4_0"))
    bad[1, 40] = 1e9
    with pytest.raises(InputError, match=r"d of Q8_0 block \[1, 32\] is inf"):
        quantize(bad, named("Q8_0"))
    with pytest.raises(InputError, match=r"x of F16 block \[1, 40\] is inf"):
        quantize(bad, named("F16"))
