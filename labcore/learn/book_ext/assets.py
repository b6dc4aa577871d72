"""Static files of the interactive parts: what every page loads, and the data script written at build time.

Everything is a classic script loaded with `defer`: a page opened from disk runs neither modules nor `fetch`,
and deferred scripts run in this order.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from labcore import facts
from labcore.core.files import atomic_write
from labcore.learn import quiz
from labcore.learn.widgets.base import SCRIPTS, STATIC, STYLES

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

DATA_SCRIPT = "labcore-data.js"
PAGE_SCRIPTS = (SCRIPTS[0], DATA_SCRIPT, *SCRIPTS[1:])


def quiz_files(source: Path) -> list[Path]:
    """`book/quizzes/*.yml` under the book's root, sorted."""
    return sorted((source / "book" / "quizzes").glob("*.yml"))


def data_script(source: Path) -> str:
    """The text of labcore-data.js: hardware and model facts, and every quiz, as one global. Deterministic."""
    data = {
        "facts": facts.as_json(),
        "quizzes": {path.stem: quiz.load(path).as_json() for path in quiz_files(source)},
    }
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"globalThis.labcoreData = {text};\n"


def add_static_files(app: Sphinx, config: Config) -> None:
    """Write the data script, register scripts and styles, and rewrite every page when a static file changed.

    Without the last, Sphinx copies no static file while no page is out of date.
    """
    generated = Path(app.doctreedir) / "labcore-static"
    generated.mkdir(parents=True, exist_ok=True)
    atomic_write(generated / DATA_SCRIPT, data_script(Path(app.srcdir)))
    config.html_static_path = [*config.html_static_path, str(STATIC), str(generated)]
    files = [path for folder in config.html_static_path for path in sorted((Path(app.confdir) / folder).rglob("*"))]
    names = {path.name for path in files}
    for name in filter(names.__contains__, PAGE_SCRIPTS):
        app.add_js_file(name, loading_method="defer")
    for name in filter(names.__contains__, STYLES):
        app.add_css_file(name)
    contents = b"".join(path.read_bytes() for path in files if path.is_file())
    config.labcore_assets_digest = hashlib.sha256(contents).hexdigest()
