"""A small site of widgets, made from the static files alone: what the browser tests open when no book is built."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from labcore import facts
from labcore.learn.widgets.base import SCRIPTS, STATIC, STYLES, Widget

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>{styles}
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
