"""axe-core (WCAG 2 A and AA) on a page that is open in the browser."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOKS = (ROOT / "tests/js/looks.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Without preload axe leaves the style sheets alone; it would fetch those that @import names, from the wrong folder.
OPTIONS = {"preload": False, "runOnly": TAGS, "resultTypes": ["violations"]}
ONE_OF_EACH_LOOK = "axe.configure({ rules: [{ id: 'color-contrast', selector: '[data-look]' }] })"


def violations(page, include: str = "main", exclude: tuple[str, ...] = (), tags: list[str] = TAGS) -> list[str]:
    """One line per violated rule and element inside `include`."""
    from axe_playwright_python.base import AXE_SCRIPT

    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE_SCRIPT)
    context = {"include": [[include]], "exclude": [[selector] for selector in exclude]}
    report = page.evaluate("([context, options]) => axe.run(context, options)", [context, OPTIONS | {"runOnly": tags}])
    return [f"{v['id']} ({v['impact']}): {n['html'][:160]}" for v in report["violations"] for n in v["nodes"]]


def violations_of_looks(page, include: str, exclude: tuple[str, ...] = ()) -> list[str]:
    """The same for a long page in a third of the time: contrast once for each look of its text, see `looks.js`.

    Every other rule still sees every element, except the spans that colour a code block's tokens.
    """
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(LOOKS)
    page.evaluate(f"{AXE_SCRIPT}; {ONE_OF_EACH_LOOK}")
    return violations(page, include, exclude)
