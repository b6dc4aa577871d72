"""What the built book names exists on this machine, and search, theme and the way in work from disk and over http."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.book.conftest import Watch

# Attributes whose address a browser fetches by itself. A plain link is a choice of the reader.
FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "link": ("href",),
}
NAVIGATION = {"canonical", "next", "prev", "index", "search", "author", "license", "top", "up"}
REMOTE = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:@import\s+(?:url\()?|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)


class Assets(HTMLParser):
    """Collects what a page loads by itself, the text of its styles, and its `type="module"` scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.styles: list[str] = []
        self.modules: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._in_style = tag == "style"
        self.styles.append(given.get("style") or "")
        if tag == "script" and given.get("type") == "module":
            self.modules.append(given.get("src") or "inline")
        if tag == "link" and set((given.get("rel") or "").split()) & NAVIGATION:
            return
        for attribute in FETCHED.get(tag, ()):
            self.fetched += [part.split()[0] for part in (given.get(attribute) or "").split(",") if part.strip()]

    def handle_data(self, data):
        if self._in_style:
            self.styles.append(data)

    def handle_endtag(self, tag):
        self._in_style = False


def assets_of(html: str) -> Assets:
    parser = Assets()
    parser.feed(html)
    return parser


def remote_assets(html: str) -> list[str]:
    assets = assets_of(html)
    return [a for a in assets.fetched if REMOTE.match(a)] + [m for s in assets.styles for m in IN_STYLE.findall(s)]


def html_files(built_book: Path) -> list[Path]:
    """Pages and Sphinx's own index and search, without the templates that the themes leave in _static."""
    return [path for path in built_book.rglob("*.html") if "_static" not in path.parts]


def test_no_page_names_a_remote_script_style_font_or_image(built_book):
    found = []
    for page in html_files(built_book):
        html = page.read_text(encoding="utf-8")
        found += [f"{page.relative_to(built_book)}: {asset}" for asset in remote_assets(html)]
        found += [f"{page.relative_to(built_book)}: module {m} does not run from disk" for m in assets_of(html).modules]
    for sheet in built_book.rglob("*.css"):
        found += [f"{sheet.name}: {asset}" for asset in IN_STYLE.findall(sheet.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_every_local_asset_and_link_exists(built_book):
    missing = []
    for page in html_files(built_book):
        html = page.read_text(encoding="utf-8")
        links = re.findall(r"<a\b[^>]*\bhref=\"([^\"#]+)", html)
        for address in [*assets_of(html).fetched, *links]:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc and not (page.parent / unquote(parts.path)).exists():
                missing.append(f"{page.relative_to(built_book)}: {address}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/require.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img src="a.png" srcset="https://x.example/b.png 2x">',
        '<style>@import "https://x.example/y.css";</style>',
        '<p style="background: url(https://x.example/z.png)">',
    ],
)
def test_a_remote_asset_is_noticed(html):
    assert remote_assets(html)


def test_a_link_is_not_an_asset():
    assert not remote_assets(
        '<a href="https://arxiv.org/abs/2309.06180">paper</a><link rel="canonical" href="https://a.b">'
    )


def test_the_way_in_leads_to_the_first_page(visit):
    visit("index.html").wait_for_url("**/book/index.html")


def test_every_page_names_an_icon(built_book):
    """Otherwise a browser asks the server for /favicon.ico: not every time, and finds nothing."""
    without = [page for page in html_files(built_book) if 'rel="icon"' not in page.read_text(encoding="utf-8")]
    assert not without, without


def test_search_finds_a_glossary_entry(visit):
    page = visit("search.html?q=roofline")
    page.wait_for_selector("#search-results li a[href*='glossary']")


def test_the_theme_follows_the_system_until_it_is_chosen(visit):
    page = visit("book/index.html", theme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    page.locator(".theme-switch-button:visible").first.click()
    page.wait_for_function("document.documentElement.dataset.mode !== 'auto'")
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.emulate_media(color_scheme="light" if chosen == "dark" else "dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == chosen


@pytest.fixture
def bad_page(tmp_path) -> Path:
    """A page that does what no page of the book may do."""
    path = tmp_path / "html" / "bad.html"
    path.parent.mkdir()
    path.write_text("<img src='https://cdn.example/x.png'><script src='gone.js'></script><script>nowhere()</script>")
    return path


def test_the_watch_notices_remote_requests_missing_files_and_exceptions(browser, bad_page):
    watch, context = Watch(), browser.new_context()
    context.on("page", watch.attach)
    context.new_page().goto(bad_page.as_uri(), wait_until="load")
    context.close()
    text = "\n".join(watch.problems)
    assert "asked for https://cdn.example/x.png" in text and "gone.js" in text and "nowhere is not defined" in text
