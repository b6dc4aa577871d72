"""The directives. Each one checks its argument against what exists and names the choices when it does not."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import directives as option
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from labcore.core.errors import InputError
from labcore.formulas import formula, notation_rows
from labcore.learn import quiz, widgets
from labcore.learn.book_ext import diagnostic, notation, practice, practice_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sphinx.application import Sphinx

CALCULATORS = {"roofline": widgets.roofline_explorer, "kv": widgets.kv_calculator, "size": widgets.size_calculator}
CONTROLS = dict.fromkeys(
    ("hardware", "model", "precision", "weights", "kv", "format", "kept", "chart", "title"), option.unchanged
)
CONTROLS |= dict.fromkeys(("batch", "context", "sequences", "gpus"), option.positive_int)


class BookDirective(SphinxDirective):
    """Shared by all: errors that name the choices, raw HTML out, MyST in."""

    def unknown(self, name: str, known: Iterable[str], fix: str) -> Exception:
        """The error for a name that does not exist: what was asked for, what is close or known, how to mend it."""
        known = sorted(known)
        close = get_close_matches(name, known, n=4, cutoff=0.5) or known[:12]
        return self.error(f"{{{self.name}}} {name!r} does not exist; {fix}: {', '.join(close) or 'none yet'}")

    def raw(self, text: str) -> list[nodes.Node]:
        return [nodes.raw("", text, format="html")]

    def parse_markdown(self, text: str, source: str) -> list[nodes.Node]:
        parent = nodes.Element()
        parent.document = self.state.document
        self.state.nested_parse(StringList(text.splitlines(), source=source), 0, parent)
        return parent.children

    def book_file(self, folder: str, known_as: str) -> Path:
        """`book/<folder>/<argument>.yml`, noted so that the page is rebuilt when the file changes."""
        path = Path(self.env.srcdir) / "book" / folder / f"{known_as}.yml"
        if not path.exists():
            known = [p.stem for p in path.parent.glob("*.yml")]
            raise self.unknown(known_as, known, f"book/{folder} holds")
        self.env.note_dependency(str(path))
        return path


class Calculator(BookDirective):
    """`{calculator} roofline`: the widget that the notebooks show, its controls set by options (`:batch: 1`).

    Formula ids instead of a name give a calculator for those formulas, with the options `:chart:` and `:title:`.
    """

    required_arguments = 1
    optional_arguments = 7
    option_spec = CONTROLS

    def run(self) -> list[nodes.Node]:
        names = self.arguments
        for name in names if names[0] not in CALCULATORS else ():
            if name not in formula:
                raise self.unknown(name, [*CALCULATORS, *formula.ids()], "close calculators and formulas are")
        make = CALCULATORS.get(names[0]) or partial(widgets.formula_calculator, *names)
        if unused := sorted(set(self.options) - set(signature(make).parameters)):
            raise self.error(f"{{calculator}} {names[0]} has no {', '.join(unused)}; leave the option out")
        try:
            return self.raw(make(**self.options).html())
        except InputError as error:
            raise self.error(str(error)) from error


class Quiz(BookDirective):
    """`{quiz} 03`: a checkpoint. Questions stay readable, without answers, where scripts do not run."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = self.book_file("quizzes", self.arguments[0])
        try:
            loaded = quiz.load(path)
        except InputError as error:
            raise self.error(str(error)) from error
        return self.raw(loaded.html())


class Review(BookDirective):
    """`{review}`: what is due today. Lives on one page and reads every chapter's quiz."""

    def run(self) -> list[nodes.Node]:
        return self.raw(widgets.Widget("review", {"title": "Review"}, quiz.fallback.REVIEW).html())


class Diagnostic(BookDirective):
    """`{diagnostic}`: a dozen questions that lead to a path through the pages that exist. Lives on one page."""

    def run(self) -> list[nodes.Node]:
        book = Path(self.env.srcdir) / "book"
        for name in ("diagnostic.yml", "paths.yml"):
            self.env.note_dependency(str(book / name))
        self.env.note_reread()  # which pages exist is decided elsewhere
        address = partial(self.env.app.builder.get_relative_uri, self.env.docname)
        try:
            return self.raw(diagnostic.diagnostic(book, self.env.found_docs, address).html())
        except InputError as error:
            raise self.error(str(error)) from error


class Practice(BookDirective):
    """`{practice} 03`: practice problems with folded hints, rubric and solution."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = self.book_file("practice", self.arguments[0])
        try:
            problems = practice.load(path)
        except InputError as error:
            raise self.error(str(error)) from error
        return self.parse_markdown("\n\n".join(practice_page.markdown(p) for p in problems), str(path))


class FormulaBox(BookDirective):
    """`{formula} kv.bytes_per_token`: a registered formula in LaTeX with its unit, inputs and source."""

    required_arguments = 1
    option_spec = {"label": option.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in formula:
            raise self.unknown(name, formula.ids(), "close formulas are")
        return self.parse_markdown(notation.formula_markdown(formula[name], self.options.get("label")), name)


class NotationTable(BookDirective):
    """`{notation-table}`: one row for every symbol that some formula takes."""

    def run(self) -> list[nodes.Node]:
        return self.parse_markdown(notation.table_markdown(notation_rows()), "notation")


def register(app: Sphinx) -> None:
    """Add the directives to Sphinx."""
    table = {"calculator": Calculator, "quiz": Quiz, "review": Review, "practice": Practice}
    table |= {"diagnostic": Diagnostic}
    table |= {"formula": FormulaBox, "notation-table": NotationTable}
    for name, directive in table.items():
        app.add_directive(name, directive)
