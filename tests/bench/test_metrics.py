"""The metric definitions against each other, against hand-sized timelines, and against two peers' pitfalls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.bench.metrics import (
    RequestTimes,
    Slo,
    attainment,
    chunk_gaps,
    e2e,
    goodput,
    goodput_rate,
    itl,
    mbu,
    mfu,
    output_throughput,
    tpot,
    ttft,
)
from labcore.core.errors import InputError

gaps = st.lists(st.floats(0, 10), min_size=1, max_size=50)


def timeline(sent, waits):
    times, now = [], sent
    for wait in waits:
        now += wait
        times.append(now)
    return RequestTimes(sent, tuple(times))


# 50 ms to the first token, then one every 5 ms: 8 tokens
MOCK = timeline(10.0, [0.050] + [0.005] * 7)


@given(st.floats(0, 1e3), gaps)
def test_the_parts_add_up(sent, waits):
    request = timeline(sent, waits)
    assert 0 <= ttft(request) <= e2e(request)
    assert len(itl(request)) == request.n_out - 1
    assert ttft(request) + sum(itl(request)) == pytest.approx(e2e(request))
    if request.n_out > 1:
        assert ttft(request) + (request.n_out - 1) * tpot(request) == pytest.approx(e2e(request))
        assert tpot(request) == pytest.approx(sum(itl(request)) / len(itl(request)), abs=1e-12)


@given(gaps, st.floats(0, 100), st.floats(0.1, 10))
def test_metrics_do_not_depend_on_the_origin_and_scale_with_the_unit(waits, shift, factor):
    request, moved = timeline(0.0, waits), timeline(shift, waits)
    scaled = timeline(0.0, [factor * wait for wait in waits])
    for metric in (ttft, e2e):
        assert metric(moved) == pytest.approx(metric(request), abs=1e-9)
        assert metric(scaled) == pytest.approx(factor * metric(request), abs=1e-9)


def test_timestamps_and_the_closed_forms_agree():
    formula = pytest.importorskip("labcore.formulas").formula
    assert formula["latency.tpot"](e2e=e2e(MOCK), ttft=ttft(MOCK), n_out=MOCK.n_out) == pytest.approx(tpot(MOCK))
    assert formula["latency.e2e"](ttft=ttft(MOCK), n_out=MOCK.n_out, tpot=tpot(MOCK)) == pytest.approx(e2e(MOCK))


def test_tpot_excludes_the_first_token():
    assert tpot(MOCK) == pytest.approx(0.005)
    e2e_over_n = e2e(MOCK) / MOCK.n_out  # what guidellm calls TPOT
    assert e2e_over_n == pytest.approx(0.010625)


def test_a_one_token_answer_has_no_tpot_and_cannot_miss_one():
    single = timeline(0.0, [0.3])
    assert tpot(single) is None and itl(single) == []
    assert Slo(tpot=1e-9).met_by(single)
    assert not Slo(ttft=0.2).met_by(single)


def test_a_chunk_of_several_tokens_gives_zero_gaps_and_the_same_tpot():
    chunked = RequestTimes.from_chunks(0.0, [(0.1, 0), (0.1, 1), (0.2, 3), (0.3, 0), (0.4, 1)])
    assert chunked.n_out == 5
    assert itl(chunked) == pytest.approx([0.1, 0.0, 0.0, 0.2])
    assert chunk_gaps(chunked) == pytest.approx([0.1, 0.2])
    assert tpot(chunked) == pytest.approx(0.3 / 4)


@pytest.mark.parametrize("arrivals", [(0.9,), (1.2, 1.1), (float("nan"),), (float("inf"),)])
def test_impossible_clocks_are_refused(arrivals):
    with pytest.raises(InputError):
        RequestTimes(1.0, arrivals)


def test_a_failed_request_has_no_latency_and_counts_against_the_service():
    failed = RequestTimes(0.0, ())
    assert failed.failed
    for metric in (ttft, tpot, e2e, itl):
        with pytest.raises(InputError, match="received no token"):
            metric(failed)
    assert attainment([MOCK, failed], Slo()) == 0.5
    assert goodput([MOCK, failed], Slo(), duration=2.0) == 0.5
    assert output_throughput([MOCK, failed], duration=2.0) == 4.0


def test_every_limit_of_an_slo_must_hold():
    assert Slo(ttft=0.051, tpot=0.0051, e2e=0.086).met_by(MOCK)
    assert not Slo(ttft=0.049).met_by(MOCK)
    assert not Slo(ttft=0.051, tpot=0.0049).met_by(MOCK)
    assert not Slo(ttft=0.051, tpot=0.0051, e2e=0.084).met_by(MOCK)


@given(st.lists(gaps, min_size=1, max_size=10), st.floats(0, 5), st.floats(0, 5))
def test_a_looser_slo_never_lowers_attainment(waits, limit, slack):
    requests = [timeline(0.0, one) for one in waits]
    tight, loose = Slo(ttft=limit, tpot=limit), Slo(ttft=limit + slack, tpot=limit + slack)
    assert attainment(requests, tight) <= attainment(requests, loose) <= 1
    assert goodput(requests, tight, 1.0) == pytest.approx(attainment(requests, tight) * len(requests))


def test_goodput_rate_stops_at_the_first_rate_that_misses():
    assert goodput_rate([(4, 0.93), (1, 1.0), (2, 0.97), (8, 0.4)]) == 4
    assert goodput_rate([(1, 1.0), (2, 0.5), (4, 0.95)]) == 1  # a lucky point above the knee does not count
    assert goodput_rate([(1, 0.5)]) == 0.0
    assert goodput_rate([(1, 0.95), (2, 0.93)], share=0.95) == 1


def test_utilization_of_llama_2_70b_on_two_a100():
    weights, bandwidth = 2 * 68.98e9, 2 * 2.039e12
    floor = weights / bandwidth
    assert mbu(weights, floor, bandwidth) == pytest.approx(1.0)
    assert mbu(weights, 0.040, bandwidth) == pytest.approx(0.846, abs=5e-4)
    assert mfu(2 * 68.98e9, 0.040, 2 * 312e12) == pytest.approx(0.0055, abs=5e-5)


@pytest.mark.parametrize("call", [lambda: mbu(1, 0, 1), lambda: mbu(1, 1, -1), lambda: mfu(1, 1, float("nan"))])
def test_utilization_needs_positive_time_and_peak(call):
    with pytest.raises(InputError, match="need a positive number"):
        call()


def test_attainment_of_nothing_is_refused():
    with pytest.raises(InputError, match="no requests"):
        attainment([], Slo())
