"""Calculators in a real browser without network, on a small site. Every result is compared with Python's.

How a page starts is tried from disk and over http; what the reader then does cannot depend on it.
"""

from __future__ import annotations

import html
import json
import math
import random

import pytest

from labcore import facts
from labcore.bench.record import provenance
from labcore.core.errors import InputError
from labcore.learn import widgets
from labcore.learn.widgets import numbers
from tests.book.axe import TAGS, violations
from tests.book.conftest import ROOT, TIMEOUT, Watch, every_setting, serve
from tests.book.widget_site import widget_browser, write_site  # noqa: F401 (widget_browser is a fixture)
from tests.learn.measured_run import measured_run

MEASURED = measured_run()
CALCULATORS = {
    "roofline": widgets.roofline_explorer("a100-80-sxm", "llama-2-70b", batch=32, context=1024),
    "kv": widgets.kv_calculator("llama-3-70b", "h100-sxm", gpus=4, sequences=32),
    "size": widgets.size_calculator("mixtral-8x7b", "q4_k", kept="all but experts"),
    "utilization": widgets.formula_calculator("kv.paging.utilization", chart="S", S=16, n=1366),
    "drafts": widgets.draft_planner("llama-3-70b", "a100-80-sxm", batch=64, context=8192),
    "measured": widgets.measured_roofline(MEASURED),
}
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
CONFIG |= {"num_hidden_layers": 36, "intermediate_size": 9728, "vocab_size": 151936, "tie_word_embeddings": True}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The small site on disk."""
    return write_site(tmp_path_factory.mktemp("site"), CALCULATORS)


@pytest.fixture(scope="module")
def served(site):
    """The address of the small site over http."""
    with serve(site) as address:
        yield address


@pytest.fixture
def open_page(widget_browser):  # noqa: F811
    """`open_page(url, width=1280, theme="light", …)` → a page; the test fails on logged errors and remote requests."""
    contexts, watch = [], Watch()

    def go(url, width=1280, theme="light", script=None, **options):
        context = widget_browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        watch.attach(page)
        page.goto(url, wait_until="load")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not watch.problems, "\n".join(watch.problems)


@pytest.fixture(params=["disk", "http"])
def address(request, site):
    """Where the site's pages are: from disk, then over http."""
    return site.as_uri() if request.param == "disk" else request.getfixturevalue("served")


SET = (ROOT / "tests/js/set_controls.js").read_text(encoding="utf-8")
CONTRAST = (ROOT / "tests/js/contrast.js").read_text(encoding="utf-8")


def states(name, n):
    """`n` settings of a calculator that the reader can reach, drawn from fixed seeds."""
    rng, out = random.Random(name), []
    calculator = CALCULATORS[name]
    while len(out) < n:
        state = {}
        for i in calculator.spec["inputs"]:
            if i["kind"] == "number":
                low, high = max(i["low"], i["high"] * 1e-6), i["high"]
                value = math.exp(rng.uniform(math.log(low), math.log(high)))
                state[i["id"]] = round(value) if i.get("integer") else float(f"{value:.4g}")
            elif i["kind"] == "model":
                state[i["id"]] = rng.choice(facts.model_ids())
            else:
                state[i["id"]] = rng.choice(
                    [c["value"] for c in i["choices"]]
                    if "choices" in i
                    else [*i.get("devices", {}), *facts.hardware_ids()]
                )
        try:
            calculator.results(**state)
        except InputError:
            continue
        out.append(state)
    return out


def assert_page_agrees(answer, calculator, state):
    """What the page reports equals Python's results, and what it shows is their text."""
    wanted = calculator.results(**state)
    assert answer["errors"] == ""
    assert answer["reported"]["inputs"].keys() == state.keys()
    for key, value in wanted.items():
        found = answer["reported"]["results"][key]
        assert (found is None) == (value is None) and (value is None or math.isclose(found, value, rel_tol=1e-9)), (
            key,
            state,
        )
        unit = next(r["unit"] for r in calculator.spec["results"] if r["id"] == key)
        assert value is None or answer["cells"][key] == numbers.text(value, unit)
    assert answer["summary"] == calculator.summary(**state)


@pytest.mark.parametrize("name", CALCULATORS)
def test_results_equal_python(open_page, site, name):
    page = open_page(f"{site.as_uri()}/{name}.html")
    for state in states(name, 25):
        assert_page_agrees(page.evaluate(SET, [name, state]), CALCULATORS[name], state)


@pytest.mark.parametrize("name", CALCULATORS)
def test_opens_with_what_python_shows(open_page, address, name):
    page = open_page(f"{address}/{name}.html")
    default = {i["id"]: i["value"] for i in CALCULATORS[name].spec["inputs"]}
    assert page.evaluate(f"globalThis.seen.{name}.inputs") == default
    boxes = page.get_by_role("textbox")
    if boxes.count():
        control, value = boxes.first, "7"
        control.fill(value)
    else:  # only choices
        control, value = page.get_by_role("combobox").nth(1), CALCULATORS[name].spec["inputs"][1]["choices"][0]["value"]
        assert control.input_value() != value
        control.select_option(value)
    page.evaluate("labcoreWidgets.mount(document)")
    assert control.input_value() == value, "mounting again lost what the reader had set"


@pytest.mark.parametrize("name", CALCULATORS)
def test_without_scripts_the_fallback_reads(open_page, site, name):
    page = open_page(f"{site.as_uri()}/{name}.html", java_script_enabled=False)
    text, calculator = page.locator("main").inner_text(), CALCULATORS[name]
    assert calculator.summary() in text
    for row in calculator.spec["results"]:
        assert row["label"] in text
        value = calculator.results()[row["id"]]
        assert value is None or numbers.text(value, row["unit"]) in text


# ---- keyboard --------------------------------------------------------------------------------------------------------


def focused(page):
    """Accessible name of the focused element."""
    return page.evaluate(
        "() => { const e = document.activeElement; return e.ariaLabel || e.labels?.[0]?.textContent || e.textContent; }"
    )


def test_keyboard_alone(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    order = []
    for _ in range(10):
        page.keyboard.press("Tab")
        order.append(focused(page))
    wanted = ["Device", "Weights", "KV cache", "Model", "Batch slider", "Batch (sequences)", "Context slider"]
    assert order == [*wanted, "Context (tokens)", "Reset", "The formulas behind it"]

    page.get_by_role("slider", name="Batch slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("seen.roofline.inputs.B") == 48
    assert page.get_by_role("slider", name="Batch slider").get_attribute("aria-valuetext") == "48 sequences"
    page.keyboard.press("End")
    assert page.evaluate("seen.roofline.inputs.B") == 1024
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("100")
    assert page.evaluate("seen.roofline.inputs.B") == 100
    wanted = CALCULATORS["roofline"].results(B=100)["t_step"]
    assert page.evaluate("seen.roofline.results.t_step") == pytest.approx(wanted)

    page.get_by_role("combobox", name="Device").focus()
    page.keyboard.type("NVIDIA H200")
    assert page.evaluate("seen.roofline.inputs.hardware") == "h200"
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("seen.roofline.inputs") == {
        i["id"]: i["value"] for i in CALCULATORS["roofline"].spec["inputs"]
    }
    page.get_by_text("The formulas behind it").focus()
    page.keyboard.press("Enter")
    assert page.get_by_text('formula["roofline.intensity_kv"]').is_visible()


def test_the_result_is_announced_once_it_settles(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    live = "document.querySelector('[role=status][aria-live=polite]')"
    page.wait_for_function(f"{live}.textContent")  # the opening result has been announced
    page.evaluate(
        f"() => {{ globalThis.said = []; const live = {live};"
        "new MutationObserver(() => said.push(live.textContent)).observe(live, { childList: true }); }"
    )
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.get_by_role("slider", name="Batch slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        page.clock.run_for(300)
    assert page.evaluate("said") == [], "announced while the slider moved"
    page.clock.run_for(300)
    assert page.evaluate("said") == [CALCULATORS["roofline"].summary(B=96)]


def test_focus_is_visible(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    page.keyboard.press("Tab")
    width, style = page.evaluate(
        "() => { const s = getComputedStyle(document.activeElement); return [s.outlineWidth, s.outlineStyle]; }"
    )
    assert (width, style) == ("3px", "solid")


# ---- what a reader may type -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("0", "Batch: 0 is out of range; write a number from 1 to 1,024."),
        ("5000", "Batch: 5,000 is out of range; write a number from 1 to 1,024."),
        ("1.5", "Batch: 1.5 is not whole; write a whole number from 1 to 1,024."),
        ("many", "Batch: “many” is not a number; write one from 1 to 1,024."),
        ("", "Batch: “” is not a number; write one from 1 to 1,024."),
    ],
)
def test_bad_number_is_one_sentence_and_changes_nothing(open_page, site, typed, says):
    page = open_page(f"{site.as_uri()}/roofline.html")
    box = page.get_by_role("textbox", name="Batch")
    before = page.evaluate("seen.roofline")
    box.fill(typed)
    assert page.get_by_role("alert").filter(has_text="Batch").inner_text() == says
    assert box.get_attribute("aria-invalid") == "true" and box.input_value() == typed
    assert page.evaluate("seen.roofline") == before
    box.fill("64")
    assert box.get_attribute("aria-invalid") == "false" and page.evaluate("seen.roofline.inputs.B") == 64


@pytest.mark.parametrize(
    ("typed", "read"), [("8,192", 8192), ("8K", 8192), ("8k", 8000), ("1M", 1_000_000), ("1e4", 10_000)]
)
def test_numbers_may_be_written_as_people_write_them(open_page, site, typed, read):
    page = open_page(f"{site.as_uri()}/roofline.html")
    page.get_by_role("textbox", name="Context").fill(typed)
    assert page.evaluate("seen.roofline.inputs.L") == read


def paste(page, text):
    page.get_by_role("combobox", name="Model").select_option("pasted")
    page.get_by_role("textbox", name="Paste a Hugging Face config.json").fill(text)
    page.get_by_role("button", name="Use this config").click()


def test_pasted_config_gives_pythons_numbers(open_page, site):
    page = open_page(f"{site.as_uri()}/kv.html")
    paste(page, json.dumps(CONFIG))
    wanted = CALCULATORS["kv"].results(model=CONFIG)
    assert page.evaluate("seen.kv.results") == pytest.approx(wanted)
    assert wanted["kappa"] == 147_456  # 8 KV heads of 128 (not 2560 / 32 = 80), 36 layers
    assert "8 KV heads of 128" in page.locator(".lc-paste [role=status]").inner_text()


def test_config_may_be_opened_from_disk(open_page, site, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    page = open_page(f"{site.as_uri()}/kv.html")
    page.get_by_role("combobox", name="Model").select_option("pasted")
    page.get_by_label("or open the file").set_input_files(tmp_path / "config.json")
    page.wait_for_function("seen.kv.results.kappa === 147456")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model_type": "llama",', "This is not JSON"),
        ("[]", "This is a list"),
        (json.dumps({k: v for k, v in CONFIG.items() if k != "num_hidden_layers"}), "num_hidden_layers"),
        (json.dumps(CONFIG | {"num_key_value_heads": 7}), "num_key_value_heads=7"),
        (json.dumps(CONFIG | {"index_topk": 2048}), "index_topk=2048"),
    ],
)
def test_refused_config_is_one_sentence_and_nothing_is_lost(open_page, site, text, says):
    page = open_page(f"{site.as_uri()}/kv.html")
    paste(page, json.dumps(CONFIG))
    before = page.evaluate("seen.kv")
    box = page.get_by_role("textbox", name="Paste a Hugging Face config.json")
    box.fill(text)
    page.get_by_role("button", name="Use this config").click()
    said = page.locator(".lc-paste [role=alert]").inner_text()
    assert says in said and "\n" not in said
    assert box.input_value() == text and page.evaluate("seen.kv") == before
    box.fill(json.dumps(CONFIG | {"num_hidden_layers": 72}))
    page.get_by_role("button", name="Use this config").click()
    assert page.evaluate("seen.kv.results.kappa") == 294_912 and not page.locator(".lc-paste [role=alert]").inner_text()


def test_formats_a_device_lacks_are_not_offered(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    page.get_by_role("combobox", name="Device").select_option("h100-sxm")
    page.get_by_role("combobox", name="Weights").select_option("fp8")
    assert page.evaluate("seen.roofline.results.B_star") == pytest.approx(1979e12 / 3.35e12 / 2, rel=1e-3)
    page.get_by_role("combobox", name="Device").select_option("a100-80-sxm")
    option = page.locator("option[value=fp8]")
    assert option.is_disabled() and "not on this device" in option.inner_text()
    assert page.evaluate("seen.roofline.inputs.precision") == "bf16"


# ---- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALCULATORS)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(open_page, site, name, width):
    page = open_page(f"{site.as_uri()}/{name}.html", width=width)
    if name == "kv":
        paste(page, json.dumps(CONFIG | {"_name_or_path": "x" * 200}))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        "(width) => [...document.querySelectorAll('.labcore-widget *')].filter((e) => !e.closest('.labcore-sr'))"
        ".filter((e) => e.getBoundingClientRect().right > width || e.getBoundingClientRect().left < 0)"
        ".map((e) => e.outerHTML.slice(0, 120))",
        width,
    )
    assert wide == []


@pytest.mark.parametrize("name", CALCULATORS)
@every_setting
def test_axe_finds_nothing(open_page, site, name, theme, width):
    page = open_page(f"{site.as_uri()}/{name}.html", width=width, theme=theme)
    page.get_by_text("The formulas behind it").click()
    if name == "kv":
        paste(page, "{}")
    found = violations(page, "html", tags=[*TAGS, "wcag22aa"])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", CALCULATORS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_have_contrast(open_page, site, name, theme):
    """axe does not look into SVG: text 4.5 to 1, marks and borders 3 to 1 against the widget's surface."""
    page = open_page(f"{site.as_uri()}/{name}.html", theme=theme)
    found = page.evaluate(CONTRAST)
    assert len(found["text"]) > 5 and len(found["marks"]) > 2
    assert [t for t in found["text"] if t[1] < 4.5] == [] and [m for m in found["marks"] if m[1] < 3] == []


@pytest.mark.parametrize(
    ("attribute", "element", "expected"),
    [("data-theme", "html", "dark"), ("data-jp-theme-light", "body", "false"), ("theme", "html", "dark")],
)
def test_the_hosts_theme_wins_over_the_systems(open_page, site, attribute, element, expected):
    page = open_page(f"{site.as_uri()}/roofline.html", theme="light")
    surface = "getComputedStyle(document.querySelector('.labcore-widget')).backgroundColor"
    assert page.evaluate(surface) == "rgb(255, 255, 255)"
    page.evaluate(f"document.querySelector('{element}').setAttribute('{attribute}', '{expected}')")
    assert page.evaluate(surface) == "rgb(23, 28, 36)"


def test_points_differ_by_more_than_colour(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    kind = "(m) => m.getAttribute('d') + m.classList.contains('lc-hollow')"
    drawn = page.evaluate(f"[...document.querySelectorAll('.lc-figure .lc-marker')].map({kind})")
    assert len(drawn) == len(set(drawn)) == 5


def test_measured_points_are_drawn_where_they_were_measured_and_only_there(open_page, site):
    page = open_page(f"{site.as_uri()}/measured.html")
    run = MEASURED
    crosses = page.locator(".lc-figure svg.lc-chart .lc-measured")
    labels = crosses.all_text_contents()
    assert labels == ["1", "2", "8", "64", "256"]
    place = "(t) => [...t].map((e) => [+e.getAttribute('x'), +e.getAttribute('y')])"
    at = dict(zip(labels, crosses.evaluate_all(place), strict=True))
    rows = {str(row["shape"].get("batch", 256)): row for row in run["rows"]}
    log = lambda row: (math.log(row["flops"] / row["bytes"]), math.log(row["flops"] / row["ours"]["median"]))  # noqa: E731
    (x1, y1), (x64, y64) = at["1"], at["64"]
    (i1, r1), (i64, r64) = log(rows["1"]), log(rows["64"])
    for label, (x, y) in at.items():
        intensity, rate = log(rows[label])
        assert x == pytest.approx(x1 + (x64 - x1) * (intensity - i1) / (i64 - i1), abs=0.2), label
        assert y == pytest.approx(y1 + (y64 - y1) * (rate - r1) / (r64 - r1), abs=0.2), label
    said = page.get_by_role("img").first.get_attribute("aria-label")
    assert "measured: batch 8 took 80 ms" in said
    assert page.locator(".lc-figure .labcore-note").inner_text() == provenance(run)
    assert "measured decode step, with its batch" in page.locator(".lc-figure .lc-keys").inner_text()
    page.get_by_role("combobox", name="Device").select_option("h100-sxm")
    assert crosses.count() == 0 and page.locator(".lc-figure .labcore-note").count() == 0


@pytest.mark.parametrize(("batch", "context"), [(1, 4096), (1, 1), (1024, 1), (150, 200), (32, 2**20)])
def test_labels_of_points_do_not_overlap(open_page, site, batch, context):
    page = open_page(f"{site.as_uri()}/roofline.html")
    page.get_by_role("textbox", name="Batch").fill(str(batch))
    page.get_by_role("textbox", name="Context").fill(str(context))
    page.wait_for_function(f"seen.roofline.inputs.L === {context}")
    leaders = page.locator(".lc-leader + text")
    boxes = [leaders.nth(n).bounding_box() for n in range(leaders.count())]
    assert len(boxes) == 5
    apart = lambda a, b: a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]  # noqa: E731
    overlaps = lambda a, b: not apart(a, b) and abs(a["y"] - b["y"]) < 15  # noqa: E731
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if overlaps(a, b)]


def test_axes_carry_units_and_say_log(open_page, site):
    page = open_page(f"{site.as_uri()}/roofline.html")
    titles = page.locator(".lc-axis-title").all_inner_texts()
    assert titles == ["↑ attainable rate (FLOP/s), log", "arithmetic intensity (FLOP/B), log →"]
    assert "ridge at 153 FLOP/B" in page.get_by_role("img").first.get_attribute("aria-label")


# ---- trouble ---------------------------------------------------------------------------------------------------------


def test_broken_spec_keeps_the_fallback(open_page, site):
    good = CALCULATORS["roofline"].html()
    text = (site / "roofline.html").read_text()
    broken = good.replace(html.escape('"formula":"roofline.ridge"'), html.escape('"formula":"roofline.rigde"'))
    assert broken != good
    (site / "broken.html").write_text(text.replace(good, broken))
    context_page = open_page(f"{site.as_uri()}/kv.html")  # a page that is watched stays clean
    page = context_page.context.browser.new_page()
    page.goto(f"{site.as_uri()}/broken.html")
    said = page.locator("main").inner_text()
    assert "roofline.rigde is not registered" in said and CALCULATORS["roofline"].summary() in said
    page.close()


def test_storage_survives_a_reload_and_damage(open_page, served):
    page = open_page(f"{served}/utilization.html")
    page.evaluate("labcoreWidgets.ui.storage.set('note', {day: 3})")
    page.reload()
    assert page.evaluate("labcoreWidgets.ui.storage.get('note')") == {"day": 3}
    assert page.evaluate("Object.keys(localStorage)") == ["labcore.v1.note"]
    page.evaluate("localStorage.setItem('labcore.v1.note', '{oops')")
    assert page.evaluate("labcoreWidgets.ui.storage.get('note', 'fallback')") == "fallback"


def test_blocked_storage_is_said(open_page, site):
    refuse = "get() { throw new DOMException('blocked', 'SecurityError'); }"
    block = f"Object.defineProperty(window, 'localStorage', {{ {refuse} }})"
    page = open_page(f"{site.as_uri()}/utilization.html", script=block)
    assert page.evaluate("labcoreWidgets.ui.storage.persistent") is False
    assert "keeps nothing" in page.evaluate("labcoreWidgets.ui.storage.notice().textContent")
    assert page.evaluate("[labcoreWidgets.ui.storage.set('a', 1), labcoreWidgets.ui.storage.get('a')]") == [False, 1]
