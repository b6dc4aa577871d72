"""GPTQ: nothing but OBS in a fixed order, whatever the blocks; and every plausible slip in it is seen."""

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.quant import gptq as module  # noqa: E402
from labcore.quant.gptq import damped, gptq, hessian, inverse_factor, layer_loss  # noqa: E402
from labcore.quant.obq import eliminate, obq, obs_sequential  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from tests.quant.layers import inputs, problem, weight  # noqa: E402

grids = st.builds(QuantSpec, st.sampled_from([2, 3, 4, 8]), st.sampled_from([None, 8, 16]), st.booleans())


def gap(algorithm, spec, seed=0, **options) -> float:
    """How far `algorithm` is from sequential OBS with explicit inverses, in float64, and from its own loss."""
    w, h = problem(seed=seed)
    found = algorithm(w, h, spec, groups="static", **options)
    expected, loss = obs_sequential(w, damped(h, 0.01), spec)
    true = layer_loss(w, found.weight.dequantize(), damped(h, 0.01))
    away = (found.weight.dequantize() - expected.dequantize()).abs().max().item()
    return max(away, abs(found.loss / loss - 1), abs(found.loss / true - 1))


@settings(max_examples=15)
@given(spec=grids, seed=st.integers(0, 1000), block=st.sampled_from([1, 7, 16, 128]))
def test_gptq_is_sequential_obs_and_its_loss_is_the_quadratic_form(spec, seed, block):
    assert gap(gptq, spec, seed, block=block) < 1e-10


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("/ u[column, column]", "/ u[column, column] ** 2"),
        ("live[:, i:] -= errors", "live[:, i:] += errors"),
        ("w[:, end:] -= errors @ u[start:end, end:]", "pass"),
        ("u[column, column:end]", "u[column, :end - column]"),
        ("* u[column, column:end]", "* u[i, column:end]"),
        ("errors.square().sum().item() / 2", "errors.square().sum().item()"),
    ],
)
def test_slips_are_seen(right, wrong):
    """Each is a bug that real implementations had: a block-local index, a skipped lazy update, a sign, a factor."""
    text = inspect.getsource(module.round_columns)
    assert text.count(right) == 1
    scope = dict(vars(module))
    exec(text.replace(right, wrong), scope)
    exec(inspect.getsource(gptq), scope)  # once more, so that it calls the changed one
    try:
        assert gap(scope["gptq"], QuantSpec(4), block=16) > 1e-3
    except RuntimeError as shapes:
        assert "size" in str(shapes)


@settings(max_examples=15)
@given(spec=grids, seed=st.integers(0, 1000))
def test_uncorrelated_inputs_leave_nothing_to_make_up_for(spec, seed):
    w = weight(6, 48, seed)
    for order in ("none", "act"):
        for groups in ("static", "fresh", "reference"):
            found = gptq(w, torch.eye(48, dtype=w.dtype), spec, order=order, groups=groups)
            if order == "none" or groups == "static":
                assert torch.equal(found.weight.codes, quantize_weight(w, spec).codes)


@settings(max_examples=15)
@given(
    bits=st.sampled_from([2, 4]),
    group=st.sampled_from([None, 12]),
    groups=st.sampled_from(["static", "fresh"]),
    order=st.sampled_from(["none", "act"]),
    block=st.integers(1, 60),
)
def test_blocks_change_nothing(bits, group, groups, order, block):
    w, h = problem()
    one, other = (gptq(w, h, QuantSpec(bits, group), block=b, groups=groups, order=order) for b in (48, block))
    assert torch.equal(one.weight.codes, other.weight.codes)
    torch.testing.assert_close(one.weight.scale, other.weight.scale, rtol=1e-10, atol=1e-12)


def test_reference_groups_are_blind_to_the_block_they_stand_in():
    w, h = problem(columns=64)
    spec = QuantSpec(3, 16)
    fresh, blind = (gptq(w, h, spec, groups=groups).weight.dequantize() for groups in ("fresh", "reference"))
    assert not torch.equal(fresh, blind)
    by_group = gptq(w, h, spec, groups="reference", block=16).weight
    assert torch.equal(by_group.codes, gptq(w, h, spec, groups="fresh").weight.codes), "blocks no longer than groups"


@pytest.mark.parametrize("groups", ["reference", "fresh", "static"])
def test_act_order_goes_by_activation_energy_and_finds_its_columns_again(groups):
    w, h = problem()
    found = gptq(w, h, QuantSpec(4, 12), order="act", groups=groups)
    energy = h.diagonal()[found.permutation]
    assert (energy.diff() <= 0).all()
    delta = w - found.weight.dequantize()
    expected = layer_loss(w, w - delta, damped(h, found.damp))
    if groups == "static":
        assert found.weight.g_idx is None
    assert found.loss == pytest.approx(expected, rel=1e-9)


def test_act_order_does_not_care_how_the_columns_were_numbered():
    w, h = problem()
    shuffle = torch.randperm(48, generator=torch.Generator().manual_seed(3))
    found = gptq(w, h, QuantSpec(3), order="act").weight.dequantize()
    shuffled = gptq(w[:, shuffle], h[shuffle][:, shuffle], QuantSpec(3), order="act").weight.dequantize()
    torch.testing.assert_close(shuffled, found[:, shuffle], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bits", [3, 4])
def test_less_is_lost_than_by_rounding_and_by_energy_less_than_greedily(bits):
    w, h = problem(out=16, columns=32, tokens=256)
    h = damped(h, 0.01)
    spec = QuantSpec(bits)
    rounded = layer_loss(w, quantize_weight(w, spec).dequantize(), h)
    fixed, greedy = obs_sequential(w, h, spec)[1], obq(w, h, spec)[1]
    acted = gptq(w, h, spec, damp=0, order="act").loss
    assert max(fixed, greedy, acted) < rounded / 1.5
    assert acted < min(fixed, greedy)


def test_the_greedy_order_takes_the_cheapest_weight_first_and_pays_the_quadratic_form():
    w, h = problem(out=3, columns=10, tokens=40)
    found, loss = obq(w, h, QuantSpec(3))
    assert loss == pytest.approx(layer_loss(w, found.dequantize(), h), rel=1e-9)
    grid = quantize_weight(w, QuantSpec(3))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    first = ((w - grid.dequantize()) ** 2 / inverse.diagonal()).argmin(1)
    for row, q in enumerate(first):  # a weight that comes first is rounded from where it was
        assert found.codes[row, q] == grid.codes[row, q]


@given(size=st.integers(2, 12), q=st.integers(0, 11))
def test_elimination_inverts_the_smaller_hessian(size, q):
    q = q % size
    h = hessian(inputs(40, size))
    left = [i for i in range(size) if i != q]
    smaller = eliminate(torch.linalg.inv(h), q)[left][:, left]
    torch.testing.assert_close(smaller, torch.linalg.inv(h[left][:, left]), rtol=1e-8, atol=1e-8)


def test_the_factor_holds_every_shrinking_inverse():
    _, h = problem(columns=12)
    u, damp = inverse_factor(h, 0.01)
    assert damp == 0.01
    for q in range(12):
        inverse = torch.linalg.inv(damped(h, 0.01)[q:, q:])
        torch.testing.assert_close(u[q, q] * u[q, q:], inverse[0], rtol=1e-8, atol=1e-8)


def test_dead_columns_become_zero():
    w = weight(6, 48)
    x = inputs(96, 48)
    x[:, 5], x[:, 40] = 0, 0
    found = gptq(w, hessian(x), QuantSpec(4, 16))
    assert (found.weight.dequantize()[:, [5, 40]] == 0).all()
    assert found.weight.dequantize()[:, 6].abs().sum() > 0
    assert gptq(w, hessian(x), QuantSpec(4, 16), damp=0.0).damp == 0, "a dead column makes no Hessian singular"


def test_the_hessian_is_a_mean_so_the_loss_is_per_token():
    w, x = weight(6, 48), inputs(96, 48)
    rounded = quantize_weight(w, QuantSpec(3)).dequantize()
    assert layer_loss(w, rounded, hessian(x)) == pytest.approx(((w - rounded) @ x.T).square().sum().item() / 96)
    torch.testing.assert_close(hessian(torch.cat((x, x))), hessian(x))


def test_damping_grows_tenfold_from_a_ten_thousandth():
    h = torch.diag(torch.tensor([1.0] * 9 + [-0.005], dtype=torch.float64))
    u, damp = inverse_factor(h, 0.0)
    assert damp == pytest.approx(0.01)
    torch.testing.assert_close(u.T @ u, torch.linalg.inv(damped(h, damp)))


def test_one_group_a_row_needs_no_index_whatever_the_order():
    assert gptq(*problem(), QuantSpec(4), order="act").weight.g_idx is None
    assert gptq(*problem(), QuantSpec(4, 12), order="act").weight.g_idx is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_hessian_gets_damping_and_says_so(dtype):
    w, few = weight(6, 48, dtype=dtype), inputs(3, 48, dtype=dtype)
    found = gptq(w, hessian(few), QuantSpec(4), damp=0.0)
    assert found.damp > 0 and found.weight.dequantize().isfinite().all()
    assert gptq(w, hessian(few), QuantSpec(4)).damp == 0.01
    with pytest.raises(InputError, match=r"no Cholesky factor with damping from 0.01 to 1"):
        gptq(w, torch.eye(48, dtype=dtype) - 3 * torch.ones(48, 48, dtype=dtype) / 48, QuantSpec(4))


def test_bad_input_is_one_sentence():
    w, h = problem()
    with pytest.raises(InputError, match="no calibration tokens"):
        hessian(torch.empty(0, 4))
    with pytest.raises(InputError, match=r"activation \[0, 1\] is nan"):
        hessian(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(InputError, match=r"Hessian of shape \(47, 47\) for a weight with 48"):
        gptq(w, h[1:, 1:], QuantSpec(4))
    h[3, 4] = torch.inf
    with pytest.raises(InputError, match=r"Hessian \[3, 4\] is inf"):
        gptq(w, h, QuantSpec(4))
    w, h = problem()
    for first, second in ((w.float(), h), (w, h.float()), (w.half(), h.half()), (w.bfloat16(), h.bfloat16())):
        with pytest.raises(InputError, match=r"weight of torch\..* and a Hessian of torch\..*; give both in float32"):
            gptq(first, second, QuantSpec(4))
    for damp in (-0.01, 1.5, float("nan")):
        with pytest.raises(InputError, match=rf"damp={damp}: .* is 0 to 1"):
            gptq(w, h, QuantSpec(4), damp=damp)
    with pytest.raises(InputError, match="order='descending'"):
        gptq(*problem(), QuantSpec(4), order="descending")
    with pytest.raises(InputError, match="block=0"):
        gptq(*problem(), QuantSpec(4), block=0)
    with pytest.raises(InputError, match="not positive definite"):
        obs_sequential(w, hessian(inputs(3, 48)), QuantSpec(4))
