"""The built book loads nothing from another host and works opened from disk."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

# Search fetches the page of each hit to show an excerpt; browsers refuse fetch on pages opened from disk.
SEARCH_FROM_DISK = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'

WAY_IN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><link rel="icon" href="_static/{icon}">
<meta http-equiv="refresh" content="0; url={page}"></head><body><a href="{page}">{title}</a></body></html>
"""


def write_the_way_in(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html, which leads to the first page, before sphinx-external-toc writes one that names no icon.

    Without an icon a browser asks the server for /favicon.ico, which a book does not have.
    """
    root, icon = app.config.root_doc, app.config.html_favicon
    if exception is None and app.builder.name == "html" and "index" not in app.env.found_docs and icon:
        text = WAY_IN.format(title=html.escape(app.config.html_title), icon=Path(icon).name, page=f"{root}.html")
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def keep_search_working_from_disk(app: Sphinx, config: Config) -> None:
    """Search results opened from disk come without excerpts instead of with an error each."""
    app.add_js_file(None, body=SEARCH_FROM_DISK, priority=300)


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out Thebe, which Jupyter Book adds to every page and which takes its kernel client from a CDN."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _mentions_thebe(asset)]


def _mentions_thebe(asset: Any) -> bool:
    body = getattr(asset, "attributes", {}).get("body") or ""
    return "thebe" in f"{asset} {body}".lower()
