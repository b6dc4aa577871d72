"""The diagnostic and its paths: what the files may say, what exists, and how the page turns answers into days."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from docutils.nodes import make_id

from labcore.core.errors import DataError
from labcore.learn.book_ext import diagnostic
from labcore.learn.quiz import checks
from tests.contents import listed_files
from tests.learn.scripts import javascript

BOOK = Path(__file__).resolve().parents[2] / "book"
FIRST = {"labs/lab00_units", "book/01_bandwidth_bound_decoding"}
PATHS = yaml.safe_load((BOOK / "paths.yml").read_text(encoding="utf-8"))
ITEM = {"id": "a", "chapter": "01_x", "section": "s", "level": "M", "stem": "?", "explain": "e"}
CHOICE = {"kind": "single", "options": [{"text": "a", "right": True}, {"text": "b", "why": "no"}]}


def made(pages, book=BOOK):
    return diagnostic.diagnostic(book, pages, lambda page: f"{page}.html")


@pytest.fixture
def book(tmp_path):
    """`book(paths=…, items=…)` → a folder with the two files, small and valid unless changed."""

    def write(items=(), **changed):
        plain = {"title": "Try", "items": [ITEM | CHOICE, *items]}
        paths = {"paths": [{"id": "3-day", "days": 3, "enough": 0, "missed": ["chapter"], "known": ["aloud"]}]}
        paths |= {"minutes": {"section": 10, "checkpoint": 15, "aloud": 5, "tool": 10}}
        paths |= {"topics": [{"title": "X", "chapter": "book/01_x", "read": 30}]}
        (tmp_path / "diagnostic.yml").write_text(yaml.safe_dump(plain))
        (tmp_path / "paths.yml").write_text(yaml.safe_dump(paths | changed))
        return tmp_path

    return write


# ---- the files -------------------------------------------------------------------------------------------------------


def test_the_book_asks_about_ten_questions_of_what_it_has():
    spec = made(set(listed_files())).spec
    assert 7 <= len(spec["quiz"]["items"]) <= 16
    asked = {item["page"] for item in spec["quiz"]["items"]}
    assert asked <= set(listed_files()) and asked == {p for t in spec["topics"] for p in t["pages"] if p in asked}
    linked = {part["page"] for topic in spec["topics"] for part in topic["parts"].values()}
    assert linked <= set(listed_files())


def test_every_chapter_and_lab_of_the_book_has_its_line_in_the_paths():
    known = {topic.get(kind) for topic in PATHS["topics"] for kind in ("chapter", "lab")}
    listed = [page for page in listed_files() if page.rsplit("/")[-1][:2].isdigit() or page.startswith("labs/")]
    assert [page for page in listed if page not in known] == [], "add a line to book/paths.yml"


def test_pages_that_are_not_listed_are_left_out_with_their_questions():
    spec = made(FIRST).spec
    assert [t["title"] for t in spec["topics"]] == ["Units and notation", "Why decoding is bandwidth-bound"]
    assert set(spec["topics"][1]["parts"]) == {"chapter", "checkpoint", "practice", "aloud"}, "no lab 1, no calculators"
    assert {item["page"] for item in spec["quiz"]["items"]} == FIRST
    more = made(FIRST | {"labs/lab01_roofline", "book/calculators"}).spec
    assert list(more["topics"][1]["parts"]) == ["chapter", "tool", "lab", "checkpoint", "practice", "aloud"]


def test_every_link_leads_to_a_heading():
    spec = made(set(listed_files())).spec
    links = {(item["page"], item["section"]) for item in spec["quiz"]["items"]}
    links |= {(p["page"], p["section"]) for topic in spec["topics"] for p in topic["parts"].values()}
    for page, section in sorted(links):
        assert not section or section in anchors(page), f"{page}.html#{section}"


def anchors(page):
    """The ids that a page of the book offers: of its headings, and of its (labels)=."""
    cells = json.loads((BOOK.parent / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).splitlines()]
    labels = {line[1:-2] for line in lines if line.startswith("(") and line.endswith(")=")}
    return labels | {make_id(line.lstrip("# ")) for line in lines if line.startswith("#")}


def test_practice_takes_the_minutes_of_its_problems():
    minutes = made(FIRST).spec["topics"][1]["parts"]["practice"]["minutes"]
    problems = yaml.safe_load((BOOK / "practice" / "01.yml").read_text(encoding="utf-8"))
    assert minutes == sum(problem["minutes"] for problem in problems)


def test_without_scripts_questions_answers_and_paths_read():
    widget = made(FIRST)
    assert widget.fallback.count("<details>") == len(widget.spec["quiz"]["items"])
    assert "The <strong>2-week path</strong>, if 40 % or more are right." in widget.fallback
    assert (
        '<a href="book/01_bandwidth_bound_decoding.html#practice-problems">the practice problems</a>' in widget.fallback
    )
    assert "The tail of the inter-token latencies" in widget.fallback.split("<summary>Answer</summary>")[-1]


REFUSED = {
    "paths.yml: paths.0.known.0: Input should be 'sections'": {"paths": [PATHS["paths"][0] | {"known": ["nap"]}]},
    "paths.yml: the file: enough must fall to 0": {"paths": PATHS["paths"][:2]},
    "paths.yml: the file: paths must get longer": {"paths": PATHS["paths"][::-1]},
    "paths.yml: topics.0: needs a chapter or a lab": {"topics": [{"title": "X"}]},
    "paths.yml: topics.0: chapter and read": {"topics": [{"title": "X", "chapter": "book/01_x"}]},
    "paths.yml: topics.0: practice and tool": {"topics": [{"title": "X", "lab": "labs/a", "do": 5, "practice": "01"}]},
    "paths.yml: topics.0.tool: String should match": {
        "topics": [{"title": "X", "chapter": "book/01_x", "read": 5, "tool": "book/tool"}]
    },
    "diagnostic.yml, a: chapter: no topic of paths.yml has the page book/01_x": {
        "topics": [{"title": "Y", "chapter": "book/02_y", "read": 5}]
    },
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_wrong_file_is_refused_in_one_sentence(book, sentence):
    with pytest.raises(DataError) as caught:
        made({"book/01_x"}, book(**REFUSED[sentence]))
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_a_question_that_cannot_be_scored_is_refused(book):
    cloze = ITEM | {"id": "b", "kind": "cloze", "stem": "[[x]]", "blanks": {"x": {"accept": ["y"]}}}
    with pytest.raises(DataError, match=r"diagnostic.yml, b: kind: 'cloze' is not one of numeric"):
        made({"book/01_x"}, book(items=[cloze]))


def test_no_question_left_is_said(book):
    with pytest.raises(DataError, match=r"asks about no page of _toc\.yml"):
        made({"book/99_other"}, book())


def test_every_draw_of_every_question_has_one_right_answer():
    """`quiz.load` checks it; here that it did, and that an estimate is not too easy."""
    from labcore.learn import quiz

    for item in quiz.load(BOOK / "diagnostic.yml").items:
        assert list(checks.problems(item)) == []
        assert item.kind != "predict" or item.within <= 1.5


# ---- from answers to days --------------------------------------------------------------------------------------------

SHORT = [{k: path[k] for k in ("id", "days", "enough")} for path in PATHS["paths"]]


@pytest.mark.parametrize(
    ("share", "left", "asked", "taken"),
    [
        (1.0, None, "3-day", "3-day"),
        (0.8, None, "3-day", "3-day"),
        (0.79, None, "2-week", "2-week"),
        (0.4, None, "2-week", "2-week"),
        (0.39, None, "6-week", "6-week"),
        (0.0, None, "6-week", "6-week"),
        (0.0, 60, "6-week", "6-week"),
        (0.0, 42, "6-week", "6-week"),
        (0.0, 41, "6-week", "2-week"),
        (0.0, 13, "6-week", "3-day"),
        (0.0, 0, "6-week", "3-day"),
        (1.0, 60, "3-day", "3-day"),
        (0.5, 14, "2-week", "2-week"),
        (0.5, 3, "2-week", "3-day"),
    ],
)
def test_the_path_is_what_the_answers_ask_for_and_the_date_allows(share, left, asked, taken):
    (found,) = javascript(["choose", SHORT, share, left])
    assert (found["asked"]["id"], found["path"]["id"]) == (asked, taken)


def test_a_topic_gets_what_its_answers_call_for():
    part = lambda name: {"label": name, "page": "book/x", "section": "", "minutes": 30}  # noqa: E731
    topics = [
        {"title": "X", "pages": ["book/x", "labs/x"], "parts": {"chapter": part("read x"), "lab": part("lab x")}},
        {"title": "Y", "pages": ["book/y"], "parts": {"chapter": part("read y")}},
    ]
    path = {"missed": ["sections", "lab"], "known": ["chapter", "practice"]}
    miss = lambda page, section: {"page": page, "section": section, "heading": section.upper()}  # noqa: E731
    twice = [miss("labs/x", "s"), miss("labs/x", "s"), miss("book/x", "t")]
    some, none = javascript(["tasks", path, topics, twice, 10], ["tasks", path, topics, [], 10])
    assert [t["label"] for t in some] == ["Read “S”", "Read “T”", "lab x", "read y"], (
        "a section once, no part that is not"
    )
    assert some[0] == {"label": "Read “S”", "page": "labs/x", "section": "s", "minutes": 10}
    assert [t["label"] for t in none] == ["read x", "read y"]


def test_a_schedule_by_hand():
    minutes = {"a": 30, "b": 40, "c": 90, "d": 20}
    (found,) = javascript(["schedule", [{"label": label, "minutes": m} for label, m in minutes.items()], 3])
    assert found["daily"] == 60
    assert [(r["first"], r["last"], [t["label"] for t in r["tasks"]]) for r in found["rows"]] == [
        (1, 1, ["a", "b"]),  # b runs ten minutes over
        (2, 3, ["c"]),
        (3, 3, ["d"]),
    ]


def test_a_schedule_holds_every_task_in_order_and_ends_on_its_last_day():
    rng = random.Random(5)
    cases = [
        ([{"label": str(n), "minutes": rng.choice((5, 10, 15, 75, 115))} for n in range(rng.randint(1, 25))], days)
        for days in (1, 2, 3, 14, 42)
        for _ in range(30)
    ]
    for (tasks, days), found in zip(cases, javascript(*(["schedule", *case] for case in cases)), strict=True):
        rows = found["rows"]
        assert [t for row in rows for t in row["tasks"]] == tasks
        assert found["daily"] == pytest.approx(sum(t["minutes"] for t in tasks) / days)
        assert (rows[0]["first"], rows[-1]["last"]) == (1, days)
        assert all(r["first"] == r["last"] for r in rows if max(t["minutes"] for t in r["tasks"]) <= found["daily"])
        for row, after in pairwise(rows):
            assert row["first"] <= row["last"] <= after["first"] <= row["last"] + 1, (
                "in order, and no empty day between"
            )


KEPT = {"day": "2026-01-10", "n": 0, "answers": {"a": "right", "b": "skipped"}, "path": None}


def test_a_kept_record_is_checked_before_it_is_used():
    broken = [None, [], {}, KEPT | {"day": "10 Jan"}, KEPT | {"n": -1}, KEPT | {"n": 0.5}, KEPT | {"answers": None}]
    broken += [KEPT | {"answers": {"a": "maybe"}}, KEPT | {"answers": {"a": "toString"}}, KEPT | {"path": 3}]
    broken += [{k: v for k, v in KEPT.items() if k != gone} for gone in KEPT]
    good = [KEPT, KEPT | {"answers": {}}, KEPT | {"path": "6-week", "n": 4}]
    assert javascript(*(["good", one] for one in good)) == [True] * len(good)
    assert javascript(*(["good", one] for one in broken)) == [False] * len(broken)


def test_progress_files_with_and_without_a_diagnostic_are_read():
    progress = {"version": 1, "interview": None, "started": {}, "items": {}, "days": {}}
    file = {"format": "labcore-progress", "exported": "2026-01-10", "progress": progress, "predictions": {}}
    old, new, bad = javascript(
        ["read", json.dumps(file)],
        ["read", json.dumps(file | {"diagnostic": KEPT})],
        ["read", json.dumps(file | {"diagnostic": KEPT | {"n": -1}})],
    )
    assert old["diagnostic"] is None and new["diagnostic"] == KEPT
    assert bad["error"] == "This file was not imported: its diagnostic is damaged. Your progress is unchanged."
