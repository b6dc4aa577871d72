"""Widget: one description of an interactive part, shown by a live kernel, by the built book, and by neither.

With a kernel and anywidget, `view` is an ipywidget whose `value` follows the page. In the built book the same
scripts mount on the element that `html()` returns. Where no script runs (GitHub, print) the fallback inside that
element is what the reader sees.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labcore import facts

STATIC = Path(__file__).resolve().parent.parent / "static"
# The order in which they must run; the data script comes second.
SCRIPTS = ("labcore-formulas.js", "labcore-widgets.js", "labcore-player.js", "labcore-quiz.js", "labcore-review.js")
STYLES = ("labcore-widgets.css", "labcore-player.css", "labcore-quiz.css")


def _read(names: tuple[str, ...]) -> list[str]:
    return [(STATIC / name).read_text(encoding="utf-8") for name in names if (STATIC / name).exists()]


@cache
def module_source() -> str:
    """The book's classic scripts as one ES module, with the facts they read: what anywidget loads."""
    data = json.dumps(facts.as_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    share = f"globalThis.labcoreData = Object.assign(globalThis.labcoreData || {{}}, {{facts: {data}}});\n"
    return share + "\n;\n".join(_read(SCRIPTS)) + "\nexport default { render: globalThis.labcoreWidgets.render };\n"


@cache
def _view_class() -> type:
    import anywidget
    import traitlets

    class View(anywidget.AnyWidget):
        """The ipywidget behind a Widget."""

        _esm = module_source()
        _css = "\n".join(_read(STYLES))
        component = traitlets.Unicode().tag(sync=True)
        spec = traitlets.Dict().tag(sync=True)
        value = traitlets.Dict().tag(sync=True)

    return View


class Widget:
    """An interactive part: the name of a component registered in labcore-*.js, and the plain data it draws.

    component: "calculator", "player", "quiz", "review"; spec: JSON-able; fallback: HTML shown where no script runs.
    """

    def __init__(self, component: str, spec: Mapping[str, Any], fallback: str = "") -> None:
        self.component, self.spec, self.fallback = component, dict(spec), fallback
        self._view = None

    @property
    def view(self):
        """The ipywidget, created on first use; None where anywidget is not installed."""
        if self._view is None and find_spec("anywidget"):
            self._view = _view_class()(component=self.component, spec=self.spec)
        return self._view

    @property
    def value(self) -> dict[str, Any]:
        """What the page last reported; empty until it has been shown."""
        return dict(self._view.value) if self._view is not None else {}

    def observe(self, handler: Callable[[dict[str, Any]], None]) -> None:
        """Call `handler(value)` whenever the page reports a new value. Needs anywidget."""
        self.view.observe(lambda change: handler(change["new"]), names="value")

    def html(self) -> str:
        """The element that labcore-widgets.js mounts on, with the fallback inside. Deterministic."""
        spec = json.dumps(self.spec, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return (
            f'<div class="mathjax_ignore tex2jax_ignore" data-labcore-widget="{html.escape(self.component)}" '
            f'data-spec="{html.escape(spec)}">{self.fallback}</div>'
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.get('title') or self.component!r})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        bundle, metadata = {"text/plain": repr(self), "text/html": self.html()}, {}
        if self.view is not None:
            live, metadata = self.view._repr_mimebundle_()
            bundle = live | bundle
        return bundle, metadata
