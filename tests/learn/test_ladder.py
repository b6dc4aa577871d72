"""The ladder as a calendar: its rungs, its compression, and the same walks in the page."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.learn import ladder
from labcore.learn.ladder import LADDER, Place
from tests.learn.scripts import javascript

DAYS = st.dates(date(2024, 1, 1), date(2030, 12, 31))
RUNGS = st.sampled_from(LADDER)
OUTCOMES = st.sampled_from(["pass", "hold", "fail"])
START = date(2026, 3, 20)  # nine days before the clocks change in Europe


def test_passing_on_time_walks_0_3_7_14_21_across_the_change_of_clocks():
    assert [(day - START).days for day in ladder.schedule(START).values()] == [0, 3, 7, 14, 21]


def test_a_failure_returns_to_day_3_from_every_rung():
    for rung in LADDER:
        place = ladder.answer(ladder.enter(rung, START), "fail", START + timedelta(days=30))
        assert ladder.due(place) == START + timedelta(days=33)


def test_a_hesitant_pass_repeats_its_wait():
    place = Place(14, 7, START)
    later = ladder.answer(place, "hold", START + timedelta(days=7))
    assert (later.rung, ladder.due(later)) == (14, START + timedelta(days=14))


def test_practice_before_the_due_day_counts_only_when_it_fails():
    place = ladder.enter(7, START)
    assert ladder.answer(place, "pass", START + timedelta(days=6)) is place
    assert ladder.answer(place, "fail", START + timedelta(days=6)).rung == 3


def test_a_late_pass_waits_the_whole_gap():
    late = ladder.answer(Place(7, 3, START), "pass", START + timedelta(days=20))
    assert ladder.due(late) == START + timedelta(days=27)


def test_the_top_rung_ends_the_ladder_and_a_failure_reopens_it():
    done = ladder.answer(Place(21, 14, START), "pass", START + timedelta(days=7))
    assert ladder.due(done) is None and ladder.answer(done, "pass", START) is done
    assert ladder.due(ladder.answer(done, "fail", START)) == START + timedelta(days=3)


@pytest.mark.parametrize("days, expected", [(22, [0, 3, 7, 14, 21]), (11, [0, 1, 3, 6, 10]), (2, [0, 1, 2, 9, 16])])
def test_an_interview_compresses_the_ladder(days, expected):
    plan = ladder.schedule(START, START + timedelta(days=days))
    assert [(day - START).days for day in plan.values()][: len(expected)] == expected


@given(DAYS, st.integers(5, 60))
def test_with_five_days_or_more_every_rung_falls_before_the_interview(start, days):
    plan = list(ladder.schedule(start, start + timedelta(days=days)).values())
    assert plan == sorted(set(plan)) and len(plan) == len(LADDER)
    assert plan[-1] < start + timedelta(days=days)


@given(RUNGS, DAYS, st.none() | DAYS, st.lists(st.tuples(OUTCOMES, st.integers(0, 40)), max_size=12))
def test_invariants_of_every_walk(rung, start, interview, answers):
    place, today = ladder.enter(rung, start), start
    for outcome, later in answers:
        today += timedelta(days=later)
        before = ladder.due(place, interview)
        after = ladder.answer(place, outcome, today, interview)
        due = ladder.due(after, interview)
        if outcome == "fail":
            assert today < due <= today + timedelta(days=3)
        elif before is not None and today >= before and due is not None:
            assert today < due <= today + timedelta(days=7)
            assert outcome == "hold" or after.rung > place.rung
        else:
            assert due == before or due is None
        if interview and interview > today + timedelta(days=1) and due and due > today:
            assert due < interview or after is place
        assert after.rung is None or (after.rung in LADDER and after.base in LADDER and after.base <= after.rung)
        place = after


def test_bad_rungs_and_outcomes_are_named():
    with pytest.raises(InputError, match="5 is not a rung"):
        ladder.enter(5, START)
    with pytest.raises(InputError, match="'maybe' is not one of"):
        ladder.answer(ladder.enter(0, START), "maybe", START)


def test_the_page_walks_the_same_ladder():
    random.seed(4)
    walks, expected = [], []
    for _ in range(300):
        start, rung = START + timedelta(days=random.randrange(400)), random.choice(LADDER)
        interview = start + timedelta(days=random.randrange(-3, 40)) if random.random() < 0.7 else None
        place, today, answers = ladder.enter(rung, start), start, []
        places = [(place, ladder.due(place, interview))]
        for _ in range(random.randrange(12)):
            today += timedelta(days=random.choice([0, 0, 1, 2, 3, 4, 7, 9, 30]))
            answers.append((random.choice(["pass", "pass", "hold", "fail"]), today))
            place = ladder.answer(place, *answers[-1], interview)
            places.append((place, ladder.due(place, interview)))
        iso = lambda day: day and day.isoformat()  # noqa: E731
        walks.append(["walk", rung, iso(start), iso(interview), [[o, iso(d)] for o, d in answers]])
        expected.append([[{"rung": p.rung, "base": p.base, "since": iso(p.since)}, iso(d)] for p, d in places])
    assert javascript(*walks) == expected
