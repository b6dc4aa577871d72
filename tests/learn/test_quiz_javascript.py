"""The page computes what Python computes: draws, answers, texts, grading, progress."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from labcore.core.units import unit
from labcore.learn import quiz
from labcore.learn.quiz import checks, text, variants
from tests.learn.scripts import javascript

FOLDER = Path(__file__).resolve().parents[2] / "book" / "quizzes"
WARM_UP = quiz.load(FOLDER / "00.yml")
JSON = WARM_UP.as_json()
ITEMS = {item["id"]: item for item in JSON["items"]}


def test_random_numbers_and_shuffles_are_the_same():
    seeds = [0, 1, 7, 2**31, 2**32 - 1, variants.seed_of("é")]
    calls = [["uniform", s, 5] for s in seeds] + [["shuffled", n, s] for s in seeds for n in (1, 2, 5, 9)]
    calls += [["seed", word] for word in ("", "a", "units.gib.001", "é")]
    expected = [[next(r) for _ in range(5)] for r in map(variants.uniform, seeds)]
    expected += [variants.shuffled(range(n), s) for s in seeds for n in (1, 2, 5, 9)]
    expected += [variants.seed_of(word) for word in ("", "a", "units.gib.001", "é")]
    assert javascript(*calls) == expected


def test_fixed_decimals_and_filled_texts_are_the_same():
    rng = random.Random(3)
    values = [0, 0.5, 1.5, 2.5, 0.125, 1234.5, -3.25, 1e9, *(rng.uniform(-1e6, 1e6) for _ in range(200))]
    calls = [["fixed", v, d] for v in values for d in (0, 1, 2)]
    expected = [text.fixed(v, d) for v in values for d in (0, 1, 2)]
    source, units = r"{x} {x:GB} {x:.1%} {x:,.2f} {w} $\frac{x}{y}$", {"GB": 1e9}
    calls += [["fill", source, {"x": v, "w": "word"}, units] for v in values]
    expected += [text.fill(source, {"x": v, "w": "word"}) for v in values]
    for call, here, there in zip(calls, expected, javascript(*calls), strict=True):
        assert here == there, call


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda path: path.stem)
def test_every_draw_of_every_item_gives_the_same_numbers(path):
    loaded = quiz.load(path)
    items = {item["id"]: item for item in loaded.as_json()["items"]}
    draws = [(item, n, v) for item in loaded.items for n, v in enumerate(checks.variants(item)[: variants.KEPT])]
    there = javascript(*[["variant", items[item.id], n] for item, n, _ in draws])
    for (item, _, values), found in zip(draws, there, strict=True):
        for name, value in found["values"].items():
            assert values[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12))
        if hasattr(item, "answer"):
            assert found["answer"] == pytest.approx(checks.evaluate(item.answer, values), rel=1e-12)
            wrong = [checks.evaluate(d, values) for d in item.distractors]
            assert found.get("distractors", []) == pytest.approx(wrong, rel=1e-12)
        if hasattr(item, "options"):
            assert found["right"] == [checks.holds(o, values) for o in item.options]
        if hasattr(item, "order"):
            keys = [checks.evaluate(e.value, values) if e.value else n for n, e in enumerate(item.order)]
            assert found["order"] == sorted(range(len(keys)), key=keys.__getitem__)


def graded(*given):
    """Grades of (item id, *arguments), first draw, all in one process."""
    return javascript(*[["grade", ITEMS[name], 0, *arguments] for name, *arguments in given])


def numbers(item, n=0):
    """The right answer and the distractors in the unit of the box."""
    values, scale = checks.variants(item)[n], unit(item.answer.asked_in).scale
    return checks.evaluate(item.answer, values) / scale, [checks.evaluate(d, values) / scale for d in item.distractors]


def test_a_right_number_passes_and_each_distractor_is_called_by_its_error():
    asked, expected = [], []
    for item in (i for i in WARM_UP.items if i.kind == "numeric"):
        answer, wrong = numbers(item)
        tolerance = item.answer.rel_tol
        asked += [
            (item.id, answer),
            (item.id, answer * (1 + 0.9 * tolerance)),
            (item.id, answer * (1 + 1.1 * tolerance)),
        ]
        expected += [("pass", None), ("pass", None), ("fail", None)]
        asked += [(item.id, value) for value in wrong]
        expected += [("fail", d.why) for d in item.distractors]
    for call, (outcome, why), found in zip(asked, expected, graded(*asked), strict=True):
        assert (found["outcome"], found.get("why")) == (outcome, why), call


def test_other_slips_are_named_by_their_factor():
    slips = {1000: "1,000", 1e-6: "a million", 8: "bits and bytes", 2**30 / 1e9: "GiB", 3.5: "3.5 times too large"}
    item = next(i for i in WARM_UP.items if i.id == "units.throughput.001")
    for says, found in zip(slips.values(), graded(*[(item.id, numbers(item)[0] * f) for f in slips]), strict=True):
        assert found["outcome"] == "fail" and says in found["says"]


def test_estimates_pass_within_their_factor():
    item = next(i for i in WARM_UP.items if i.kind == "predict")
    found = graded(*[(item.id, numbers(item)[0] * f) for f in (0.6, 0.7, 1.45, 1.55)])
    assert [f["outcome"] for f in found] == ["fail", "pass", "pass", "fail"]


def test_choices():
    options = ITEMS["units.rates.001"]["options"]
    right = [i for i, o in enumerate(options) if o["right"]]
    all_right, one_missing, one_wrong = graded(*[("units.rates.001", p) for p in (right, right[:-1], [*right, 3])])
    assert all_right["outcome"] == "pass" and "1 more is" in one_missing["says"]
    assert one_wrong["outcome"] == "fail" and one_wrong["why"] == options[3]["why"]


def test_orders_blanks_and_the_readers_own_grade():
    cloze = next(i for i in WARM_UP.items if i.kind == "cloze")
    port = checks.variants(cloze)[0]["port"]
    filled = {"decimal": " 9", "binary": "30", "rate": str(port / 8), "word": " Bytes "}
    grades = [(4, "strong"), (3, "strong"), (2, "lean"), (0, "lean"), (0, "no")]
    found = graded(
        ("units.order.001", [0, 1, 2, 3, 4]),
        ("units.order.001", [0, 2, 1, 3, 4]),
        (cloze.id, filled),
        (cloze.id, filled | {"rate": str(port)}),
        *[("units.falsify.001", *grade) for grade in grades],
    )
    assert found[0]["outcome"] == "pass" and "first 1 of 5 are" in found[1]["says"]
    assert found[2]["outcome"] == "pass" and found[3]["blanks"] == ["rate"]
    assert [f.get("outcome") for f in found[4:]] == ["pass", None, "hold", None, "fail"]
    assert "ticked 3: that is Lean" in found[5]["error"] and "at least one point" in found[7]["error"]


NUMBERS = [("327,680", "1", 327680), (" −4.5 ", "1", -4.5), ("3.2e5", "B", 320000), ("3.2 × 10^5", "B", 320000)]
NUMBERS += [("1/8", "1", 0.125), (".5", "1", 0.5), ("99.5 %", "%", 99.5), ("12 GB", "GB", 12), ("1 000", "1", 1000)]
NUMBERS += [("11.3x", "×", 11.3), ("2.0 times", "×", 2), ("≈ 3.1", "1", 3.1), ("~170", "tokens", 170)]
NUMBERS += [("108K", "tokens", 108000), ("≈ 1.5 ×", "×", 1.5), ("~2.5 GB", "GB", 2.5)]
NO_NUMBERS = [("", "1", "Enter a number"), ("12 GiB", "GB", "in GB"), ("about 5", "1", "is not a number")]
NO_NUMBERS += [("11,3", "1", "like 1,250, 11.3"), ("3,5", "GB", "like 1,250, 11.3"), ("0,5", "1", "like 1,250, 11.3")]
NO_NUMBERS += [
    ("3 1/2", "1", "is not a number"),
    ("1e999", "1", "too large"),
    ("1.2.3", "1", "is not a number"),
    ("1/0", "1", "too large"),
]
NO_NUMBERS += [
    ("33 KiB", "B", "in B"),
    ("1.5e3K", "1", "is not a number"),
    ("x3", "×", "is not a number"),
    ("3 GiB", "×", "in ×"),
]


def test_numbers_as_people_write_them_and_what_is_none():
    found = javascript(*[["parse", typed, asked] for typed, asked, _ in NUMBERS + NO_NUMBERS])
    for (typed, _, wanted), result in zip(NUMBERS + NO_NUMBERS, found, strict=True):
        if isinstance(wanted, str):
            assert wanted in result["error"], typed
        else:
            assert result.get("value") == pytest.approx(wanted), typed


# ---- progress --------------------------------------------------------------------------------------------------------

GIB = {"id": "units.gib.001", "rung": 0}
ROOM = {"id": "units.room.001", "rung": 3}
DAYS = ["2026-01-10", "2026-01-13", "2026-01-17", "2026-01-24", "2026-01-31"]


def test_answers_move_items_along_and_agenda_says_when():
    quizzes = [{"id": "00", "items": [GIB, ROOM]}]
    *_, agenda = javascript(["record", "00", GIB, "pass", DAYS[0]], ["agenda", quizzes, DAYS[0]])
    assert agenda == [["units.gib.001", DAYS[1]], ["units.room.001", DAYS[1]]]
    *_, agenda = javascript(*[["record", "00", GIB, "pass", day] for day in DAYS], ["agenda", quizzes, DAYS[4]])
    assert agenda == [["units.room.001", DAYS[1]]]
    *_, agenda = javascript(
        ["record", "00", GIB, "pass", DAYS[0]], ["record", "00", GIB, "fail", DAYS[1]], ["agenda", quizzes, DAYS[1]]
    )
    assert agenda[1] == ["units.gib.001", "2026-01-16"]


def exported():
    answers = [["record", "00", GIB, o, d] for o, d in zip(("pass", "fail", "pass"), DAYS, strict=False)]
    return javascript(*answers, ["write"])[-1]


def test_a_streak_counts_days_and_a_free_day_does_not_break_it():
    days = {d: {"n": 2, "right": 1, "late": 0} for d in DAYS[:4]}
    data = exported()["progress"]
    streak = lambda days, rows=(): javascript(["streak", data | {"days": days}, list(rows), DAYS[3]])[0]  # noqa: E731
    assert streak(days) == 4
    assert streak(days | {DAYS[2]: {"n": 1, "right": 1, "late": 2}}) == 2
    assert streak(days, [{"due": DAYS[2]}]) == 0
    assert streak({}) == 0


def test_an_export_is_read_back():
    file = exported()
    [back] = javascript(["read", json.dumps(file)])
    assert back["progress"] == file["progress"] and "error" not in back


DAMAGE = {
    "it is not JSON": lambda text: text[: len(text) // 2],
    "it is not an exported progress file": lambda text: text.replace("labcore-progress", "shopping"),
    "its version is 2": lambda text: text.replace('"version": 1', '"version": 2'),
    'since is "2026-13-01"': lambda text: text.replace('"since": "2026-01-17"', '"since": "2026-13-01"'),
    "rung is 8": lambda text: text.replace('"rung": 7', '"rung": 8'),
    "more right answers than answers": lambda text: text.replace('"right": 2', '"right": 20'),
    "items is missing": lambda text: text.replace('"items"', '"itms"'),
    "interview date is 5": lambda text: text.replace('"interview": null', '"interview": 5'),
    "prediction x has no value": lambda text: text.replace('"predictions": {}', '"predictions": {"x": {}}'),
}


def test_a_damaged_export_is_refused_in_one_sentence():
    whole = json.dumps(exported())
    files = [damage(whole) for damage in DAMAGE.values()]
    assert whole not in files
    for sentence, found in zip(DAMAGE, javascript(*[["read", file] for file in files]), strict=True):
        assert sentence in found["error"] and found["error"].endswith("Your progress is unchanged."), found


def test_joining_keeps_the_later_record_of_each_question():
    mine, theirs = exported()["progress"], copy.deepcopy(exported()["progress"])
    theirs["items"]["units.gib.001"] |= {"since": "2026-02-01", "n": 9, "rung": 14, "base": 7}
    theirs["items"]["other"] = mine["items"]["units.gib.001"]
    theirs["started"]["01"] = DAYS[2]
    both = javascript(["merge", mine, theirs], ["merge", theirs, mine])
    assert both[0] == both[1]
    assert both[0]["items"]["units.gib.001"]["n"] == 9 and set(both[0]["started"]) == {"00", "01"}
    assert javascript(["wrong", both[0]]) == [None]
