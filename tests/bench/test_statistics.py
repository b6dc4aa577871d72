"""Summaries, ratios and bars."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.bench.statistics import KINDS, is_rate, met, ratio, summarize
from labcore.core.errors import InputError

seconds = st.floats(1e-6, 1e3)
rounds = st.lists(st.lists(seconds, min_size=1, max_size=4), min_size=1, max_size=6)


@given(rounds)
def test_summary_orders_its_quantiles_and_counts_every_sample(samples):
    summary = summarize(samples)
    flat = [sample for one in samples for sample in one]
    assert summary["n"] == len(flat)
    assert min(flat) <= summary["q20"] <= summary["median"] <= summary["q80"] <= max(flat)
    assert summary["median"] == pytest.approx(float(np.median(flat)))


def test_the_spread_is_the_20_and_80_percent_quantile():
    summary = summarize([[1.0, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11]])
    assert (summary["q20"], summary["median"], summary["q80"]) == (3.0, 6.0, 9.0)


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], []], [[0.0]], [[-1.0]], [[float("nan")]], [[float("inf")]]])
def test_samples_that_cannot_be_times_are_refused(bad):
    with pytest.raises(InputError):
        summarize(bad)


def test_rates_are_told_from_costs_by_their_unit():
    assert [is_rate(unit) for unit in ("B/s", "token/s", "FLOP/s", "s", "B", "ms")] == [True] * 3 + [False] * 3


def test_ratio_is_taken_round_by_round():
    # the machine slows down tenfold in round 3; both programs suffer, the ratio does not
    ours, peer = [[1.0], [1.0], [10.0]], [[2.0], [2.0], [20.0]]
    share = ratio("speedup", "s", ours, peer)
    assert (share.median, share.lo, share.hi) == (2.0, 2.0, 2.0)
    assert ratio("overhead", "s", ours, peer).median == 0.5


def test_a_higher_rate_and_a_lower_cost_are_both_a_speedup():
    assert ratio("speedup", "s", [[1.0]], [[3.0]]).median == 3.0
    assert ratio("speedup", "token/s", [[3.0]], [[1.0]]).median == 3.0
    assert ratio("fraction_of_ceiling", "s", [[2.0]], floor=1.0).median == 0.5
    assert ratio("fraction_of_ceiling", "B/s", [[1.0]], floor=2.0).median == 0.5
    assert ratio("value", "s", [[4.0], [5.0], [9.0]]).median == 5.0


@given(rounds, st.floats(0.1, 10))
def test_slowing_the_baseline_raises_a_speedup_and_lowers_an_overhead_by_that_factor(samples, factor):
    slower = [[sample * factor for sample in one] for one in samples]
    assert ratio("speedup", "s", samples, slower).median == pytest.approx(factor)
    assert ratio("overhead", "s", samples, slower).median == pytest.approx(1 / factor)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ratio("faster", "s", [[1.0]], [[1.0]]), "'faster' is unknown"),
        (lambda: ratio("speedup", "s", [[1.0]]), "round with round"),
        (lambda: ratio("speedup", "s", [[1.0], [1.0]], [[1.0]]), "2 rounds, the baseline 1"),
        (lambda: ratio("fraction_of_ceiling", "s", [[1.0]]), "needs floor"),
        (lambda: met("speedup", 1.0, {"musst": 1.0}, True), "'musst' is unknown"),
        (lambda: met("speedup", 1.0, {"must": 2.0, "target": 1.0}, True), "do not get harder"),
        (lambda: met("overhead", 1.0, {"must": 1.0, "target": 2.0}, True), "do not get harder"),
    ],
)
def test_bad_input_gets_one_sentence(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_the_highest_bar_reached_is_named_in_the_direction_of_the_kind():
    up = {"must": 1.0, "target": 2.0, "dream": 3.0}
    assert [met("speedup", ratio, up, True) for ratio in (0.9, 1.0, 2.5, 3.0)] == ["missed", "must", "target", "dream"]
    down = {"must": 1.3, "target": 1.1}
    assert [met("overhead", ratio, down, True) for ratio in (1.4, 1.3, 1.05)] == ["missed", "must", "target"]
    assert met("speedup", 9.0, {}, True) is None


def test_a_wrong_result_meets_no_bar_however_fast():
    assert all(met(kind, 1.0, {"must": 1.0}, correct=False) == "incorrect" for kind in KINDS)
