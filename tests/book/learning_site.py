"""Quiz, Review, Player and Predict on pages of their own, from disk and over http, at any time and place."""

from __future__ import annotations

import datetime
import json
import zoneinfo
from pathlib import Path

import pytest

from labcore.core.units import unit
from labcore.learn import quiz
from labcore.learn.book_ext.assets import data_script
from labcore.learn.player import Player, predict
from labcore.learn.quiz import checks
from labcore.learn.quiz.schema import BLANK
from labcore.learn.quiz.text import fill
from tests.book.conftest import TIMEOUT, Watch, serve
from tests.book.widget_site import widget_browser, write_site  # noqa: F401 (a fixture)
from tests.learn.traces import RUNS

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = quiz.load(ROOT / "book" / "quizzes" / "00.yml")
ITEMS = {item.id: item for item in WARM_UP.items}
over_http = pytest.mark.parametrize("address", ["http"], indirect=True)  # for what cannot depend on the origin
NO_STORAGE = (
    "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } })"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of pages: quiz, review, predict, reveal, and one for each view of the Player."""
    folder = tmp_path_factory.mktemp("site") / "html"
    folder.mkdir()
    widgets = {"quiz": quiz.quiz("00"), "review": quiz.review()}
    widgets |= {"predict": predict("try.u16", "Which share of KV memory is in use at block size 16?", "%")}
    widgets |= {"reveal": predict.reveal("try.u16", 0.995), **{view: Player(run()) for view, run in RUNS.items()}}
    write_site(folder, widgets)
    (folder / "labcore-data.js").write_text(data_script(ROOT), encoding="utf-8")
    for page in folder.glob("*.html"):  # as Sphinx writes it: the way to the book's root
        page.write_text(page.read_text().replace('<html lang="en">', '<html lang="en" data-content_root="./">'))
    return folder


@pytest.fixture(scope="module", params=["disk", "http"])
def address(request, site) -> str:
    """Where the pages come from, in turn."""
    if request.param == "disk":
        yield site.as_uri()
        return
    with serve(site) as served:
        yield served


@pytest.fixture
def reader(widget_browser, address):  # noqa: F811
    """`reader(day, zone=…, width=…, theme=…, scripts=[…])` → a Visit; the test fails on any error."""
    contexts, watch = [], Watch()

    def make(now="2026-01-10T12:00:00", zone="Europe/Berlin", width=1000, theme="light", scripts=(), **options):
        context = widget_browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            timezone_id=zone,
            accept_downloads=True,
            **options,
        )
        contexts.append(context)
        context.on("page", watch.attach)
        context.set_default_timeout(TIMEOUT)
        for script in scripts:
            context.add_init_script(f'if (location.protocol !== "about:") {{ {script} }}')
        return Visit(context, address, now)

    yield make
    for context in contexts:
        context.close()
    assert not watch.problems, "\n".join(watch.problems)


class Visit:
    """One reader: pages opened in one browser profile, on a day that the test moves."""

    def __init__(self, context, address: str, now: str) -> None:
        self.context, self.address, self.page = context, address, context.new_page()
        self.at(now)

    def at(self, now: str) -> Visit:
        """Set the clock: an ISO time without offset is the reader's local time."""
        zone = self.page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
        local = datetime.datetime.fromisoformat(now)
        self.page.clock.set_fixed_time(local if local.tzinfo else local.replace(tzinfo=zoneinfo.ZoneInfo(zone)))
        return self

    def open(self, name: str):
        """Load a page; returns it."""
        self.page.goto(f"{self.address}/{name}.html", wait_until="load")
        return self.page

    def stored(self, key: str = "progress"):
        return json.loads(self.page.evaluate(f"localStorage.getItem('labcore.v1.{key}')") or "null")


def button(page, name: str):
    return page.get_by_role("button", name=name)


def _plain(text: str) -> str:
    return " ".join(BLANK.sub("", text).replace("*", "").split())


STEMS = {_plain(fill(item.stem, values)): (item, values) for item in WARM_UP.items for values in checks.variants(item)}


def current(page) -> tuple:
    """The item on the screen and its drawn values, found by its text."""
    return STEMS[" ".join(page.locator(".lq-stem").inner_text().split())]


def answer(page, right: bool = True) -> str:
    """Answer the question on the screen, rightly or wrongly; returns the item's id."""
    item, values = current(page)
    match item.kind:
        case "numeric" | "predict":
            wanted = checks.evaluate(item.answer if right else item.distractors[0], values)
            page.locator(".lq-number").fill(repr(wanted / unit(item.answer.asked_in).scale))
        case "single" | "multi" | "diagnose":
            for option in item.options:
                if checks.holds(option, values) == right:
                    page.get_by_label(fill(option.text, values), exact=True).check()
                    if item.kind != "multi" or not right:
                        break
        case "order":
            texts = [entry.text for entry in item.order]
            for position, text in enumerate(texts if right else texts[::-1]):
                while page.locator(".lq-entry > span:first-child").all_inner_texts().index(text) > position:
                    button(page, f"Move up: {text}").click()
        case "cloze":
            words = {n: b.accept[0] if b.accept else str(checks.evaluate(b, values)) for n, b in item.blanks.items()}
            for number, word in enumerate(words.values(), 1):
                page.get_by_label(f"Blank {number}").fill(word if right else "0")
        case "spoken":
            button(page, "I have answered").click()
            if right:
                for point in item.rubric.strong:
                    page.get_by_role("checkbox", name=point).check()
            page.locator(f"input[value={'strong' if right else 'no'}]").check()
    page.locator("button[type=submit]").click()
    return item.id


def work_through(page, start: str, right: bool = True) -> list[str]:
    """Press `start`, answer every question, and return to the overview; returns the ids in order."""
    button(page, start).click()
    done = []
    while page.locator(".lq-stem").count():
        done.append(answer(page, right))
        page.locator(".lq-verdict .labcore-primary").click()
    button(page, "Done").click()
    return done


def scrolls_sideways(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
