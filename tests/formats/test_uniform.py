"""Uniform grids: half a step, exact on the grid, nothing lost the second time, and torch's own rounding."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.uniform import Uniform  # noqa: E402

FORMATS = [Uniform(bits, symmetric) for bits in (2, 4, 8) for symmetric in (False, True)]
EPS = torch.finfo(torch.float32).eps

formats = st.sampled_from(FORMATS)
axes = st.sampled_from((-1, -2))


def random(groups: int, group: int, axis: int, seed: int, scale: float = 1.0, offset: float = 0.0):
    """[3, rows, columns] with `groups` groups along `axis` and five elements along the other one."""
    shape = (3, 5, groups * group) if axis == -1 else (3, groups * group, 5)
    return scale * (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + offset)


def round_trip(format, x, axis, group):
    return format.dequantize(*format.quantize(x, axis, group), axis=axis, group=group)


def in_groups(x, axis, group):
    return x.unflatten(axis, (-1, group))


@given(
    format=formats,
    axis=axes,
    groups=st.integers(1, 3),
    group=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 37.0, 1e4]),
    offset=st.sampled_from([0.0, 0.5, -3.0, 100.0]),
)
def test_the_error_is_half_a_step_or_what_the_stored_parameters_cut_off(
    format, axis, groups, group, seed, scale, offset
):
    x = random(groups, group, axis, seed, scale, offset)
    assume(x.abs().max() < 6e4)
    codes, step, *zero = format.quantize(x, axis, group)
    found = format.dequantize(codes, step, *zero, axis=axis, group=group)
    parts = in_groups(x, axis, group)
    low, high = parts.amin(axis, keepdim=True), parts.amax(axis, keepdim=True)
    step = step.float().unsqueeze(axis)
    if format.symmetric:
        ends = -format.centre * step, format.centre * step
    else:
        ends = zero[0].float().unsqueeze(axis), zero[0].float().unsqueeze(axis) + format.highest * step
    cut_off = torch.maximum(ends[0] - low, high - ends[1]).clamp(min=0)
    bound = torch.maximum(step / 2, cut_off) + 4 * EPS * parts.abs()
    assert (in_groups(found - x, axis, group).abs() <= bound).all()


@given(format=formats, axis=axes, group=st.integers(2, 40), seed=st.integers(0, 10_000), exponent=st.integers(-8, 4))
def test_grid_points_come_back_exactly(format, axis, group, seed, exponent):
    codes = torch.randint(0, format.highest + 1, (2, 2, group), generator=torch.Generator().manual_seed(seed))
    codes[..., 0], codes[..., 1] = 0, format.highest
    origin = format.centre if format.symmetric else 5
    x = (codes - origin) * 2.0**exponent
    x = x if axis == -1 else x.mT
    assert torch.equal(round_trip(format, x, axis, group), x)


@given(format=formats, axis=axes, group=st.integers(2, 40), seed=st.integers(0, 10_000), offset=st.floats(-2, 2))
def test_quantizing_twice_changes_nothing(format, axis, group, seed, offset):
    x = random(2, group, axis, seed, offset=offset)
    spread = in_groups(x, axis, group)
    assume((spread.amax(axis) - spread.amin(axis)).min() > 0.25)  # else fp16 may not resolve the zero to half a step
    once = round_trip(format, x, axis, group)
    assert torch.equal(round_trip(format, once, axis, group), once)


@given(format=formats, seed=st.integers(0, 10_000), group=st.integers(2, 33))
def test_codes_agree_with_torch_fake_quantize(format, seed, group):
    x = random(4, group, -1, seed).reshape(-1, group)
    codes, step, *zero = format.quantize(x, -1, group)
    shifted = x - (zero[0].float() if zero else 0)
    low, high = (-format.centre, format.centre) if format.symmetric else (0, format.highest)
    zeros = torch.zeros(len(x), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(shifted, step.float().flatten(), zeros, 0, low, high)
    ours = (codes.float() + low) * step.float()
    # torch multiplies by 1/step where we divide: the two may part at a tie, and nowhere else
    tie = ((shifted / step.float()).frac().abs() - 0.5).abs() < 1e-4
    assert torch.equal(ours[~tie], theirs[~tie])
    assert ((ours - theirs).abs() <= step.float() * 1.001).all()


@pytest.mark.parametrize("format", FORMATS, ids=repr)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_group_without_spread_is_finite_and_exact(format, value):
    x = torch.full((2, 64), value)
    found = round_trip(format, x, -1, 32)
    assert torch.equal(found, x) if not format.symmetric else torch.allclose(found, x, rtol=2**-11)


@pytest.mark.parametrize("format", FORMATS, ids=repr)
def test_zero_is_a_level_of_a_symmetric_grid_whose_levels_are_odd_in_number(format):
    x = torch.tensor([[-1.0, -0.2, 0.0, 1.0]])
    found = round_trip(format, x, -1, 4)
    assert (found[0, 2] == 0) == format.symmetric
    assert (format.highest + 1) % 2 == format.symmetric


def test_one_wild_element_spoils_its_own_group_only():
    x = random(4, 32, -1, seed=1)
    wild = x.clone()
    wild[0, 0, 3] = 50.0
    before, after = (round_trip(Uniform(4), one, -1, 32) for one in (x, wild))
    changed = (before != after).reshape(3, 5, 4, 32).any(-1)
    assert changed[0, 0, 0] and changed.sum() == 1


def test_the_two_axes_are_each_others_transpose():
    x = random(2, 16, -1, seed=3)
    assert torch.equal(round_trip(Uniform(4), x, -1, 16), round_trip(Uniform(4), x.mT, -2, 16).mT)


def test_leading_dimensions_do_not_matter():
    x = random(2, 16, -2, seed=4)
    assert torch.equal(round_trip(Uniform(2), x, -2, 16)[1], round_trip(Uniform(2), x[1], -2, 16))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e6])
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_the_parameters_cannot_hold_is_refused(bad, symmetric):
    x = torch.zeros(4, 32)
    x[2, 5] = bad if not symmetric or abs(bad) != 1e6 else 1e7
    with pytest.raises(InputError, match=r"a group's scale or zero is .*, which torch.float16 cannot store"):
        Uniform(8, symmetric).quantize(-x, -1, 32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Uniform(3), "bits=3"),
        (lambda: Uniform(1, symmetric=True), "bits=1: a symmetric grid"),
        (lambda: Uniform(4).quantize(torch.zeros(3, 30), -1, 32), "30 elements along axis -1 are not a whole number"),
        (lambda: Uniform(4).quantize(torch.zeros(3, 32), 1, 32), "axis=1: count axes from the end"),
    ],
)
def test_impossible_formats_and_groups_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
