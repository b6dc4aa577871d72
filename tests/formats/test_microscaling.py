"""FP4 under scales against torchao and ml_dtypes, and FP8 tiles against torch's cast."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.formats import microscaling, scaled_fp8
from labcore.formats.fp8 import E4M3, E5M2
from labcore.formats.microscaling import decode_e2m1, encode_e2m1
from labcore.formats.uniform import Uniform

NUMBERS = decode_e2m1(torch.arange(16, dtype=torch.uint8))


def matrix(rows, columns, seed=0, spread=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator)
    return x * torch.exp(spread * torch.randn(rows, columns, generator=generator))


def hard_rows():
    """Zeros, one outlier, powers of two, denormals, huge numbers."""
    x = matrix(8, 64, seed=3)
    x[0], x[1, 5], x[2] = 0, 1e4, torch.ldexp(torch.ones(64), torch.arange(64) - 40)
    x[3], x[4] = x[3] * 1e-42, x[4] * 1e37
    return x


@pytest.fixture(scope="module")
def torchao():
    pytest.importorskip("torchao", reason="the oracle package torchao is not installed")
    from torchao.prototype.mx_formats import mx_tensor, nvfp4_tensor

    return mx_tensor, nvfp4_tensor


def test_e2m1_is_the_format_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the oracle package ml_dtypes is not installed")
    x = torch.cat((torch.linspace(-6, 6, 12_001), torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.0])))
    theirs = x.numpy().astype(ml_dtypes.float4_e2m1fn)
    assert encode_e2m1(x).numpy().tobytes() == theirs.view(np.uint8).tobytes()
    assert NUMBERS.tolist()[:8] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert encode_e2m1(torch.tensor([9.0, -1e9])).tolist() == [7, 15]


@pytest.mark.parametrize("x", [matrix(16, 96), matrix(4, 512, spread=3.0), hard_rows()], ids=["normal", "wide", "hard"])
def test_mxfp4_is_torchao_s(torchao, x):
    scale, codes = torchao[0].to_mx(x.contiguous(), torch.float4_e2m1fn_x2, 32)
    ours = microscaling.mxfp4(x)
    assert ours.scale.equal(scale.view(torch.uint8))
    assert ours.packed.equal(codes.view(torch.uint8))


@pytest.mark.parametrize("x", [matrix(16, 96), matrix(4, 512, spread=3.0)], ids=["normal", "wide"])
def test_nvfp4_is_torchao_s(torchao, x):
    tensor_scale = torchao[1].per_tensor_amax_to_scale(x.abs().max())
    scale, codes = torchao[1].nvfp4_quantize(x.contiguous(), 16, tensor_scale)
    ours = microscaling.nvfp4(x)
    assert ours.tensor_scale.equal(tensor_scale)
    assert ours.scale.equal(scale.view(torch.uint8))
    assert ours.packed.equal(codes.view(torch.uint8))


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99), st.sampled_from([0.0, 2.0]))
def test_elements_take_the_nearest_number_under_their_scale(rows, blocks, seed, spread):
    x = matrix(rows, 32 * blocks, seed, spread)
    for ours in (microscaling.mxfp4(x), microscaling.nvfp4(x)):
        scale = ours.scales.repeat_interleave(ours.block, -1)
        best = (NUMBERS[:, None, None] * scale - x).abs().amin(0)
        assert torch.allclose((ours.dequantize() - x).abs(), best, rtol=1e-5)


def test_bits_per_weight_count_every_scale():
    x = matrix(64, 256)
    assert microscaling.mxfp4(x).bits_per_weight == 4.25
    assert microscaling.nvfp4(x).bits_per_weight == 4.5 + 32 / x.numel()
    assert scaled_fp8.quantize(x, scaled_fp8.TENSOR).bits_per_weight == 8 + 32 / x.numel()
    assert scaled_fp8.quantize(x, scaled_fp8.ROW).bits_per_weight == 8 + 32 / 256
    assert scaled_fp8.quantize(x, scaled_fp8.BLOCK).scale.shape == (1, 2)


def test_zeros_stay_zeros():
    x = torch.zeros(2, 64)
    for quantized in (microscaling.mxfp4(x), microscaling.nvfp4(x), scaled_fp8.quantize(x)):
        assert quantized.dequantize().count_nonzero() == 0


@pytest.mark.parametrize(("format", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)])
@pytest.mark.parametrize("tile", [(None, None), (1, None), (128, 128), (1, 128), (3, 7)], ids=str)
def test_fp8_tiles_are_torch_s_cast_under_the_same_scale(tile, format, dtype):
    x = matrix(10, 20, spread=2.0) if tile == (3, 7) else matrix(130, 200, spread=2.0)
    ours = scaled_fp8.quantize(x, tile, format)
    rows, columns = ours.tile
    for i in range(ours.scale.shape[0]):
        for j in range(ours.scale.shape[1]):
            at = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scale = x[at].abs().max() / torch.finfo(dtype).max
            limit = torch.finfo(dtype).max
            assert ours.scale[i, j] == scale
            theirs = (x[at] / scale).clamp(-limit, limit).to(dtype)
            assert ours.codes[at].equal(theirs.view(torch.uint8))
            assert ours.dequantize()[at].equal(theirs.float() * scale)


def test_what_cannot_be_quantized_is_one_sentence():
    bad = torch.ones(2, 32)
    bad[1, 3] = float("nan")
    for quantize in (microscaling.mxfp4, microscaling.nvfp4, scaled_fp8.quantize):
        with pytest.raises(InputError, match=r"element \[1, 3\] is nan"):
            quantize(bad)
        with pytest.raises(InputError, match=r"element \[1, 3\] is inf"):  # in float32
            quantize(bad.double().nan_to_num(1e300))
    with pytest.raises(InputError, match="33 elements"):
        microscaling.mxfp4(torch.ones(2, 33))
    with pytest.raises(InputError, match=r"shape \(2, 0\)"):
        microscaling.nvfp4(torch.ones(2, 0))
    with pytest.raises(InputError, match=r"tile=\(0, None\)"):
        scaled_fp8.quantize(torch.ones(2, 2), (0, None))
    with pytest.raises(InputError, match="a matrix"):
        scaled_fp8.quantize(torch.ones(2))


@pytest.mark.parametrize("largest", [1e-44, 7.8e-36, 1e-30])
def test_numbers_too_small_for_a_scale_round_to_zero_or_near_themselves(largest):
    x = torch.zeros(1, 32)
    x[0, 0] = largest
    for made in (microscaling.nvfp4(x), scaled_fp8.quantize(x), scaled_fp8.quantize(x, scaled_fp8.TENSOR)):
        back = made.dequantize()
        assert back[0, 1:].eq(0).all() and 0 <= back[0, 0] <= 1.1 * largest


def test_a_group_of_nothing_is_refused():
    for group in (0, -4):
        with pytest.raises(InputError, match=f"group={group}: a group has at least one element"):
            Uniform(4).quantize(matrix(2, 8), -1, group)
