"""The Anki package, opened as the SQLite file it is, and the calendar, read by a parser."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from datetime import date, timedelta
from pathlib import Path

import pytest

from labcore import cli
from labcore.core.errors import InputError
from labcore.learn import quiz
from labcore.learn.quiz import checks

genanki = pytest.importorskip("genanki")
icalendar = pytest.importorskip("icalendar")
from labcore.learn import export_anki, export_ics  # noqa: E402

WARM_UP = quiz.load(Path(__file__).resolve().parents[2] / "book" / "quizzes" / "00.yml")
START = date(2026, 10, 20)  # the clocks change on the 25th


def opened(path, folder):
    """(notes as {guid: (fields by name, tags)}, cards, decks) of an Anki package."""
    with zipfile.ZipFile(path) as package:
        package.extract("collection.anki2", folder)
    database = sqlite3.connect(folder / "collection.anki2")
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    models, decks = (json.loads(x) for x in database.execute("select models, decks from col").fetchone())
    names = [f["name"] for f in next(iter(models.values()))["flds"]]
    rows = database.execute("select guid, flds, tags from notes").fetchall()
    notes = {guid: (dict(zip(names, flds.split("\x1f"), strict=True)), tags.split()) for guid, flds, tags in rows}
    cards = database.execute("select count(*) from cards").fetchone()[0]
    database.close()
    return notes, cards, {deck["name"] for deck in decks.values()}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anki")
    count = export_anki.export([WARM_UP], folder / "a.apkg", draws=3, timestamp=0)
    notes, cards, decks = opened(folder / "a.apkg", folder)
    assert count == len(notes) == cards
    return notes, decks


def test_every_question_is_a_note_with_its_tags(package):
    notes, decks = package
    assert "LLM inference::00 Units and notation" in decks
    for item in WARM_UP.items:
        draws = min(3, len(checks.rows(item))) if hasattr(item, "answer") else 1
        for n in range(draws):
            fields, tags = notes[genanki.guid_for(item.id, n)]
            assert {"00", item.kind, f"day-{item.rung}", f"level-{item.level}"} <= set(tags)
            assert item.ability in tags and fields["Section"] == f"{item.heading} (labs/lab00_units)"
            assert fields["Question"] and fields["Answer"] and fields["Explanation"]
        assert genanki.guid_for(item.id, draws) not in notes


def test_cards_carry_the_computed_answer_and_the_named_errors(package):
    notes, _ = package
    item = next(i for i in WARM_UP.items if i.id == "units.gib.001")
    for n, values in enumerate(checks.variants(item)[:3]):
        fields, _ = notes[genanki.guid_for(item.id, n)]
        assert f"<strong>{values['gib'] * 2**30 / 1e9:.1f} GB</strong>" in fields["Answer"]
        assert (
            f"{values['gib']} GiB" in fields["Question"] and f"✗ {values['gib']}.0 GB: that takes" in fields["Errors"]
        )
    questions = [fields["Question"] for fields, _ in notes.values()]
    assert len(set(questions)) == len(questions), "two draws read the same"


def test_every_kind_reads_well_on_a_card(package):
    notes, _ = package
    by_id = lambda name: notes[genanki.guid_for(name, 0)][0]  # noqa: E731
    assert (
        "______" in by_id("units.cloze.001")["Question"] and "<strong>30</strong>" in by_id("units.cloze.001")["Answer"]
    )
    assert by_id("units.order.001")["Answer"].index("7 Gb") < by_id("units.order.001")["Answer"].index("1 GiB")
    assert "<pre>" in by_id("units.mfu.001")["Question"] and "FP8 peak" in by_id("units.mfu.001")["Answer"]
    assert by_id("units.falsify.001")["Answer"].count("<blockquote>") == 3
    assert by_id("units.sparse.001")["Answer"].count("<li>") == 3
    everything = "".join(text for fields, _ in notes.values() for text in fields.values())
    assert "{" not in everything.replace("{{", "") and "$" not in everything


def test_math_is_written_for_ankis_mathjax(tmp_path):
    source = tmp_path / "09.yml"
    source.write_text(
        "title: Math\nitems:\n- {id: a, chapter: a, section: a, level: M, kind: single, stem: 'Is $x_1 < 2$?',\n"
        "   options: [{text: $a^2$, right: true}, {text: b, why: c}], explain: d}\n"
    )
    export_anki.export([quiz.load(source)], tmp_path / "a.apkg", timestamp=0)
    [(fields, _)] = opened(tmp_path / "a.apkg", tmp_path)[0].values()
    assert r"\(x_1 &lt; 2\)" in fields["Question"] and r"\(a^2\)" in fields["Answer"]


def test_two_exports_agree_and_a_bad_one_leaves_nothing(tmp_path):
    for name in "ab":
        export_anki.export([WARM_UP], tmp_path / f"{name}.apkg", timestamp=0)
    both = [opened(tmp_path / f"{name}.apkg", tmp_path) for name in "ab"]
    assert both[0] == both[1]
    with pytest.raises(InputError, match="draws=0"):
        export_anki.export([WARM_UP], tmp_path / "c.apkg", draws=0)
    assert not (tmp_path / "c.apkg").exists()


# ---- the calendar ----------------------------------------------------------------------------------------------------


def events(text):
    """uid → (first day, day after the last, title, text)."""
    found = icalendar.Calendar.from_ical(text).walk("VEVENT")
    return {
        str(e["uid"]): (e.decoded("dtstart"), e.decoded("dtend"), str(e["summary"]), str(e["description"]))
        for e in found
    }


def test_the_calendar_has_the_days_of_the_ladder():
    found = events(export_ics.calendar([WARM_UP], START))
    assert [(d - START).days for d, *_ in found.values()] == [0, 3, 7, 14, 21]
    assert all(type(d) is date and end == d + timedelta(days=1) for d, end, *_ in found.values())
    counts = [sum(item.rung <= rung for item in WARM_UP.items) for rung in (0, 3, 7, 14, 21)]
    assert [title for _, _, title, _ in found.values()] == [f"Review: {n} questions" for n in counts]
    assert found["review-day-3@labcore"][3] == f"Units and notation: {counts[1]} questions, day 3"


@pytest.mark.parametrize("days", [6, 10, 21, 30])
def test_an_interview_pulls_every_review_before_it(days):
    interview = START + timedelta(days=days)
    found = events(export_ics.calendar([WARM_UP], START, interview))
    assert found.pop("interview@labcore")[0] == interview
    assert len(found) == 5 and all(START <= day < interview for day, *_ in found.values())


def test_a_very_close_interview_keeps_the_reviews_that_fit():
    found = events(export_ics.calendar([WARM_UP], START, START + timedelta(days=2)))
    assert [(d - START).days for d, *_ in found.values()] == [0, 1, 2] and "interview@labcore" in found


def test_the_calendar_is_the_same_every_time_and_refuses_the_past():
    assert export_ics.calendar([WARM_UP], START) == export_ics.calendar([WARM_UP], START)
    with pytest.raises(InputError, match="is not after the first day"):
        export_ics.calendar([WARM_UP], START, START)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_both(tmp_path, capsys):
    anki, ics = tmp_path / "out.apkg", tmp_path / "out.ics"
    options = ["--anki", str(anki), "--ics", str(ics), "--start", "2026-10-20", "--interview-date", "2026-11-05"]
    assert cli.main(["quiz", "export", *options]) == 0
    assert zipfile.is_zipfile(anki) and len(events(ics.read_bytes())) == 6
    assert "notes" in capsys.readouterr().out and sorted(p.name for p in tmp_path.iterdir()) == ["out.apkg", "out.ics"]


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["export"], "nothing to write"),
        (
            ["export", "--ics", "x.ics", "--start", "2026-05-02", "--interview-date", "2026-05-01"],
            "not after the first day",
        ),
        (["export", "--anki", "x.apkg", "--draws", "0"], "draws=0"),
        (["export", "--anki", "x.apkg", "--interview-date", "2030-01-01"], "pass --ics"),
        (["validate", "missing.yml"], "cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(options, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["quiz", *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_command_validates_every_quiz(capsys):
    assert cli.main(["quiz", "validate"]) == 0
    assert "00 Units and notation: 19 questions" in capsys.readouterr().out
