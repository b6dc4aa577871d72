"""axe-core (WCAG 2 A and AA) over the content of every page, both themes, desktop and phone."""

from __future__ import annotations

import pytest

from tests.book.conftest import WIDTHS

# docutils writes a citation list as a list of divs with role=doc-biblioentry, which axe rejects.
CONTEXT = {"include": [["#main-content"]], "exclude": [[".citation-list"]]}
# Without preload axe leaves the style sheets alone; it would fetch those that @import names, from the wrong folder.
OPTIONS = {"preload": False, "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}


def violations(page) -> list[str]:
    """One line per violated rule and element."""
    from axe_playwright_python.sync_playwright import Axe

    result = Axe().run(page, context=CONTEXT, options=OPTIONS)
    return [
        f"{v['id']} ({v['impact']}): {node['html'][:160]}" for v in result.response["violations"] for node in v["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_violations(new_page, served_book, pages, width, theme):
    page, found = new_page(width=width, theme=theme), []
    for path in pages:
        page.goto(f"{served_book}/{path}", wait_until="load")
        page.wait_for_timeout(100)
        found += [f"{path}: {line}" for line in violations(page)]
    assert not found, "\n".join(found)


def test_a_violation_is_noticed(new_page, served_book):
    page = new_page()
    page.goto(f"{served_book}/book/index.html", wait_until="load")
    page.evaluate("document.querySelector('#main-content').insertAdjacentHTML('beforeend', '<input type=\"range\">')")
    assert any(line.startswith("label ") for line in violations(page))
