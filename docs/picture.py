"""Take the picture of the built book that README.md shows: `.venv/bin/python docs/picture.py` after `make book`."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "_build" / "html" / "book" / "index.html"
PICTURE = ROOT / "docs" / "book.png"


def main() -> None:
    """The landing page at 1280 px, scrolled to the explorer."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1080}, color_scheme="light")
        page.goto(PAGE.as_uri())
        page.locator("[data-labcore-widget] svg").first.wait_for()
        page.evaluate("document.querySelector('[data-labcore-widget]').scrollIntoView(); window.scrollBy(0, -60)")
        page.wait_for_timeout(500)
        image = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    image.convert("RGB").save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
