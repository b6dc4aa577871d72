"""Merging the states of attention over parts of the keys."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels.merge_states import merge_states, merge_states_reference  # noqa: E402
from tests.kernels.checks import DEVICE  # noqa: E402

SLOW = settings(max_examples=5, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # interpreted: no shrinking


def parts_of(scores, values, cuts):
    """(o, lse) of each part of the keys [keys, ...]: the direct softmax over it."""
    states = [
        (torch.einsum("kr,krd->rd", part.softmax(0), value), part.logsumexp(0))
        for part, value in zip(scores.tensor_split(cuts), values.tensor_split(cuts), strict=True)
    ]
    return tuple(torch.stack(side) for side in zip(*states, strict=True))


def test_merging_is_the_softmax_over_all_keys(device):
    torch.manual_seed(0)
    scores, values = 3 * torch.randn(100, 6), torch.randn(100, 6, 80)
    (exact,), (exact_lse,) = parts_of(scores.double(), values.double(), [])
    for cuts in ([50], [1, 2, 99], list(range(10, 100, 10))):  # more parts than the interpreter's tile
        o, lse = (side.float().to(device) for side in parts_of(scores.double(), values.double(), cuts))
        for backend in ("triton", "torch"):
            merged, total = merge_states(o, lse, backend=backend)
            torch.testing.assert_close(merged.cpu().double(), exact, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(total.cpu().double(), exact_lse, atol=1e-6, rtol=1e-6)


def test_states_need_not_be_contiguous(device):
    o, lse = torch.randn(3, 8, 4, 16, device=device).transpose(1, 2), torch.randn(3, 4, 8, device=device)
    torch.testing.assert_close(merge_states(o, lse)[0], merge_states_reference(o, lse)[0], atol=1e-6, rtol=1e-6)


@given(st.permutations(range(5)), st.integers(1, 4))
@SLOW
def test_merging_is_associative_and_commutative(order, cut):
    torch.manual_seed(1)
    o, lse = torch.randn(5, 2, 16), 4 * torch.randn(5, 2)
    whole, total = merge_states(o.to(DEVICE), lse.to(DEVICE))
    o, lse = o[list(order)].to(DEVICE), lse[list(order)].to(DEVICE)
    halves = [merge_states(o[part], lse[part]) for part in (slice(cut), slice(cut, None))]
    again, total_again = merge_states(*(torch.stack(side) for side in zip(*halves, strict=True)))
    torch.testing.assert_close(again, whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(total_again, total, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_empty_states_change_nothing_and_are_not_read(device, backend):
    o, lse = torch.randn(7, 3, 16, device=device), torch.randn(7, 3, device=device)
    lse[[0, 4, 6]] = -torch.inf
    lse[:, 2] = -torch.inf  # a row of nothing else
    o[lse == -torch.inf] = torch.nan
    merged, total = merge_states(o, lse, backend=backend)
    some, its_total = merge_states_reference(o[[1, 2, 3, 5], :2], lse[[1, 2, 3, 5], :2])
    torch.testing.assert_close(merged[:2], some, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(total[:2], its_total, atol=1e-6, rtol=1e-6)
    assert (merged[2] == 0).all() and total[2] == -torch.inf


def test_one_state_is_itself_bit_for_bit(device):
    o, lse = torch.randn(1, 4, 16, device=device), torch.randn(1, 4, device=device)
    assert torch.equal(merge_states(o, lse)[0], o[0])
    with pytest.raises(InputError, match=r"pass \[n, ..., D\]"):
        merge_states(o, lse[:, :3])
