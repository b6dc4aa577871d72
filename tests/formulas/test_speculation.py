"""What has no closed form: the best draft length and the acceptance at which speculation breaks even."""

import pytest

from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.formulas.speculation import best_length, break_even_alpha

SPEEDUP = formula["speculation.speedup"]


def speedup(alpha, K, c):
    """Theorem 3.8 of Leviathan et al. as a sum, without the registered formula."""
    return sum(alpha**i for i in range(K + 1)) / (1 + c * K)


@pytest.mark.parametrize(
    ("alpha", "c", "best"), [(0.75, 0.125, 4), (0.8, 0.02, 11), (0.8, 0.05, 8), (0.8, 0.2, 4), (0.1, 0.3, 1)]
)
def test_best_length_is_the_argmax(alpha, c, best):
    assert best_length(lambda K: SPEEDUP(alpha=alpha, K=K, c=c)) == best
    assert all(speedup(alpha, K, c) <= speedup(alpha, best, c) for K in range(1, 100))


def test_the_shortest_of_equally_good_lengths():
    assert best_length(lambda K: 2.0) == 1 and best_length(lambda K: float(K), longest=9) == 9


def test_break_even_of_the_practice_problem():
    assert f"{break_even_alpha(K=4, c=0.125):.3f}" == "0.336"


@pytest.mark.parametrize("K", [1, 3, 8])
@pytest.mark.parametrize("c", [0.0, 0.01, 0.3, 0.9])
def test_break_even_neither_gains_nor_loses(K, c):
    alpha = break_even_alpha(K, c)
    assert speedup(alpha, K, c) == pytest.approx(1, abs=1e-12)
    assert K > 1 or alpha == pytest.approx(c, abs=1e-15)  # one draft pays exactly if α > c


def test_some_length_pays_exactly_if_alpha_exceeds_c():
    """Corollary 3.9 of the paper, on a grid."""
    for alpha in (0.05, 0.3, 0.7, 0.95):
        for c in (0.01, 0.299, 0.301, 0.8):
            gain = lambda K: SPEEDUP(alpha=alpha, K=K, c=c)  # noqa: B023, E731
            assert (gain(best_length(gain)) > 1) == (alpha > c)


def test_a_draft_as_slow_as_its_target_never_pays():
    with pytest.raises(InputError, match="c=1: a draft step must cost"):
        break_even_alpha(4, 1)


def test_two_and_a_half_to_three_holds_in_a_narrow_range_only():
    """At alpha 0.8 and K 5, 2.5 to 3 times needs 0.046 <= c <= 0.095."""
    inside = [c / 1000 for c in range(1, 300) if 2.5 <= SPEEDUP(alpha=0.8, K=5, c=c / 1000) <= 3.0]
    assert (inside[0], inside[-1]) == (0.046, 0.095)


def test_what_is_free_is_where_verification_turns_compute_bound():
    machine = {"b_w": 2, "P": 7e10, "L": 0, "kappa": 327_680, "F": 312e12, "beta": 2.039e12, "B": 16}
    free = int(formula["speculation.free_drafts"](R=312 / 2.039, b_w=2, B=16))
    plain = formula["decode.weight_time"](b_w=2, P=7e10, beta=2.039e12)
    verify = formula["speculation.verify_time"]
    assert verify(K=free, **machine) == plain < verify(K=free + 1, **machine)
