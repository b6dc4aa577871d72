"""The built book in a real browser that cannot reach the network.

`visit(page)` opens a page from disk and over http; when the test ends it fails on any console error and on any
request to another host. Tests that need neither a browser nor the HTML do not belong in this folder.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
BUILT = ROOT / "_build" / ".built"
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update".split()
# Chromium prepares two pages of its own for the address bar of every window, which takes twice what our page takes.
FLAGS += ["--disable-sync", "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup"]
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desktop": 1280, "phone": 390}
TIMEOUT = 120_000  # milliseconds; a busy machine fails no test

# Contrast depends on the theme, fit on the width: two settings meet every value of both, and `make soak` adds the rest.
every_setting = pytest.mark.parametrize(
    ("width", "theme"),
    [
        (WIDTHS["desktop"], "light"),
        (WIDTHS["phone"], "dark"),
        pytest.param(WIDTHS["desktop"], "dark", marks=pytest.mark.soak),
        pytest.param(WIDTHS["phone"], "light", marks=pytest.mark.soak),
    ],
)


def pytest_collection_modifyitems(items):
    """Everything in this folder needs the browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def built_book() -> Path:
    """Folder of the HTML that `make book` built without a warning."""
    if not BUILT.exists():
        skip_or_fail("browser", "the book is not built; run `make book` first")
    return HTML


@pytest.fixture(scope="session")
def browser(built_book):
    """One headless Chromium for the session; its resolver knows no host but this one."""
    path = os.environ.get("LABCORE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        skip_or_fail("browser", "no Chromium was found; install one or name it in LABCORE_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright().start()
    except Exception as error:  # not installed, or its driver lacks a library: Playwright raises plain Exception
        skip_or_fail("browser", f"Playwright does not start ({error}); on Debian: apt-get install libatomic1")
    browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, NO_NETWORK])
    yield browser
    browser.close()
    playwright.stop()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for many files: a page of the book has forty

    def log_message(self, *args):
        """Say nothing: the test output is for results."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # with the usual 5, connections are dropped when the machine is busy


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder over http on a free local port; yields the address."""
    with _Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def served_book(built_book):
    """The address of the built book over http."""
    with serve(built_book) as address:
        yield address


@pytest.fixture(params=["disk", "http"])
def origin(request, built_book) -> str:
    """Where the pages come from: each test that uses it runs once from disk and once over http."""
    return built_book.as_uri() if request.param == "disk" else request.getfixturevalue("served_book")


def is_remote(url: str) -> bool:
    """Whether a request leaves this machine."""
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname != "127.0.0.1"


class Watch:
    """What a browser context did that a book page must never do."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def attach(self, page) -> None:
        where = lambda: page.url.rsplit("/html/")[-1]  # noqa: E731
        page.on(
            "console", lambda m: self.problems.append(f"{where()}: console: {m.text}") if m.type == "error" else None
        )
        page.on("pageerror", lambda e: self.problems.append(f"{where()}: exception: {e}"))
        page.on(
            "request", lambda r: self.problems.append(f"{where()}: asked for {r.url}") if is_remote(r.url) else None
        )
        page.on(
            "response",
            lambda r: self.problems.append(f"{where()}: {r.status} for {r.url}") if r.status >= 400 else None,
        )
        page.on("requestfailed", self._failed)

    def _failed(self, request) -> None:
        """A request that the reader's next click cut short is no fault; one that found nothing is."""
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed to load {request.url}: {request.failure}")


@pytest.fixture
def new_page(browser):
    """`new_page(width=1280, theme="light", **context)` → a Playwright page; the test fails if it broke a rule."""
    contexts, watch = [], Watch()

    def make(width: int = 1280, theme: str = "light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        context.on("page", watch.attach)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()
    assert not watch.problems, "\n".join(watch.problems)


@pytest.fixture
def visit(new_page, origin):
    """`visit("book/index.html", width=390, theme="dark")` → the loaded page, from disk and over http in turn."""

    def go(path: str, **options):
        page = new_page(**options)
        page.goto(f"{origin}/{path}", wait_until="load")
        return page

    return go
