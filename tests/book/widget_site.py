"""A small site of widgets made from the static files alone, and a browser: for tests that need no built book."""

from __future__ import annotations

import html
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from labcore import facts
from labcore.learn.widgets.base import SCRIPTS, STATIC, STYLES, Widget
from tests.book.conftest import BROWSERS, BUILT, FLAGS, NO_NETWORK
from tests.conftest import skip_or_fail

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">{styles}
<style>body {{ margin: 1rem; font-family: sans-serif; background: #fff; color: #111 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181e; color: #eee }} }}</style>
<script>
globalThis.seen = {{}};
document.addEventListener("labcore:value", (e) => {{ globalThis.seen[e.target.closest("section").id] = e.detail; }});
</script>{scripts}</head>
<body><main><h1>{title}</h1>{sections}</main></body></html>"""


def write_site(folder: Path, widgets: Mapping[str, Widget]) -> Path:
    """Write one page per widget, and the scripts they load as the book loads them; returns the folder."""
    scripts = [name for name in SCRIPTS if (STATIC / name).exists()]
    styles = [name for name in STYLES if (STATIC / name).exists()]
    for name in (*scripts, *styles):
        shutil.copy(STATIC / name, folder / name)
    (folder / "labcore-data.js").write_text(f"globalThis.labcoreData = {json.dumps({'facts': facts.as_json()})};\n")
    order = [scripts[0], "labcore-data.js", *scripts[1:]]
    for name, widget in widgets.items():
        page = PAGE.format(
            title=html.escape(name),
            styles="".join(f'<link rel="stylesheet" href="{s}">' for s in styles),
            scripts="".join(f'<script defer src="{s}"></script>' for s in order),
            sections=f'<section id="{name}">{widget.html()}</section>',
        )
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def widget_browser(request):
    """The session's Chromium where the book is built, else one of this module's own; neither reaches the network."""
    if BUILT.exists():
        yield request.getfixturevalue("browser")
        return
    sync_api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("LABCORE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        skip_or_fail("browser", "no Chromium was found; install one or name it in LABCORE_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*FLAGS, NO_NETWORK])
        yield chromium
        chromium.close()
