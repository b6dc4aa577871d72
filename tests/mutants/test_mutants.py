"""Every exercise accepts its reference, does not count a stub, and rejects each known wrong answer by name."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from labcore.learn import exercises
from labcore.learn.exercises import FAILED, NOT_ATTEMPTED, PASSED, TODO
from tests.mutants.registry import all_mutants

MUTANTS = all_mutants()
EXERCISES = [one for lab in exercises.labs() for one in exercises.of_lab(lab)]
FEWEST = 3


@pytest.fixture(autouse=True)
def as_shipped(monkeypatch):
    monkeypatch.delenv("LABCORE_CHECK", raising=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_rejected_with_its_own_sentence(mutant, record_mutant, capsys):
    result = exercises.check(mutant.id, mutant.function)
    killed = result.state == FAILED and mutant.says in result.message
    record_mutant(mutant, killed, result)
    assert killed, f"{mutant} should be told {mutant.says!r}; it heard: {result}"
    assert capsys.readouterr().out == f"{result}\n", "a verdict is one line"
    assert not re.search(r"Traceback|0x[0-9a-f]{6,}|/\w+/\w+/", result.message)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.id)
def test_enough_mutants_with_different_sentences(exercise):
    says = Counter(one.says for one in MUTANTS if one.id == exercise.id)
    assert len(says) >= FEWEST, f"{exercise.id} has {len(says)} mutants, at least {FEWEST} are needed"
    assert max(says.values()) == 1, f"{exercise.id}: two mutants are told the same: {says.most_common(1)[0][0]!r}"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.id)
def test_the_reference_passes_and_a_stub_does_not_count(exercise):
    stub = exercise.starter or (lambda *args, **named: TODO)
    assert exercises.evaluate(exercise, exercise.reference).state == PASSED
    assert exercises.evaluate(exercise, lambda *args, **named: exercise.reference(*args, **named)).state == PASSED
    assert exercises.evaluate(exercise, stub).state == NOT_ATTEMPTED
    assert exercises.evaluate(exercise, TODO).state == NOT_ATTEMPTED


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.id)
@pytest.mark.parametrize("constant", [0, 1.0, "right", None, float("nan"), float("inf"), [], True])
def test_a_constant_never_passes(exercise, constant):
    assert exercises.evaluate(exercise, lambda *args, **named: constant).state == FAILED


def test_every_mutant_belongs_to_an_exercise():
    assert {one.id for one in MUTANTS} <= {one.id for one in EXERCISES}
