"""Round to nearest: half a step, torchao's codes, bytes that add up, and one sentence for what cannot be rounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.packing import pack  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.spec import QuantSpec, bit_planes  # noqa: E402
from tests.quant.layers import weight  # noqa: E402

specs = st.builds(QuantSpec, st.integers(2, 8), st.sampled_from([None, 8, 16, 48]), st.booleans())


@given(spec=specs, seed=st.integers(0, 10_000), scale=st.sampled_from([1e-4, 1.0, 300.0]))
def test_the_error_is_at_most_half_a_step(spec, seed, scale):
    w = scale * weight(5, 48, seed)
    found = quantize_weight(w, spec)
    step = found.scale.repeat_interleave(48 // found.scale.shape[1], 1)
    assert ((found.dequantize() - w).abs() <= step * (0.5 + 1e-9)).all()
    assert found.codes.max() <= spec.highest and (found.zero == found.zero.round()).all()


@given(spec=specs, seed=st.integers(0, 10_000))
def test_zero_is_a_grid_point_and_rows_do_not_know_each_other(spec, seed):
    w = weight(4, 48, seed)
    w[:, ::5] = 0
    found = quantize_weight(w, spec)
    assert (found.dequantize()[:, ::5] == 0).all()
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(quantize_weight(w[order], spec).dequantize(), found.dequantize()[order])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 32])
def test_torchao_chooses_the_same_asymmetric_codes(bits, group):
    ao = pytest.importorskip("torchao.quantization.quant_primitives", reason="the oracle torchao is not installed")
    w, spec = weight(24, 96, dtype=torch.float32), QuantSpec(bits, group)
    block, highest = (1, group or 96), 2**bits - 1
    scale, zero = ao.choose_qparams_affine(
        w, ao.MappingType.ASYMMETRIC, block, torch.uint8, 0, highest, eps=1e-9, zero_point_dtype=torch.int32
    )
    codes = ao.quantize_affine(w, block, scale, zero, torch.uint8, 0, highest)
    found = quantize_weight(w, spec)
    torch.testing.assert_close(found.scale.flatten(), scale.flatten(), rtol=0, atol=0)
    assert torch.equal(found.zero.flatten(), zero.flatten().float())
    assert (found.codes != codes).float().mean() < 1e-3  # torchao multiplies with 1/scale: ties may fall otherwise
    assert (found.codes.int() - codes.int()).abs().max() <= 1


def test_torchao_chooses_the_same_symmetric_codes_but_on_ties():
    ao = pytest.importorskip("torchao.quantization.quant_primitives", reason="the oracle torchao is not installed")
    w, block = weight(24, 96, dtype=torch.float32), (1, 32)
    scale, zero = ao.choose_qparams_affine(w, ao.MappingType.SYMMETRIC, block, torch.int8, -8, 7, eps=1e-9)
    codes = ao.quantize_affine(w, block, scale, zero, torch.int8, -8, 7).int() + 8
    found = quantize_weight(w, QuantSpec(4, 32, symmetric=True))
    torch.testing.assert_close(found.scale.flatten(), scale.flatten(), rtol=1e-6, atol=0)
    differs = found.codes.int() != codes
    size = w.abs().unflatten(1, (-1, 32))
    extremum = (size == size.amax(-1, keepdim=True)).flatten(1)
    assert not (differs & ~extremum).any(), "only a group's extremum lies on a tie"


@given(spec=specs)
def test_bytes_are_those_of_the_packed_codes_scales_and_zeros(spec):
    found = quantize_weight(weight(6, 48), spec)

    def packed(codes):
        return sum(pack((codes >> shift) & (2**width - 1), width).numel() for shift, width in bit_planes(spec.bits))

    zeros = 0 if spec.symmetric else packed(found.zero.to(torch.uint8))
    assert found.nbytes == packed(found.codes) + found.scale.half().nbytes + zeros
    assert sum(width for _, width in bit_planes(spec.bits)) == spec.bits


def test_what_is_stored_differs_by_the_rounding_of_the_scale():
    found = quantize_weight(weight(6, 48), QuantSpec(4, 16))
    torch.testing.assert_close(found.stored().dequantize(), found.dequantize().float(), rtol=2**-11, atol=1e-6)
    with pytest.raises(InputError, match=r"a scale is .* fp16"):
        quantize_weight(1e-9 * weight(6, 48), QuantSpec(4)).stored()


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_scale_outside_the_type_is_one_sentence(symmetric):
    spec = QuantSpec(8, None, symmetric)
    for w, scale in ((weight(4, 48, dtype=torch.float32).sign() * 3e38, "inf"), (torch.full((4, 48), 1e-44), "0")):
        w[:, :24] *= -1
        with pytest.raises(InputError, match=f"the scale of a group is {scale} in torch.float32"):
            quantize_weight(w, spec)
        assert quantize_weight(w.double(), spec).dequantize().isfinite().all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_group_of_zeros_has_the_range_from_minus_1_to_1(symmetric):
    w = weight(2, 16)
    w[0, :8] = 0
    found = quantize_weight(w, QuantSpec(4, 8, symmetric))
    assert found.scale[0, 0] == 2 / 15 and found.zero[0, 0] == 8 and (found.dequantize()[0, :8] == 0).all()


def test_bad_input_is_one_sentence():
    w = weight(4, 576)
    with pytest.raises(InputError, match=r"group=128 does not divide rows of 576 weights; groups that do: .*64.*576"):
        quantize_weight(w, QuantSpec(4, 128))
    w[1, 7] = torch.inf
    with pytest.raises(InputError, match=r"weight \[1, 7\] is inf"):
        quantize_weight(w, QuantSpec(4, 64))
    for bits in (1, 9):
        with pytest.raises(InputError, match=f"bits={bits}"):
            QuantSpec(bits)
    with pytest.raises(InputError, match="group=0"):
        QuantSpec(4, 0)
    with pytest.raises(InputError, match=r"shape \(0, 4\)"):
        quantize_weight(torch.empty(0, 4), QuantSpec(4))
