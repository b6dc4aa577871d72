# ruff: noqa: F811 (fixtures are imported)
"""The diagnostic in a real browser: right, wrong and in part, by keyboard, kept, fitted to a date, moved."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from labcore.core.units import unit
from labcore.learn import quiz
from labcore.learn.book_ext.diagnostic import diagnostic
from labcore.learn.quiz import checks
from labcore.learn.quiz.text import fill
from tests.book.axe import violations
from tests.book.conftest import every_setting
from tests.book.learning_site import (  # noqa: F401 (fixtures)
    NO_STORAGE,
    ROOT,
    address,
    button,
    over_http,
    reader,
    scrolls_sideways,
    widget_browser,
)
from tests.book.widget_site import write_site
from tests.contents import listed_files

WIDGET = diagnostic(ROOT / "book", set(listed_files()), lambda page: f"{page}.html")
KEPT = {item["id"] for item in WIDGET.spec["quiz"]["items"]}
ITEMS = [item for item in quiz.load(ROOT / "book" / "diagnostic.yml").items if item.id in KEPT]
FIRST_CHAPTER = "book/01_bandwidth_bound_decoding"
START = "Start the diagnostic"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two pages: the diagnostic and the review."""
    folder = write_site(tmp_path_factory.mktemp("site"), {"diagnostic": WIDGET, "review": quiz.review()})
    for page in folder.glob("*.html"):
        page.write_text(page.read_text().replace('<html lang="en">', '<html lang="en" data-content_root="./">'))
    return folder


def answer(page, item, right=True, n=0):
    """Answer the question on the screen, which is `item` under its n-th draw."""
    found = checks.variants(item)
    values = found[n % len(found)]
    assert " ".join(fill(item.stem, values).split()) == " ".join(page.locator(".lq-stem").inner_text().split())
    if hasattr(item, "answer"):
        value = checks.evaluate(item.answer if right else item.distractors[0], values)
        page.locator(".lq-number").fill(repr(value / unit(item.answer.asked_in).scale))
    else:
        option = next(o for o in item.options if checks.holds(o, values) == right)
        page.get_by_label(fill(option.text, values), exact=True).check()
    button(page, "Answer").click()


def take(page, right=lambda item: True, n=0, start=START):
    """Answer everything; returns the sentence above the path."""
    button(page, start).click()
    for item in ITEMS:
        answer(page, item, right(item), n)
    return page.locator(".lq-head").inner_text()


def plan(page):
    """What the table says: [(when, [what])]."""
    rows = page.locator("table", has_text="minutes a day").locator("tbody tr")
    cells = [row.locator("td").all() for row in rows.all()]
    return [(when.inner_text(), what.locator("a").all_inner_texts()) for when, what in cells]


def links(page):
    hrefs = page.locator("table", has_text="minutes a day").locator("a")
    return [a.get_attribute("href") for a in hrefs.all()]


def test_all_right_leads_to_three_days_of_checkpoints(reader):
    page = reader().open("diagnostic")
    said = take(page)
    assert said.startswith(f"{len(ITEMS)} of {len(ITEMS)} right. That asks for the 3-day path.")
    assert page.evaluate("seen.diagnostic") == {"right": len(ITEMS), "of": len(ITEMS), "path": "3-day"}
    days = plan(page)
    assert days[0][0].startswith("Day 1, Sat 10 Jan") and "Mon 12 Jan" in days[-1][0]
    everything = [what for _, row in days for what in row]
    assert "Answer the checkpoint: Units and notation" in everything
    assert not [what for what in everything if what.startswith(("Read", "Do the lab"))]
    assert f"./{FIRST_CHAPTER}.html#checkpoint" in links(page)


def test_all_wrong_leads_to_six_weeks_of_everything(reader):
    page = reader().open("diagnostic")
    assert take(page, right=lambda item: False).startswith(f"0 of {len(ITEMS)} right. That asks for the 6-week path.")
    everything = [what for _, row in plan(page) for what in row]
    for what in ("Read “", "Do the lab: ", "Answer the checkpoint: ", "Work the practice problems: "):
        assert f"{what}Why decoding is bandwidth-bound" in " | ".join(everything)
    assert "Fri 20 Feb" in plan(page)[-1][0], "42 days, the first one counted"
    details = page.locator("details", has_text="Your answers, and the right ones")
    details.locator("summary").click()
    assert details.get_by_text("✗ wrong").count() == len(ITEMS)


@over_http
def test_a_mixed_result_sends_each_topic_where_its_answers_point(reader):
    page = reader().open("diagnostic")
    units = [item for item in ITEMS if item.page == "labs/lab00_units"]
    said = take(page, right=lambda item: item not in units)
    path = "3-day" if (len(ITEMS) - len(units)) / len(ITEMS) >= 0.8 else "2-week"
    assert f"{len(ITEMS) - len(units)} of {len(ITEMS)} right. That asks for the {path} path." in said
    everything = [what for _, row in plan(page) for what in row]
    assert "Do the lab: Units and notation" in everything, "missed"
    assert "Do the lab: Why decoding is bandwidth-bound" not in everything, "known"
    page.get_by_label("3-day", exact=False).check()
    sections = {f"./{item.page}.html#{item.anchor}" for item in units}
    assert sections <= set(links(page)), "the sections behind the misses"


@over_http
def test_not_knowing_is_an_answer_and_an_empty_one_is_not(reader):
    me = reader()
    page = me.open("diagnostic")
    button(page, START).click()
    button(page, "Answer").click()
    assert page.get_by_role("alert").filter(has_text="Enter a number.").count() == 1
    assert me.stored("diagnostic") is None
    button(page, "I do not know").click()
    assert me.stored("diagnostic")["answers"] == {ITEMS[0].id: "skipped"}
    assert "Question 2 of" in page.locator(".lq-meta").inner_text()


def test_a_reload_keeps_the_place_and_the_result(reader):
    me = reader()
    page = me.open("diagnostic")
    button(page, START).click()
    for item in ITEMS[:3]:
        answer(page, item)
    page.reload()
    button(page, "Go on with question 4").click()
    for item in ITEMS[3:]:
        answer(page, item, right=False)
    before = plan(page)
    assert before and me.stored("diagnostic")["answers"][ITEMS[0].id] == "right"
    page.reload()
    assert plan(page) == before
    me.at("2026-01-12T12:00:00")
    page.reload()
    assert plan(page) == before, "the days are counted from the day of the diagnostic"


@over_http
def test_a_path_of_ones_own_is_kept_until_given_up(reader):
    me = reader()
    page = me.open("diagnostic")
    take(page)
    assert page.get_by_label("3-day, yours").is_checked()
    page.get_by_label("2-week").check()
    assert (
        page.evaluate("document.activeElement.type") == "radio"
        and "The 2-week path" in page.locator("main").inner_text()
    )
    page.reload()
    assert page.get_by_label("2-week").is_checked() and me.stored("diagnostic")["path"] == "2-week"
    page.get_by_label("3-day, yours").check()
    assert me.stored("diagnostic")["path"] is None


@over_http
def test_taken_again_it_asks_with_other_numbers(reader):
    me = reader()
    page = me.open("diagnostic")
    take(page, right=lambda item: False)
    said = take(page, n=1, start="Take it again, with other numbers")
    assert said.startswith(f"{len(ITEMS)} of {len(ITEMS)} right.") and me.stored("diagnostic")["n"] == 1


@over_http
def test_the_interview_date_of_the_review_fits_the_path(reader):
    me = reader()
    page = me.open("diagnostic")
    assert "With an interview date set in Review" in take(page, right=lambda item: False)
    for date, says, days in (
        ("2026-01-30", "but your interview is in 20 days: take the 2-week path.", 14),
        ("2026-01-15", "but your interview is in 5 days: take the 3-day path.", 3),
        ("2026-01-11", "but your interview is in 1 day: take the 3-day path.", 1),
        ("2026-04-10", "asks for the 6-week path, and your interview is in 90 days.", 42),
        ("2026-01-09", "With an interview date set in Review", 42),
    ):
        page = me.open("review")
        page.get_by_label("Interview on").fill(date)
        page = me.open("diagnostic")
        assert says in page.locator(".lq-head").inner_text()
        last = plan(page)[-1][0]
        assert last.startswith(f"Day {days},") or f" to {days}," in last, last


@over_http
def test_another_tab_is_followed(reader):
    me = reader()
    page = me.open("diagnostic")
    take(page, right=lambda item: False)
    tab = me.context.new_page()
    tab.clock.set_fixed_time("2026-01-10T12:00:00")
    tab.goto(f"{me.address}/review.html")
    tab.get_by_label("Interview on").fill("2026-01-15")
    page.get_by_text("your interview is in 5 days").wait_for()


@over_http
def test_the_result_travels_with_the_progress(reader, tmp_path):
    me = reader()
    page = me.open("diagnostic")
    take(page, right=lambda item: False)
    mine = me.stored("diagnostic")
    with me.page.expect_download() as download:
        button(me.open("review"), "Export progress").click()
    download.value.save_as(tmp_path / "progress.json")
    assert json.loads((tmp_path / "progress.json").read_text())["diagnostic"] == mine
    other = reader()
    page = other.open("review")
    page.get_by_label("Import progress").set_input_files(tmp_path / "progress.json")
    page.get_by_text("Imported 0 questions").wait_for()
    assert other.stored("diagnostic") == mine
    later = reader(now="2026-01-20T12:00:00")
    take(later.open("diagnostic"))
    page = later.open("review")
    page.get_by_label("Import progress").set_input_files(tmp_path / "progress.json")
    page.get_by_text("Imported 0 questions").wait_for()
    assert later.stored("diagnostic")["day"] == "2026-01-20", "an older file replaced a later result"


@over_http
@pytest.mark.parametrize(
    "damaged", ["{broken", '{"day": "2026-01-10", "n": 0, "answers": {"x": "maybe"}, "path": null}']
)
def test_a_damaged_record_starts_anew(reader, damaged):
    page = reader(scripts=[f"localStorage.setItem('labcore.v1.diagnostic', {json.dumps(damaged)});"]).open("diagnostic")
    assert button(page, START).count() == 1


@over_http
def test_answers_about_what_is_gone_do_no_harm(reader):
    kept = {"day": "2026-01-10", "n": 0, "path": "1-day", "answers": {i.id: "right" for i in ITEMS} | {"old": "wrong"}}
    page = reader(scripts=[f"localStorage.setItem('labcore.v1.diagnostic', {json.dumps(json.dumps(kept))});"]).open(
        "diagnostic"
    )
    assert page.locator(".lq-head").inner_text().startswith(f"{len(ITEMS)} of {len(ITEMS)} right.")
    assert page.get_by_label("3-day, yours").is_checked(), "a path that does not exist is not taken"


def test_without_storage_it_works_and_says_so(reader):
    page = reader(scripts=[NO_STORAGE]).open("diagnostic")
    assert "keeps nothing for this page" in page.locator("main").inner_text()
    assert take(page).startswith(f"{len(ITEMS)} of")
    page.get_by_label("6-week").check()
    assert "The 6-week path" in page.locator("main").inner_text()


@over_http
def test_full_storage_is_said_aloud_and_the_result_still_comes(reader):
    full = "Storage.prototype.setItem = (k, v) => { if (v !== '1') throw new DOMException('', 'QuotaExceededError'); }"
    page = reader(scripts=[full]).open("diagnostic")
    assert take(page).startswith(f"{len(ITEMS)} of")
    assert page.get_by_role("alert").filter(has_text="storage is full").count() == 1


@over_http
def test_the_keyboard_alone_is_enough(reader):
    me = reader()
    page = me.open("diagnostic")
    keys = page.keyboard
    focused = "(a => a === document.body ? '' : a.textContent + a.type)(document.activeElement)"

    def tab_to(text):
        for _ in range(80):  # a path links to every page it names
            if text in page.evaluate(focused):
                return
            keys.press("Tab")
        raise AssertionError(f"Tab never reaches {text!r}")

    tab_to(START)
    keys.press("Enter")
    for number, item in enumerate(ITEMS, 1):
        assert page.evaluate("document.activeElement.textContent") == f"Question {number} of {len(ITEMS)}"
        if hasattr(item, "answer"):
            tab_to("text")
            keys.type("1")
            keys.press("Enter")
        else:
            tab_to("radio")
            keys.press("Space")
            tab_to("Answer")
            keys.press("Enter")
    assert "That asks for the" in page.evaluate("document.activeElement.textContent")
    tab_to("radio")
    keys.press("ArrowLeft")
    assert me.stored("diagnostic")["path"] is not None and page.evaluate("document.activeElement.checked")
    tab_to("Your answers")
    keys.press("Enter")
    assert page.get_by_text("The answer:").first.is_visible()


@over_http
@every_setting
def test_every_state_is_accessible_and_fits(reader, width, theme):
    page = reader(width=width, theme=theme).open("diagnostic")
    found = violations(page)
    button(page, START).click()
    for number, item in enumerate(ITEMS):
        if item.kind not in {one.kind for one in ITEMS[:number]}:
            found += [f"{item.id}: {line}" for line in violations(page)]
        assert not scrolls_sideways(page), item.id
        answer(page, item, right=item.kind == "numeric")
    page.get_by_text("Your answers, and the right ones").click()
    found += violations(page)
    assert not scrolls_sideways(page)
    assert not found, "\n".join(found)


def test_without_scripts_questions_and_paths_are_readable(widget_browser, address):
    context = widget_browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/diagnostic.html")
    page.locator("summary").last.click()
    text = page.locator("main").inner_text()
    context.close()
    assert "The 3-day path, if 80 % or more are right." in text and "the practice problems (" in text
    assert fill(ITEMS[-1].explain, checks.variants(ITEMS[-1])[0]).split(".")[0] in " ".join(text.split())


def test_the_built_book_opens_with_it_and_every_link_leads_somewhere(built_book, browser):
    """One look at the real page: all wrong, so that everything is linked."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((built_book / "book" / "index.html").as_uri())
    button(page, START).click()
    while button(page, "I do not know").count():
        button(page, "I do not know").click()
    found = set()
    for path in ("6-week", "3-day"):
        page.get_by_label(path, exact=False).check()
        found |= set(page.locator(".labcore-diagnostic a").evaluate_all("all => all.map((a) => a.href)"))
    assert len(found) > 10
    context.close()
    for href in sorted(found):
        parts = urlsplit(href)
        target = Path(unquote(parts.path)).read_text(encoding="utf-8")
        assert not parts.fragment or f'id="{unquote(parts.fragment)}"' in target, href
