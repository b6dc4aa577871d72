"""FP8 by hand against torch's casts: every fp16 and bf16 number, every tie, every code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.fp8 import E4M3, E5M2, ScaledFloat8  # noqa: E402

PAIRS = [pytest.param(E4M3, torch.float8_e4m3fn, id="e4m3"), pytest.param(E5M2, torch.float8_e5m2, id="e5m2")]
ALL_CODES = torch.arange(256).to(torch.uint8)


def every_16_bit_number():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    return torch.cat((bits.view(torch.float16).float(), bits.view(torch.bfloat16).float()))


def every_tie(format):
    """Halfway between neighbouring numbers, and the float32 on either side of it."""
    numbers = format.values()[: format.highest + 1].double()
    tie = ((numbers[1:] + numbers[:-1]) / 2).float()
    around = torch.cat((tie, tie.nextafter(torch.tensor(0.0)), tie.nextafter(torch.tensor(torch.inf))))
    return torch.cat((around, -around))


def same_codes(ours, theirs, format):
    """Equal codes; a NaN may carry either sign."""
    nan = format.decode(theirs).isnan()
    return torch.equal(ours[~nan], theirs[~nan]) and format.decode(ours)[nan].isnan().all()


@pytest.mark.parametrize(("format", "dtype"), PAIRS)
def test_every_code_means_what_torch_says(format, dtype):
    torch.testing.assert_close(format.values(), ALL_CODES.view(dtype).float(), rtol=0, atol=0, equal_nan=True)
    assert format.max == torch.finfo(dtype).max


@pytest.mark.parametrize(("format", "dtype"), PAIRS)
def test_encoding_is_torch_s_cast(format, dtype):
    x = torch.cat((every_16_bit_number(), every_tie(format)))
    theirs = x.clamp(-format.max, format.max).to(dtype).view(torch.uint8)  # unclamped, torch's versions differ
    assert same_codes(format.encode(x), theirs, format)


@pytest.mark.parametrize(("format", "beyond"), [(E4M3, 464.0), (E5M2, 61440.0)])
def test_without_saturation_what_rounds_beyond_the_largest_overflows(format, beyond):
    x = torch.cat((every_16_bit_number(), every_tie(format)))
    found = format.decode(format.encode(x, saturate=False))
    over = x.abs() > beyond if format is E4M3 else x.abs() >= beyond  # ties go to the even mantissa: 448, and infinity
    saturated = format.decode(format.encode(x))
    torch.testing.assert_close(found[~over], saturated[~over], rtol=0, atol=0, equal_nan=True)
    assert found[over].isnan().all() if format is E4M3 else torch.equal(found[over], torch.inf * x[over].sign())


def test_e5m2_without_saturation_is_torch_s_cast_of_everything():
    x = every_16_bit_number()
    assert same_codes(E5M2.encode(x, saturate=False), x.to(torch.float8_e5m2).view(torch.uint8), E5M2)


@pytest.mark.parametrize("format", [E4M3, E5M2])
def test_every_number_keeps_its_code(format):
    values = format.decode(ALL_CODES)
    finite = values.isfinite()
    assert torch.equal(format.encode(values)[finite], ALL_CODES[finite])  # minus zero, too
    assert torch.equal(format.encode(values, saturate=False)[~values.isnan()], ALL_CODES[~values.isnan()])
    assert finite.sum() == (254 if format is E4M3 else 248)


@given(x=st.floats(-(2.0**20), 2.0**20, width=32), format=st.sampled_from([E4M3, E5M2]))
def test_the_code_is_the_nearest_number_s(x, format):
    numbers = format.values()[format.values().isfinite()].double()
    found = format.decode(format.encode(torch.tensor([x]))).double()
    assert (found - x).abs() == (numbers - x).abs().min()


@given(
    seed=st.integers(0, 10_000),
    magnitude=st.sampled_from([1e-30, 1e-4, 1.0, 1e4, 1e30]),
    axis=st.sampled_from((-1, -2)),
    group=st.integers(1, 20),
)
def test_a_scale_makes_the_error_relative_to_the_group_at_any_magnitude(seed, magnitude, axis, group):
    x = magnitude * torch.randn(2, 2 * group, 2 * group, generator=torch.Generator().manual_seed(seed))
    format = ScaledFloat8(scaled=True)
    codes, scale = format.quantize(x, axis, group)
    found = format.dequantize(codes, scale, axis=axis, group=group)
    spread = scale.repeat_interleave(group, axis)
    assert ((found - x).abs() <= torch.maximum(2.0**-4 * 1.001 * x.abs(), 2.0**-10 * spread)).all()
    assert torch.equal(format.dequantize(*format.quantize(found, axis, group), axis=axis, group=group), found)


def test_without_a_scale_large_numbers_saturate_and_small_ones_vanish():
    x = torch.tensor([[1000.0, -1000.0, 2.0**-10, 2.0**-9]])
    (codes,) = ScaledFloat8().quantize(x, -1, 4)
    assert ScaledFloat8().dequantize(codes, axis=-1, group=4).tolist() == [[448.0, -448.0, 0.0, 2.0**-9]]


def test_a_group_of_zeros_stays_zero():
    format = ScaledFloat8(scaled=True)
    found = format.dequantize(*format.quantize(torch.zeros(2, 8), -1, 4), axis=-1, group=4)
    assert torch.equal(found, torch.zeros(2, 8))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(scaled, bad):
    with pytest.raises(InputError, match=f"an element is {bad}; keys and values must be finite"):
        ScaledFloat8(scaled=scaled).quantize(torch.tensor([[1.0, bad]]), -1, 2)
