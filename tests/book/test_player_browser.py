# ruff: noqa: F811 (fixtures are imported)
"""Player and Predict in a real browser: every step shows what the trace says, by mouse, keyboard and table."""

from __future__ import annotations

import pytest

from labcore.learn.player import Player
from labcore.learn.trace import replay, trace
from labcore.learn.widgets.numbers import number
from tests.book.axe import violations
from tests.book.conftest import every_setting
from tests.book.learning_site import (  # noqa: F401 (fixtures)
    NO_STORAGE,
    address,
    button,
    over_http,
    reader,
    scrolls_sideways,
    site,
    widget_browser,
)
from tests.learn.traces import RUNS

SPECS = {view: Player(run()).spec for view, run in RUNS.items()}


def step_of(page) -> int:
    return int(page.locator("input[type=range]").input_value())


def shows(page, view: str, step: int) -> None:
    """The text and the counters on the screen are those of the step."""
    spec = SPECS[view]
    assert (
        page.locator(".lp-what").inner_text()
        == f"Step {step} of {len(spec['steps']) - 1}. {spec['steps'][step]['text']}"
    )
    for counter, shown in zip(spec["counters"], page.locator(".lp-counters dd").all_inner_texts(), strict=True):
        value = number(spec["steps"][step]["counters"][counter["name"]] / counter["scale"])
        assert shown == (value if counter["unit"] == "1" else f"{value} {counter['unit']}")


@pytest.mark.parametrize("view", RUNS)
def test_the_keyboard_steps_through_a_run(reader, view):
    page = reader().open(view)
    last = len(SPECS[view]["steps"]) - 1
    page.locator(".lp-stage").focus()
    for key, step in (
        ("ArrowLeft", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert step_of(page) == step
        shows(page, view, step)


@over_http
@pytest.mark.parametrize("view", RUNS)
def test_buttons_scrubber_and_table_reach_every_step(reader, view):
    page = reader().open(view)
    button(page, "Step forward").click()
    shows(page, view, 1)
    button(page, "Step back").click()
    shows(page, view, 0)
    page.locator("input[type=range]").fill("4")
    shows(page, view, 4)
    page.get_by_text("Every step as a table").click()
    rows = page.locator(".lp-listing tbody tr")
    rows.first.wait_for()
    assert rows.count() == len(SPECS[view]["steps"])
    assert rows.nth(3).locator("td").nth(1).inner_text() == SPECS[view]["steps"][3]["text"]
    page.get_by_label("Go to step 3", exact=True).click()
    shows(page, view, 3)


def test_playing_moves_and_stops_at_the_end(reader):
    """At ten steps a second on a clock that the test moves."""
    me = reader()
    clock = me.page.clock
    clock.install(time="2026-01-10T12:00:00")
    page = me.open("tokens")
    clock.pause_at("2026-01-10T13:00:00")
    page.get_by_label("Speed").select_option("10")
    page.locator(".lp-stage").focus()
    page.keyboard.press("Space")
    button(page, "Pause").wait_for()
    clock.run_for(250)
    assert step_of(page) == 2
    button(page, "Pause").click()
    clock.run_for(1000)
    assert step_of(page) == 2
    button(page, "Play").click()
    clock.run_for(400)
    assert step_of(page) == 6 and button(page, "Pause").count() == 1
    clock.run_for(1000)
    assert step_of(page) == 7 and button(page, "Play").count() == 1
    assert page.evaluate("seen.tokens.step") == 7


@over_http
def test_the_pool_on_the_screen_is_the_pool_of_the_run(reader):
    page = reader().open("blocks")
    found = trace(RUNS["blocks"]())
    page.locator(".lp-stage").focus()
    for state in replay(found):
        blocks = [text.split("\n") for text in page.locator(".lp-block").all_inner_texts()]
        for number_of, (refs, block) in enumerate(zip(state["refs"], blocks, strict=True)):
            owners = [seq for seq, table in state["tables"].items() if number_of in table]
            nobody = "null" if number_of == found.model_extra["null_block"] else "free"
            assert block[0] == str(number_of) and sorted(block[1].split()) == (sorted(owners) or [nobody])
            assert (f"×{refs}" in block) == (refs > 1)
        tables = [text.split("→") for text in page.locator(".lp-table").all_inner_texts() if "→" in text]
        assert [head.split()[0] for head, _ in tables] == list(state["tables"])
        for (head, entries), (seq, table) in zip(tables, state["tables"].items(), strict=True):
            assert head.split()[1] == str(state["lengths"][seq]) and "".join(entries.split()) == "".join(
                map(str, table)
            )
        page.keyboard.press("ArrowRight")


@over_http
def test_the_gantt_shows_each_slot_of_each_step(reader):
    page = reader().open("gantt")
    spec = SPECS["gantt"]
    kinds = page.locator(".lp-svg g .lp-cell").evaluate_all(
        "cells => cells.map(c => c.getAttribute('class').slice(11))"
    )
    expected = []
    for step in spec["steps"]:
        busy = {e["slot"]: e["kind"] for e in step["events"]}
        expected += [busy.get(slot, "idle") for slot in range(spec["slots"])]
    assert kinds == expected
    hatched = page.locator(".lp-svg g rect[fill^='url']").count()
    assert hatched == expected.count("prefill") > 0
    page.locator("input[type=range]").fill("6")
    assert page.locator("g.lp-future").count() == len(spec["steps"]) - 7


@over_http
def test_the_tape_keeps_what_was_accepted(reader):
    page = reader().open("tokens")
    page.locator(".lp-stage").focus()
    page.keyboard.press("End")
    kept = []
    for step in SPECS["tokens"]["steps"]:
        event = step["events"][0]
        kept += [*event["drafted"][: event["accepted"]], event.get("resampled") or event["bonus"]]
    shown = page.locator(".lp-tape").nth(1).locator(".lp-chip").all_inner_texts()
    assert [text.split("␣")[-1].split("\n")[0].split(" ")[0].strip("✓↻+") for text in shown] == [
        t.strip() for t in kept
    ]
    kinds = {e for step in SPECS["tokens"]["steps"] for e in step["events"][0]}
    assert {"resampled", "bonus"} <= kinds, "the run shows both ends of a round"


@over_http
def test_the_tiles_mark_what_was_skipped(reader):
    page = reader().open("tiles")
    page.locator(".lp-stage").focus()
    page.keyboard.press("End")
    steps = SPECS["tiles"]["steps"]
    skipped = sum(step["events"][0]["skipped"] for step in steps)
    assert page.locator(".lp-skipped").count() == skipped - 0 - bool(steps[-1]["events"][0]["skipped"])
    assert page.locator(".lp-done").count() + page.locator(".lp-skipped").count() == len(steps) - 1
    values = [e["values"] for step in steps for e in step["events"] if e["values"]][-1]
    assert all(f"{k} = {number(v)}" in page.locator(".lp-values").inner_text() for k, v in values.items())


@over_http
@every_setting
def test_players_are_accessible_and_fit(reader, width, theme):
    me, found = reader(width=width, theme=theme), []
    for name in (*RUNS, "predict", "reveal"):
        page = me.open(name)
        if name in RUNS:
            button(page, "Step forward").click()
            page.get_by_text("Every step as a table").click()
        found += [f"{name}: {line}" for line in violations(page)]
        found += [f"{name} scrolls sideways"] * scrolls_sideways(page)
    assert not found, "\n".join(found)


# ---- predict ---------------------------------------------------------------------------------------------------------


def test_a_prediction_is_kept_and_shown_beside_the_result(reader):
    me = reader()
    assert "You made no prediction" in me.open("reveal").locator("main").inner_text()
    page = me.open("predict")
    page.get_by_label("Your number in %").fill("about half")
    button(page, "Keep it").click()
    assert (
        "is not a number" in page.get_by_role("alert").inner_text() or "in %" in page.get_by_role("alert").inner_text()
    )
    page.get_by_label("Your number in %").fill("80")
    page.keyboard.press("Enter")
    assert "You predicted 80 %" in page.locator("main").inner_text()
    assert page.evaluate("seen.predict") == {"id": "try.u16", "value": 80, "unit": "%"}
    page.reload()
    assert "You predicted 80 %" in page.locator("main").inner_text()
    text = me.open("reveal").locator("main").inner_text()
    assert "You predicted 80 %" in text and "computed 99.5 %" in text and "20 % too low" in text


@over_http
def test_a_prediction_can_be_changed_before_the_result(reader):
    page = reader().open("predict")
    for value in ("80", "99"):
        if button(page, "Change it").count():
            button(page, "Change it").click()
        page.locator("input").fill(value)
        button(page, "Keep it").click()
    assert "You predicted 99 %" in page.locator("main").inner_text()


def test_predictions_work_without_storage(reader):
    page = reader(scripts=[NO_STORAGE]).open("predict")
    page.locator("input").fill("80")
    button(page, "Keep it").click()
    text = page.locator("main").inner_text()
    assert "You predicted 80 %" in text and "keeps nothing for this page" in text
