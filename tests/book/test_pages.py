"""Every page of the built book, from disk on a light desktop and over http on a dark phone, then in the other theme.

One visit answers every question about a page, since opening it is what costs. `make soak` opens it in the other six
settings too, and there asks axe about every element instead of one of each look.
"""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest

from labcore.learn.widgets import Calculator, numbers
from tests.book.axe import violations, violations_of_looks
from tests.book.conftest import TIMEOUT, WIDTHS, Watch
from tests.contents import listed_files

PAGES = [f"{name}.html" for name in listed_files()]
DAILY = {("disk", "desktop", "light"), ("http", "phone", "dark")}
OTHER = {"light": "dark", "dark": "light"}
# docutils writes a citation list as a list of divs with role=doc-biblioentry, which axe rejects.
MAIN, NOT_OURS = "#main-content", (".citation-list",)
CLEAR = "rgba(0, 0, 0, 0)"

SETTINGS = [
    pytest.param(setting, marks=() if setting in DAILY else pytest.mark.soak, id="-".join(setting))
    for setting in itertools.product(("disk", "http"), WIDTHS, ("light", "dark"))
]


class Window:
    """One browser window that walks through the book; what a page does wrong is kept until it is asked for."""

    def __init__(self, page, watch: Watch, base: str, theme: str) -> None:
        self.page, self.watch, self.base, self.theme = page, watch, base, theme

    def open(self, path: str) -> None:
        """Load a page and wait for its mathematics."""
        self.page.emulate_media(color_scheme=self.theme)
        self.page.goto(f"{self.base}/{path}", wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise?.then(() => null)")

    def turn(self, theme: str) -> None:
        """Change the system's theme under the open page."""
        self.page.emulate_media(color_scheme=theme)
        self.page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")

    def problems(self) -> list[str]:
        """Errors and requests elsewhere since the last time."""
        found, self.watch.problems[:] = [*self.watch.problems], []
        return found


@contextlib.contextmanager
def new_window(browser, base: str, width: str, theme: str):
    """A window that keeps scripts and styles while it walks from page to page."""
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=theme)
    context.set_default_timeout(TIMEOUT)
    watch = Watch()
    context.on("page", watch.attach)
    yield Window(context.new_page(), watch, base, theme)
    context.close()


@pytest.fixture(scope="module", params=SETTINGS)
def window(request, browser, built_book):
    """The window of a setting."""
    origin, width, theme = request.param
    base = built_book.as_uri() if origin == "disk" else request.getfixturevalue("served_book")
    with new_window(browser, base, width, theme) as found:
        yield found


def layout_faults(page) -> list[str]:
    """Sideways scrolling, and light cards that the theme puts behind an interactive part in the dark."""
    sideways = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    grounds = page.eval_on_selector_all(
        ".cell_output .text_html:has([data-labcore-widget])",
        "cards => cards.map((card) => getComputedStyle(card).backgroundColor)",
    )
    cards = {ground for ground in grounds if ground != CLEAR}
    return ["scrolls sideways"] * sideways + [f"a card of {ground} behind an interactive part" for ground in cards]


def calculator_faults(page, html: str) -> list[str]:
    """Calculators that did not start, and numbers they open with that are not Python's."""
    shown = page.eval_on_selector_all(
        '[data-labcore-widget="calculator"]',
        "all => all.map((c) => [c.dataset.spec, Object.fromEntries("
        "[...c.querySelectorAll('.lc-results [data-result]')].map((cell) => [cell.dataset.result, cell.innerText]))])",
    )
    found = ["a calculator is missing"] * (len(shown) != html.count('data-labcore-widget="calculator"'))
    for spec, cells in shown:
        calculator = Calculator(json.loads(spec))
        results = calculator.results()
        for row in calculator.spec["results"]:
            wanted = results[row["id"]]
            if wanted is not None and cells.get(row["id"]) != numbers.text(wanted, row["unit"]):
                found.append(f"{row['id']} is {cells.get(row['id'])}, Python says {numbers.text(wanted, row['unit'])}")
    return found


def mathematics_faults(page) -> list[str]:
    """Formulas that MathJax did not set, or could not."""
    written = page.locator(f"{MAIN} .math.notranslate")
    unset = written.count() - written.filter(has=page.locator("mjx-container mjx-math")).count()
    wrong = page.locator(f"{MAIN} mjx-merror").count()
    return [f"{unset} formulas are not set"] * bool(unset) + [f"{wrong} formulas have an error"] * bool(wrong)


def faults(window: Window, html: str, check=violations_of_looks) -> list[str]:
    """Everything wrong with the page that the window has open, in its theme and then in the other one."""
    page = window.page
    found = [*mathematics_faults(page), *calculator_faults(page, html), *layout_faults(page)]
    found += check(page, MAIN, NOT_OURS)
    window.turn(OTHER[window.theme])
    return found + layout_faults(page) + window.problems()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_fits_computes_and_is_accessible(window, built_book, path, request):
    daily = request.node.get_closest_marker("soak") is None
    window.open(path)
    html = (built_book / path).read_text(encoding="utf-8")
    found = faults(window, html, violations_of_looks if daily else violations)
    assert not found, "\n".join(found)


def test_the_book_has_what_the_pages_are_asked_about(built_book):
    """Otherwise the questions above would be answered by pages without a formula, a calculator or a card."""
    book = "\n".join((built_book / path).read_text(encoding="utf-8") for path in PAGES)
    for part in ('class="math notranslate', 'data-labcore-widget="calculator"', "text_html", 'class="highlight'):
        assert part in book, part


# Each line does one thing wrong, and the words say how the check reports it.
WRONG = {
    "scrolls sideways": "add('<div style=\"width: 3000px\">wide</div>')",
    "a card of rgb(255, 255, 255)": "find('.text_html:has([data-labcore-widget])').style.background = '#fff'",
    "Python says": "find('.lc-results [data-result]').innerText = '1'",
    "a calculator is missing": "[...main.querySelectorAll('[data-labcore-widget=calculator]')].at(-1).remove()",
    "1 formulas are not set": "find('.math mjx-container').remove()",
    "1 formulas have an error": "find('mjx-math').append(document.createElement('mjx-merror'))",
    "console: noticed": "console.error('noticed')",
    "asked for https://": "fetch('https://cdn.example/x.js').catch(() => 0)",
    "label (critical)": "add('<input type=\"range\">')",
    "color-contrast (serious): <p style": "add('<p style=\"color: #ccc; background: #fff\">pale</p>')",
    "color-contrast (serious): <span class=": "find('.cell:not(.tag_hide-cell) .highlight .n').style.color = '#999'",
}
SPOIL = """([selector, actions]) => {
  const main = document.querySelector(selector);
  const add = (html) => main.insertAdjacentHTML("beforeend", html);
  const find = (part) => [...main.querySelectorAll(part)].find((e) => e.checkVisibility());
  for (const action of actions) eval(action);
}"""


def test_every_fault_is_noticed(browser, built_book):
    path = "book/calculators.html"
    html = (built_book / path).read_text(encoding="utf-8")
    with new_window(browser, built_book.as_uri(), "desktop", "light") as window:
        window.open(path)
        window.page.evaluate(SPOIL, [MAIN, list(WRONG.values())])
        found = "\n".join(faults(window, html))
    assert not [words for words in WRONG if words not in found], found
