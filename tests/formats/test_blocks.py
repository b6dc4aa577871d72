"""Every block format, bit for bit against the gguf package and against hand-decoded blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import DataError
from labcore.formats.blocks import FORMATS, BlockFormat, block_format, dequantize

gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # random bytes hold fp16 NaN and inf

ALL = sorted(FORMATS.values(), key=lambda f: f.id)


def bits_equal(ours: np.ndarray, reference: np.ndarray) -> bool:
    """Same bits everywhere; NaN payloads apart, which depend on operand order."""
    same = ours.view(np.uint32) == reference.view(np.uint32)
    return ours.shape == reference.shape and bool(np.all(same | (np.isnan(ours) & np.isnan(reference))))


@pytest.mark.parametrize("format", ALL, ids=lambda f: f.name)
def test_sizes_are_ggmls(format: BlockFormat):
    kind = gguf.GGMLQuantizationType(format.id)
    assert kind.name == format.name
    assert gguf.GGML_QUANT_SIZES[kind] == (format.size, format.layout.itemsize)


@pytest.mark.parametrize("format", ALL, ids=lambda f: f.name)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), blocks=st.integers(1, 9))
def test_random_bytes_decode_like_gguf(format: BlockFormat, seed: int, rows: int, blocks: int):
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * format.layout.itemsize), dtype=np.uint8)
    reference = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(format.id))
    assert bits_equal(dequantize(raw, format), reference)


@pytest.mark.parametrize("format", ALL, ids=lambda f: f.name)
@pytest.mark.parametrize("byte", [0x00, 0x01, 0x03, 0xFF], ids=hex)
def test_extreme_blocks_decode_like_gguf(format: BlockFormat, byte: int):
    """All-zero blocks, denormal scales and all-ones blocks."""
    raw = np.full((2, 3 * format.layout.itemsize), byte, dtype=np.uint8)
    assert bits_equal(dequantize(raw, format), gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(format.id)))


def test_tensors_larger_than_one_step_are_joined_in_order():
    q4_1 = block_format(3)
    raw = np.random.default_rng(0).integers(0, 256, (70, 50 * q4_1.layout.itemsize), dtype=np.uint8)
    assert raw.size // q4_1.layout.itemsize > 3 * 2**15 // 32
    whole = dequantize(raw, q4_1)
    assert bits_equal(whole, np.stack([dequantize(row, q4_1) for row in raw]))


def test_q4_1_by_hand():
    """d = 0.5, m = -1; byte 0 holds weight 0 in its low nibble and weight 16 in its high one."""
    scales = np.array([0.5, -1.0], dtype="<f2").view(np.uint8)
    raw = np.concatenate([scales, np.array([0xF2] + [0] * 15, dtype=np.uint8)])
    weights = dequantize(raw, block_format(3))
    assert weights[0] == 0.5 * 2 - 1 and weights[16] == 0.5 * 15 - 1
    assert np.all(np.delete(weights, [0, 16]) == -1)


def test_bits_per_weight_and_row_bytes():
    assert block_format(3).bits_per_weight == 5.0
    assert block_format(12).bits_per_weight == 4.5
    assert block_format(3).row_bytes(576) == 360
    with pytest.raises(DataError, match="576 weights is not a whole number of Q4_K blocks of 256"):
        block_format(12).row_bytes(576)


def test_an_unreadable_type_is_named():
    with pytest.raises(DataError, match=r"IQ4_XS \(ggml id 23\); readable: F32, F16"):
        block_format(23)
    with pytest.raises(DataError, match=r"unknown \(ggml id 99\)"):
        block_format(99)
