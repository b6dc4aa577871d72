"""The one local Sphinx extension: scripts and data of the interactive parts, and the directives that place them.

| directive | shows |
|---|---|
| `{calculator} roofline` | an in-page calculator, with a readable fallback where scripts do not run |
| `{quiz} 03` | the checkpoint in `book/quizzes/03.yml` |
| `{review}` | what is due today across all chapters |
| `{diagnostic}` | the questions of `book/diagnostic.yml` and the paths of `book/paths.yml` |
| `{practice} 03` | the problems in `book/practice/03.yml`, hints and solutions folded |
| `{formula} kv.bytes_per_token` | a registered formula: LaTeX, unit, inputs, source |
| `{notation-table}` | every symbol that a registered formula takes |

Importing this package needs no torch. A name that does not exist stops a `-W` build with one sentence that
lists the names that do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labcore import __version__
from labcore.learn.book_ext import assets, directives, offline

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

PLACEHOLDER_OWNER = "/OWNER/"


def hide_buttons_of_an_unset_repository(app: Sphinx, config: Config) -> None:
    """Launch and repository buttons would lead nowhere until `make set-repo` has written the address."""
    options = config.html_theme_options
    if PLACEHOLDER_OWNER in options.get("repository_url", ""):
        options["launch_buttons"] = {}
        for button in ("use_repository_button", "use_issues_button", "use_edit_page_button", "use_source_button"):
            options[button] = False


def setup(app: Sphinx) -> dict[str, object]:
    """Sphinx entry point."""
    app.add_config_value("labcore_assets_digest", "", "html", types=[str])
    app.connect("config-inited", hide_buttons_of_an_unset_repository)
    app.connect("config-inited", assets.add_static_files)
    app.connect("config-inited", offline.keep_search_working_from_disk)
    app.connect("html-page-context", offline.drop_thebe, priority=900)
    app.connect("build-finished", offline.write_the_way_in, priority=400)
    directives.register(app)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}
