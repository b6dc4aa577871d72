"""The quantization lab's references beside its helpers and the library, and what its tools promise."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import FetchError  # noqa: E402
from labcore.learn.exercises.compare import same_value  # noqa: E402
from labcore.learn.labs import lab05_activations, lab05_blocked, lab05_grid, lab05_obs, lab05_protocol  # noqa: E402
from labcore.learn.labs import lab05_references as ref  # noqa: E402
from labcore.learn.labs.lab05_tools import (  # noqa: E402
    drawn_hessian,
    drawn_inputs,
    drawn_weight,
    nearest,
    row_grid,
    small_model,
    surprises,
    upper_factor,
    with_weights,
)
from labcore.quant.calibrate import linears  # noqa: E402
from labcore.quant.evaluate import Reference  # noqa: E402
from labcore.quant.gptq import layer_loss  # noqa: E402
from labcore.quant.obq import eliminate  # noqa: E402
from tests.conftest import skip_or_fail  # noqa: E402

RIGHT = {  # helper with nothing got wrong: (helper, reference, arguments)
    "grid": (lab05_grid.grid_of, ref.scale_and_zero, lab05_grid.drawn_groups),
    "rtn": (lab05_grid.rtn_of, ref.round_to_nearest, lab05_grid.drawn_matrix),
    "obs": (lab05_obs.step_of, ref.obs_step, lab05_obs.drawn_step),
    "eliminate": (lab05_obs.eliminated, eliminate, lab05_obs.drawn_elimination),
    "gptq": (lab05_obs.columns_of, ref.gptq_columns, lab05_obs.drawn_layer),
    "awq": (lab05_activations.searched, ref.search_scale, lab05_activations.drawn_search),
    "outliers": (lab05_activations.int8_of, ref.int8_linear, lab05_activations.drawn_product),
    "nf4": (lab05_protocol.block_of, ref.nf4_block, lab05_protocol.drawn_block),
    "decide": (lab05_protocol.decision, ref.decide, lab05_protocol.drawn_windows),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_helper_is_right_when_nothing_is_got_wrong(name):
    helper, reference, drawn = RIGHT[name]
    generator = np.random.default_rng(11)
    for _ in range(30):
        args = drawn(generator)
        assert same_value(helper(*args), reference(*args), 1e-6, 1e-12)


@pytest.mark.parametrize("block", [1, 4, 5, 12])
def test_blocks_change_nothing(block):
    args = lab05_blocked.case(3, block)
    want = ref.gptq_columns(*args[:3])
    assert same_value(lab05_blocked.blocked_of(*args), want, 1e-9, 1e-12)
    assert same_value(ref.gptq_blocked(*args), want, 1e-9, 1e-12)


def test_the_starter_is_right_in_a_single_block_and_is_the_first_mistake_in_more():
    w, h, bits, _ = lab05_blocked.case(3, 12)
    assert same_value(ref.broken_gptq_blocked(w, h, bits, 12), ref.gptq_columns(w, h, bits), 1e-9, 1e-12)
    found, loss = ref.broken_gptq_blocked(w, h, bits, 4)
    assert same_value((found, loss), lab05_blocked.blocked_of(w, h, bits, 4, pivot=1), 1e-9, 1e-12)
    assert abs(loss / layer_loss(w, found, h) - 1) > 0.05


def test_the_factor_is_upper_and_that_of_the_inverse():
    h = drawn_hessian(2, 9)
    u = upper_factor(h)
    assert torch.equal(u, u.triu())
    torch.testing.assert_close(u.T @ u @ h, torch.eye(9).double(), rtol=0, atol=1e-10)


def test_the_nearest_grid_point_is_at_most_half_a_step_away():
    w = drawn_weight(4, 6, 40)
    scale, zero = row_grid(w, 3)
    found = nearest(w, scale[:, None], zero[:, None], 3)
    assert ((found - w).abs() <= scale[:, None] * (0.5 + 1e-12)).all()


def test_one_channel_is_loud_and_the_others_move_together():
    x = drawn_inputs(1, 4000, 6, loud=10.0)
    assert abs(float(x[:, 1].std() / x[:, 0].std()) / 10 - 1) < 0.1
    assert (torch.corrcoef(x.T) > 0.4).all()


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("safetensors")
    try:
        return small_model()
    except FetchError as error:
        skip_or_fail("corpus", str(error))


def test_surprises_are_those_of_the_librarys_reference(model):
    network, _, evaluation = model
    torch.testing.assert_close(
        surprises(network, evaluation[:2]).float(),
        Reference(network, evaluation[:2]).nll.float(),
        rtol=0,
        atol=1e-5,
    )


def test_new_weights_go_into_a_copy_in_the_order_of_computation(model):
    network, calibration, evaluation = model
    before = {name: linear.weight.clone() for name, linear in linears(network).items()}
    seen = []

    def v_halved(w, h):
        assert w.dtype == h.dtype == torch.float64 and h.shape == (w.shape[1], w.shape[1])
        assert torch.linalg.eigvalsh(h)[0] > 0
        seen.append((w, h))
        return w / 2 if len(seen) == 3 else w  # q and k come before it, and see the same input

    changed = with_weights(network, calibration[:1], v_halved)
    assert all(torch.equal(linear.weight, before[name]) for name, linear in linears(network).items())
    for i, ((name, linear), (w, _)) in enumerate(zip(linears(changed).items(), seen, strict=True)):
        assert torch.equal(w.float(), before[name])
        assert torch.equal(linear.weight, before[name] / 2 if i == 2 else before[name])
    untouched = []
    with_weights(network, calibration[:1], lambda w, h: (untouched.append(h), w)[1])
    assert torch.equal(seen[0][1], untouched[0])  # nothing before it has changed
    torch.testing.assert_close(seen[3][1], untouched[3] / 4, rtol=1e-5, atol=1e-12)  # o reads half of what it read
    assert not torch.allclose(surprises(changed, evaluation[:1]), surprises(network, evaluation[:1]))
