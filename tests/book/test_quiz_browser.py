# ruff: noqa: F811 (fixtures are imported)
"""The quiz in a real browser: answers, the ladder by the clock, storage that fails, keyboard, screen reader, phone."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from labcore.learn import quiz
from labcore.learn.widgets.base import module_source
from tests.book.axe import violations
from tests.book.conftest import every_setting
from tests.book.learning_site import (  # noqa: F401 (fixtures)
    ITEMS,
    NO_STORAGE,
    WARM_UP,
    address,
    answer,
    button,
    current,
    over_http,
    reader,
    scrolls_sideways,
    site,
    widget_browser,
    work_through,
)

RUNGS = {rung: [i.id for i in WARM_UP.items if i.rung == rung] for rung in (0, 3, 7, 14, 21)}


def test_a_wrong_number_is_named_by_its_error_and_counts_once(reader):
    me = reader()
    page = me.open("quiz")
    button(page, f"Start: {len(RUNGS[0])} due").click()
    assert answer(page, right=False) == "units.gib.001"
    verdict = page.locator(".lq-verdict")
    assert "✗ Not right." in verdict.inner_text() and "takes GB and GiB for the same unit" in verdict.inner_text()
    assert "in 3 days" in verdict.inner_text() and "2³⁰" not in verdict.inner_text()
    href = page.get_by_role("link", name="Read the section again").get_attribute("href")
    assert href == "./labs/lab00_units.html#bytes-gb-is-not-gib"
    button(page, "Try again").click()
    answer(page)
    assert "✓ Right." in verdict.inner_text() and "through bytes" in verdict.inner_text().lower()
    record = me.stored()["items"]["units.gib.001"]
    assert (record["last"], record["n"], record["right"], record["rung"]) == ("fail", 1, 0, 3)
    page.reload()
    assert me.stored()["items"]["units.gib.001"] == record
    assert "4 of 19 questions are due today" in page.locator(".lq-card").inner_text()


def test_every_kind_is_answered_right_and_the_summary_says_so(reader):
    me = reader()
    page = me.open("quiz")
    button(page, "Practise all 19").click()
    for _ in WARM_UP.items:
        answer(page)
        assert "✓ Right." in page.locator(".lq-verdict").inner_text(), current(page)
        page.locator(".lq-verdict .labcore-primary").click()
    assert "19 of 19 right." in page.locator(".lq-card").inner_text()
    assert page.evaluate("seen.quiz.outcome") == "pass"


@over_http
def test_every_kind_is_answered_wrong_and_the_sections_are_listed(reader):
    page = reader().open("quiz")
    button(page, "Practise all 19").click()
    for _ in WARM_UP.items:
        name = answer(page, right=False)
        text = page.locator(".lq-verdict").inner_text()
        assert ("Noted: not there yet." if name == "units.falsify.001" else "✗ Not right.") in text, name
        if ITEMS[name].kind in ("numeric", "predict", "single", "multi", "diagnose"):
            assert "The likely error: " in text, name
        if ITEMS[name].kind != "spoken":
            button(page, "Show the answer").click()
            assert "The answer:" in page.locator(".lq-verdict").inner_text()
        page.locator(".lq-verdict .labcore-primary").click()
    assert "0 of 19 right." in page.locator(".lq-card").inner_text()
    assert page.locator(".lq-card a").count() == len({i.anchor for i in WARM_UP.items})


@over_http
def test_the_clock_walks_the_ladder(reader):
    me = reader(now="2026-03-26T12:00:00")  # the clocks change on day 3
    expected, first = [], date(2026, 3, 26)
    for rung, asked in RUNGS.items():
        expected += asked
        day = first + timedelta(days=rung)
        if rung:
            evening = me.at(f"{day - timedelta(days=1)}T23:55:00").open("quiz")
            assert "Nothing is due today." in evening.locator(".lq-card").inner_text(), f"early for day {rung}"
        page = me.at(f"{day}T00:05:00").open("quiz")
        assert f"{len(expected)} of 19 questions are due today" in page.locator(".lq-card").inner_text()
        assert sorted(work_through(page, f"Start: {len(expected)} due")) == sorted(expected)
        assert "questions are due" not in page.locator(".lq-card").inner_text()
    assert "Every question has passed the whole ladder." in me.open("quiz").locator(".lq-card").inner_text()


@over_http
def test_a_miss_comes_back_on_day_3_wherever_the_reader_has_travelled(reader):
    tokyo = reader(now="2026-01-10T23:30:00", zone="Asia/Tokyo")
    page = tokyo.open("quiz")
    button(page, f"Start: {len(RUNGS[0])} due").click()
    name = answer(page, right=False)
    assert tokyo.stored()["items"][name]["since"] == "2026-01-10"
    kept = json.dumps(tokyo.page.evaluate("JSON.stringify(localStorage)"))
    carry = f"for (const [k, v] of Object.entries(JSON.parse({kept}))) localStorage.setItem(k, v);"
    angeles = reader(now="2026-01-12T23:50:00", zone="America/Los_Angeles", scripts=[carry])
    assert f"Start: {len(RUNGS[0]) - 1} due" in angeles.open("quiz").locator(".lq-card").inner_text()
    page = angeles.at("2026-01-13T00:10:00").open("quiz")
    assert f"Start: {len(RUNGS[0]) + len(RUNGS[3])} due" in page.locator(".lq-card").inner_text()


@over_http
def test_the_numbers_are_fresh_the_next_time(reader):
    me = reader()
    drawn = set()
    for _ in range(4):
        page = me.open("quiz")
        button(page, "Practise all 19").click()
        drawn.add(page.locator(".lq-stem").inner_text())
        answer(page)
    assert len(drawn) == 4


@over_http
def test_a_hint_makes_a_right_answer_wait_again(reader):
    me = reader()
    page = me.open("quiz")
    button(page, f"Start: {len(RUNGS[0])} due").click()
    button(page, "Hint (2)").click()
    assert "Go through bytes." in page.locator(".lq-hints").inner_text()
    answer(page)
    assert "✓ Right, with a hint." in page.locator(".lq-verdict").inner_text()
    assert me.stored()["items"]["units.gib.001"]["last"] == "hold"


@over_http
def test_a_follow_up_is_asked_next(reader):
    page = reader().open("quiz")
    button(page, "Practise all 19").click()
    while answer(page) != "units.bound.001":
        page.locator(".lq-verdict .labcore-primary").click()
    button(page, "Change one assumption").click()
    assert current(page)[0].id == "units.floor.001"


@over_http
def test_an_unfinished_answer_is_asked_for_and_not_recorded(reader):
    me = reader()
    page = me.open("quiz")
    button(page, f"Start: {len(RUNGS[0])} due").click()
    for typed, says in (("", "Enter a number."), ("5 GiB", "Give the number in GB"), ("lots", "is not a number")):
        page.locator(".lq-number").fill(typed)
        button(page, "Check").click()
        assert says in page.get_by_role("alert").inner_text()
    assert me.stored() is None


def test_without_storage_everything_works_and_says_so(reader):
    me = reader(scripts=[NO_STORAGE])
    page = me.open("quiz")
    assert "keeps nothing for this page" in page.locator("main").inner_text()
    assert work_through(page, f"Start: {len(RUNGS[0])} due") == RUNGS[0]
    assert "Nothing is due today." in page.locator(".lq-card").inner_text()
    page.reload()
    assert f"Start: {len(RUNGS[0])} due" in page.locator(".lq-card").inner_text()


@pytest.mark.parametrize("damaged", ["{broken", '{"version": 1}', '{"version": 9, "items": {}}', "null"])
def test_damaged_progress_is_set_aside_not_thrown_away(reader, damaged):
    once = "if (!sessionStorage.x) { sessionStorage.x = 1; localStorage.setItem('labcore.v1.progress', %s); }"
    me = reader(scripts=[once % json.dumps(damaged)])
    page = me.open("quiz")
    assert "It was set aside" in page.get_by_role("alert").inner_text()
    assert page.evaluate("JSON.parse(localStorage['labcore.v1.progress.damaged'])") == damaged
    work_through(page, f"Start: {len(RUNGS[0])} due")
    assert len(me.stored()["items"]) == len(RUNGS[0])


@over_http
def test_full_storage_is_said_aloud(reader):
    full = "Storage.prototype.setItem = (k, v) => { if (v !== '1') throw new DOMException('', 'QuotaExceededError'); }"
    page = reader(scripts=[full]).open("quiz")
    button(page, f"Start: {len(RUNGS[0])} due").click()
    answer(page)
    assert "storage is full" in page.locator(".lq-verdict").inner_text()


@over_http
def test_the_keyboard_alone_is_enough(reader):
    me = reader()
    page = me.open("quiz")
    keys = page.keyboard

    focus = "(a => a.textContent + (a.ariaLabel || '') + a.tagName)(document.activeElement)"

    def tab_to(text):
        for _ in range(30):
            keys.press("Tab")
            if text in page.evaluate(focus):
                return
        raise AssertionError(f"Tab never reaches {text!r}")

    tab_to("Start")
    keys.press("Enter")
    tab_to("INPUT")
    keys.type("1")
    keys.press("Enter")  # a wrong number
    assert page.evaluate("document.activeElement.className").startswith("lq-verdict")
    tab_to("Next question")
    keys.press("Enter")
    assert "Question 2" in page.evaluate("document.activeElement.textContent")
    tab_to("INPUT")
    keys.type("1")
    keys.press("Enter")
    tab_to("Next question")
    keys.press("Enter")
    tab_to("INPUT")  # radio buttons
    keys.press("ArrowDown")
    keys.press("Enter")
    assert page.locator(".lq-verdict").inner_text()
    assert len(me.stored()["items"]) == 3


@over_http
def test_sorting_by_keyboard_keeps_the_focus(reader):
    page = reader().open("quiz")
    button(page, "Practise all 19").click()
    while current(page)[0].kind != "order":
        answer(page)
        page.locator(".lq-verdict .labcore-primary").click()
    last = page.locator(".lq-order li").last.locator("button").first
    last.focus()
    label = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == label
    assert page.locator(".lq-order li").nth(2).locator("button").first.get_attribute("aria-label") == label


@over_http
@every_setting
def test_every_state_of_every_kind_is_accessible_and_fits(reader, width, theme):
    page = reader(width=width, theme=theme).open("quiz")
    found = violations(page)
    button(page, "Practise all 19").click()
    for number, item in enumerate(WARM_UP.items):
        name, kinds = current(page)[0].id, {i.kind for i in WARM_UP.items[:number]}
        if item.kind not in kinds:
            found += [f"{name}, asked: {line}" for line in violations(page)]
        answer(page, right=number % 2 == 0)
        if item.kind not in kinds:
            found += [f"{name}, answered: {line}" for line in violations(page)]
        assert not scrolls_sideways(page), name
        page.locator(".lq-verdict .labcore-primary").click()
    found += violations(page)
    assert not found, "\n".join(found)


# What anywidget does in a live notebook: import the module, call render with a model.
AS_NOTEBOOK = """async ([source, spec]) => {
  document.querySelector("main").replaceChildren();
  delete globalThis.labcoreData;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const state = { component: "quiz", spec, value: {} };
  const quiet = { save_changes() {}, on() {}, off() {} };
  globalThis.model = { ...quiet, state, get: (k) => state[k], set: (k, v) => (state[k] = v) };
  (await import(url)).default.render({ model: globalThis.model, el: document.querySelector("main") });
}"""


@over_http
def test_the_notebook_widget_brings_its_own_items_and_reports_answers(reader):
    page = reader().open("quiz")
    page.evaluate(AS_NOTEBOOK, [module_source(), quiz.quiz("00").spec])
    button(page, f"Start: {len(RUNGS[0])} due").click()
    name = answer(page)
    assert page.evaluate("model.state.value") == {"quiz": "00", "item": name, "outcome": "pass"}


def test_without_scripts_the_questions_are_readable_and_the_answers_absent(widget_browser, address):
    context = widget_browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/quiz.html")
    text = page.locator("main").inner_text()
    context.close()
    assert all(sign in text for sign in ("A driver reports", "gemm dtype", "FLOP ÷ B", "______"))
    assert not any(item.explain[:30] in text for item in WARM_UP.items)
