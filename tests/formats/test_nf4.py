"""Four-bit codebooks: the tables of bitsandbytes, its bytes, and its double quantization."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.formats import nf4

bnb = pytest.importorskip("bitsandbytes.functional", reason="the oracle package bitsandbytes is not installed")
SHAPES = [(256, 64), (24, 1536), (7, 33), (1, 5), (3, 64), (1,)]


def weight(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.03


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_tables_are_bit_equal_to_bitsandbytes(kind):
    assert nf4.levels(kind).equal(bnb.get_4bit_type(kind, device="cpu"))


def test_the_dynamic_map_is_bit_equal_to_bitsandbytes():
    assert nf4.dynamic_map().equal(bnb.create_dynamic_map())


@pytest.mark.parametrize("block", [32, 64, 256])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nf4_bytes_are_those_of_bitsandbytes(shape, block):
    x = weight(shape)
    packed, state = bnb.quantize_4bit(x, blocksize=block, quant_type="nf4")
    ours = nf4.quantize(x, "nf4", block)
    assert ours.packed.equal(packed.flatten())
    assert ours.absmax.equal(state.absmax)
    if shape[-1] % 2 == 0:  # bitsandbytes compiles a kernel with torch's compiler for the others: half a minute
        assert ours.dequantize().equal(bnb.dequantize_4bit(packed, state).view(shape))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[-1] % 2 == 0], ids=str)
def test_fp4_values_are_those_of_bitsandbytes(shape):
    """Not the bytes: 0 has two codes."""
    x = weight(shape)
    packed, state = bnb.quantize_4bit(x, blocksize=64, quant_type="fp4")
    assert nf4.quantize(x, "fp4").dequantize().equal(bnb.dequantize_4bit(packed, state).view(shape))


def test_double_quantization_is_that_of_bitsandbytes():
    """Its CPU kernel looks a magnitude up in a table of 65,536 places: only there do its codes differ, and by one."""
    x = weight((576, 1536))
    packed, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
    ours = nf4.quantize(x, double=True)
    assert ours.packed.equal(packed.flatten())
    assert ours.absmax.offset.equal(state.offset) and ours.absmax.scale.equal(state.state2.absmax)
    magnitudes = nf4.quantize(x).absmax - ours.absmax.offset
    snapped = ours.absmax.scale.repeat_interleave(256)[: len(magnitudes)]
    snapped = (((magnitudes / snapped + 1) * 0.5 * 65535 + 0.5).int() / 65535 * 2 - 1).float()
    table = nf4.dynamic_map()
    nearest = (snapped[:, None] - table).abs().argmin(1)
    assert nearest.equal(state.absmax.long())
    apart = (ours.absmax.codes.long() - state.absmax.long()).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 0.005


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 80), st.sampled_from(["nf4", "fp4"]), st.integers(0, 99))
def test_every_element_takes_its_nearest_level(count, block, kind, seed):
    x = weight((count,), seed)
    ours = nf4.quantize(x, kind, block)
    scale = ours.absmax.repeat_interleave(block)[:count]
    best = (nf4.levels(kind)[:, None] * scale - x).abs().amin(0)
    assert torch.allclose((ours.dequantize() - x).abs(), best, atol=1e-8)
    assert len(ours.packed) == -(-count // 2)


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(0, 99))
def test_the_largest_element_of_a_block_survives_if_positive_or_negative(count, seed):
    x = weight((count,), seed)
    block = x.abs().argmax()
    assert nf4.quantize(x, "nf4", 256).dequantize()[block].item() == pytest.approx(x[block].item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_tie_goes_to_the_lower_level(kind):
    table = nf4.levels(kind).unique()
    ties = (table[1:] + table[:-1]) / 2
    x = torch.cat((ties, torch.ones(32 - len(ties))))
    packed, state = bnb.quantize_4bit(x, blocksize=32, quant_type=kind)
    for numbers in (nf4.quantize(x, kind, 32).dequantize(), bnb.dequantize_4bit(packed, state).view(-1)):
        assert numbers[: len(ties)].equal(table[:-1])


def test_zeros_stay_zeros():
    for double in (False, True):
        assert nf4.quantize(torch.zeros(3, 70), double=double).dequantize().count_nonzero() == 0


def test_bits_per_weight():
    x = weight((256, 256))
    assert nf4.quantize(x).bits_per_weight == 4.5
    assert nf4.quantize(x, double=True).bits_per_weight == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)


def test_what_cannot_be_quantized_is_one_sentence():
    with pytest.raises(InputError, match=r"element \[1\] is inf"):
        nf4.quantize(torch.tensor([1.0, float("inf")]))
    with pytest.raises(InputError, match=r"element \[1\] is inf"):
        nf4.quantize(torch.tensor([1.0, 1e300], dtype=torch.float64))
    with pytest.raises(InputError, match="0 elements"):
        nf4.quantize(torch.zeros(0))
    with pytest.raises(InputError, match="block=0"):
        nf4.quantize(torch.ones(4), block=0)
    with pytest.raises(InputError, match="'nf3'"):
        nf4.quantize(torch.ones(4), "nf3")
