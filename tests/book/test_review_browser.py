# ruff: noqa: F811 (fixtures are imported)
"""The review in a real browser: what is due, what was missed, the interview date, progress to a file and back."""

from __future__ import annotations

import json

import pytest

from tests.book.axe import violations
from tests.book.conftest import every_setting
from tests.book.learning_site import (  # noqa: F401 (fixtures)
    NO_STORAGE,
    WARM_UP,
    address,
    answer,
    button,
    over_http,
    reader,
    scrolls_sideways,
    site,
    widget_browser,
    work_through,
)

DAY0 = [i.id for i in WARM_UP.items if i.rung == 0]
DAY3 = [i.id for i in WARM_UP.items if i.rung == 3]


def overview(me) -> str:
    return me.open("review").locator("main").inner_text()


def begun(reader, right=True, **options):
    """A reader who has answered what is due on the first day."""
    me = reader(now="2026-01-10T12:00:00", **options)
    work_through(me.open("quiz"), f"Start: {len(DAY0)} due", right)
    return me


def test_a_new_reader_is_shown_where_to_begin(reader):
    me = reader()
    assert "Nothing yet" in overview(me)
    link = me.page.get_by_role("link", name="Begin with Units").get_attribute("href")
    assert link == f"./labs/lab00_units.html#{WARM_UP.items[0].anchor}"


def test_what_is_due_is_asked_and_then_done(reader):
    me = begun(reader)
    text = overview(me)
    assert "Nothing is due today." in text and "Tue 13 Jan" in text and "in 3 days" in text
    due = len(DAY0) + len(DAY3)
    page = me.at("2026-01-13T08:00:00").open("review")
    assert f"{due} questions due today: Units and notation ({due})." in page.locator("main").inner_text()
    assert sorted(work_through(page, "Start the review")) == sorted(DAY0 + DAY3)
    text = page.locator("main").inner_text()
    assert "Nothing is due today." in text and "2 review days in a row" in text
    page.reload()
    assert "Nothing is due today." in page.locator("main").inner_text()


@over_http
def test_a_day_missed_ends_the_streak_without_a_word(reader):
    me = begun(reader)
    me.at("2026-01-13T08:00:00").open("review")
    work_through(me.page, "Start the review")
    assert "2 review days in a row" in overview(me)
    text = overview(me.at("2026-01-20T08:00:00"))
    assert "in a row" not in text and "streak" not in text.lower() and "lost" not in text.lower()


@over_http
def test_the_section_behind_every_miss_is_linked(reader):
    me = begun(reader, right=False)
    page = me.open("review")
    rows = page.locator("table", has_text="The section behind every miss").locator("tbody tr")
    assert sum(int(n) for n in rows.locator("td:nth-child(3)").all_inner_texts()) == len(DAY0)
    links = {link.get_attribute("href") for link in rows.locator("a").all()}
    assert links == {f"./labs/lab00_units.html#{i.anchor}" for i in WARM_UP.items if i.rung == 0}
    page = me.at("2026-01-13T08:00:00").open("review")
    work_through(page, "Start the review")
    assert "The section behind every miss" not in page.locator("main").inner_text()


@over_http
def test_an_interview_date_compresses_the_ladder_and_clearing_it_stretches_it(reader):
    me = begun(reader)
    page = me.open("review")
    page.get_by_label("Interview on").fill("2026-01-16")  # six days from the first
    page.get_by_label("Interview on").dispatch_event("change")
    text = page.locator("main").inner_text()
    assert "6 days left; waits are shortened to fit." in text
    ahead = page.locator("table", has_text="What comes next").locator("tbody td:first-child").all_inner_texts()
    assert ahead == ["Sun 11 Jan", "Tue 13 Jan", "Thu 15 Jan"]
    last = "2026-01-10"
    for day in range(11, 16):
        page = me.at(f"2026-01-{day}T08:00:00").open("review")
        if button(page, "Start the review").count():
            work_through(page, "Start the review")
            last = f"2026-01-{day}"
    assert last == "2026-01-15"
    assert {i["rung"] for n, i in me.stored()["items"].items() if n in DAY0} == {None}, (
        "the ladder was not finished in time"
    )
    button(page, "Clear").click()
    assert me.stored()["interview"] is None and "With a date" in page.locator("main").inner_text()


@over_http
def test_a_date_is_typed_without_losing_the_focus(reader):
    me = begun(reader)
    page = me.open("review")
    page.get_by_label("Interview on").focus()
    page.keyboard.type("01162026")
    assert me.stored()["interview"] == "2026-01-16" and "6 days left" in page.locator("main").inner_text()
    assert page.evaluate("document.activeElement.type") == "date"


def test_progress_is_exported_and_joined_into_another_browser(reader, tmp_path):
    me = begun(reader)
    with me.page.expect_download() as download:
        me.open("review")
        button(me.page, "Export progress").click()
    download.value.save_as(tmp_path / "progress.json")
    assert download.value.suggested_filename == "labcore-progress-2026-01-10.json"
    exported = json.loads((tmp_path / "progress.json").read_text())
    assert exported["progress"] == me.stored() and exported["format"] == "labcore-progress"
    other = reader(now="2026-01-11T12:00:00")
    page = other.open("quiz")
    button(page, "Practise all 19").click()
    assert answer(page, right=False) == DAY0[0]
    page = other.open("review")
    page.get_by_label("Import progress").set_input_files(tmp_path / "progress.json")
    page.get_by_text("Imported 5 questions").wait_for()
    items = other.stored()["items"]
    assert set(items) == set(DAY0) and items[DAY0[0]]["since"] == "2026-01-11", "the later record was not kept"
    assert other.stored()["started"] == {"00": "2026-01-10"}


@pytest.mark.parametrize("cut", [40, 400, 900])
@over_http
def test_a_corrupted_file_is_refused_and_nothing_is_lost(reader, tmp_path, cut):
    me = begun(reader)
    before = me.stored()
    whole = me.page.evaluate("labcoreWidgets.transfer.write()")
    (tmp_path / "cut.json").write_text(whole[:cut])
    (tmp_path / "wrong.json").write_text(whole.replace('"since": "2026', '"since": "26'))
    (tmp_path / "other.json").write_text('{"a": 1}')
    page = me.open("review")
    for name, says in (("cut", "not JSON"), ("wrong", "since is"), ("other", "not an exported progress file")):
        page.get_by_label("Import progress").set_input_files(tmp_path / f"{name}.json")
        page.get_by_text(says).wait_for()
        message = page.get_by_role("status").filter(has_text="not imported").inner_text()
        assert message.startswith("This file was not imported: ") and message.endswith("Your progress is unchanged.")
        assert me.stored() == before


def test_without_storage_the_review_works_and_says_so(reader):
    me = reader(scripts=[NO_STORAGE])
    assert "keeps nothing for this page" in overview(me) and "Nothing yet" in me.page.locator("main").inner_text()


@over_http
def test_another_tab_is_followed(reader):
    me = reader(now="2026-01-10T12:00:00")
    me.open("review")
    tab = me.context.new_page()
    tab.clock.set_fixed_time("2026-01-10T12:00:00")
    tab.goto(f"{me.address}/quiz.html")
    work_through(tab, f"Start: {len(DAY0)} due")
    me.page.get_by_text("Nothing is due today.").wait_for()


@over_http
@every_setting
def test_the_review_is_accessible_and_fits(reader, width, theme):
    me = begun(reader, right=False, width=width, theme=theme)
    page = me.open("review")
    assert not violations(page), violations(page)
    assert not scrolls_sideways(page)
    page = me.at("2026-01-13T08:00:00").open("review")
    assert not violations(page), violations(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".lq-stem").count() == 1, "the keyboard starts the review"


def test_the_built_book_shows_the_review_and_links_that_exist(built_book, browser):
    """One look at the real page, where the book is built."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((built_book / "book" / "review.html").as_uri())
    page.locator(".labcore-review").get_by_text("Nothing yet").wait_for()
    href = page.get_by_role("link", name="Begin with Units").evaluate("a => a.href")
    page.goto(href)
    missing = [i.anchor for i in WARM_UP.items if not page.locator(f"[id='{i.anchor}']").count()]
    context.close()
    assert not missing, missing
