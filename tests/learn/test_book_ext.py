"""The Sphinx extension on a small book of its own: what each directive writes, and what it says when it cannot."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from labcore.core.errors import DataError
from labcore.formulas import formula, notation_rows
from labcore.learn.book_ext import assets, practice
from labcore.learn.widgets import roofline_explorer

CONFIGURATION = """
extensions = ["myst_parser", "sphinx_design", "sphinx_thebe", "labcore.learn.book_ext"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
html_theme = "sphinx_book_theme"
html_theme_options = {"repository_url": "https://github.com/%s", "use_repository_button": True, "path_to_docs": ""}
root_doc = "index"
"""
PROBLEM = """
- id: kv.size
  title: Size the cache
  level: M
  minutes: 10
  given: {model: llama-2-70b}
  let: {kappa: {formula: kv.bytes_per_token, with: {b_kv: "2"}}}
  holds: ["kappa > 300000"]
  asked: How large is the cache of **one** token of {model}?
  hints: [Count what is stored per token., Then multiply., Keys and values.]
  solution: Keys and values, $2 n_l n_{kv} d_h$ elements, so {kappa:KiB}.
  rubric:
    - {criterion: Model, strong: derives it, lean: right after a nudge, no: uses query heads}
    - {criterion: Check, strong: compares with nbytes, lean: plausibility, no: none}
  samples: {strong: "About {kappa:KiB}, from {n_kv} KV heads.", lean: Some hundred KiB., no: "A few GB?"}
  follow_up:
    - {asked: "And in FP8?", answer: Half.}
    - {asked: "And of two tokens?", answer: Twice.}
"""


@pytest.fixture
def build(tmp_path):
    """`build("markdown", slug="OWNER/REPO", **{"book/practice/01.yml": text})` → (the page's HTML, the warnings)."""

    def run(markdown: str, slug: str = "OWNER/REPO", **files: str) -> tuple[str, str]:
        files = {"conf.py": CONFIGURATION % slug, "index.md": f"# Title\n\n{markdown}\n", **files}
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        warnings = io.StringIO()
        out = tmp_path / "out" / "html"
        with patch_docutils(), docutils_namespace():
            folders = (tmp_path, tmp_path, out, tmp_path / "out" / "doctrees")
            Sphinx(*map(str, folders), "html", status=None, warning=warnings, freshenv=True).build()
        return (out / "index.html").read_text(encoding="utf-8"), warnings.getvalue()

    return run


def test_the_scripts_load_deferred_and_in_order(build, tmp_path):
    html, warnings = build("")
    loaded = re.findall(r'<script defer="defer" src="_static/(labcore-[\w-]+\.js)', html)
    there = [name for name in assets.PAGE_SCRIPTS if (assets.STATIC / name).exists() or name == assets.DATA_SCRIPT]
    assert loaded == there and assets.DATA_SCRIPT in loaded
    assert all((tmp_path / "out" / "html" / "_static" / name).exists() for name in there)
    assert "sphinx-thebe.js" not in html and "unpkg.com" not in html
    assert warnings == ""


def test_the_way_in_leads_to_the_first_page_and_names_its_icon(build):
    settings = CONFIGURATION % "ada/book" + 'root_doc = "book/start"\nexclude_patterns = ["index.md"]\n'
    settings += 'html_favicon = "book/icon.svg"\nhtml_title = "A & B"\n'
    files = {"conf.py": settings, "book/start.md": "# Start", "book/icon.svg": "<svg/>"}
    html, warnings = build("", **files)
    assert 'rel="icon" href="_static/icon.svg"' in html and "url=book/start.html" in html and "A &amp; B" in html
    assert warnings == ""


def test_a_changed_style_reaches_a_book_that_is_built_already(tmp_path):
    configuration = CONFIGURATION % "OWNER/REPO" + 'html_static_path = ["styles"]\n'
    (tmp_path / "styles").mkdir()
    (tmp_path / "conf.py").write_text(configuration)
    (tmp_path / "index.md").write_text("# Title\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-d", tmp_path / "doctrees", tmp_path, tmp_path / "out"]
    for colour in ("red", "blue"):
        (tmp_path / "styles" / "own.css").write_text(f"p {{ color: {colour} }}")
        subprocess.run(command, check=True)
        assert colour in (tmp_path / "out" / "_static" / "own.css").read_text()


def test_the_data_script_is_one_assignment_of_json_and_deterministic(tmp_path):
    text = assets.data_script(tmp_path)
    match = re.fullmatch(r"globalThis\.labcoreData = (\{.*\});\n", text)
    data = json.loads(match[1])
    assert set(data) == {"facts", "quizzes"} and data["quizzes"] == {}
    assert "llama-3-70b" in data["facts"]["models"] and "h100-sxm" in data["facts"]["hardware"]
    assert assets.data_script(tmp_path) == text


@pytest.mark.parametrize("name", ["roofline", "kv", "kv.bytes_per_token kv.bytes"])
def test_a_calculator_mounts_and_has_a_fallback(build, name):
    html, warnings = build(f"```{{calculator}} {name}\n```")
    element = re.search(r'<div[^>]*data-labcore-widget="calculator"[^>]*>(.*?)</div>', html, re.DOTALL)
    assert element and element[1].strip() and warnings == ""


def test_options_set_the_controls_of_a_calculator(build):
    html, warnings = build("```{calculator} roofline\n:model: llama-3-8b\n:batch: 1\n```")
    assert roofline_explorer(model="llama-3-8b", batch=1).html() in html and warnings == ""


@pytest.mark.parametrize(
    ("directive", "says"),
    [
        ("kv.bytes_per_token\n:chart: wheels", "wheels: no such input"),
        ("roofline\n:chart: B", "roofline has no chart"),
        ("roofline\n:model: lama-3", "lama-3"),
    ],
)
def test_a_control_that_does_not_exist_is_an_error(build, directive, says):
    _, warnings = build(f"```{{calculator}} {directive}\n```")
    assert says in warnings


@pytest.mark.parametrize(
    ("markdown", "says"),
    [
        ("```{calculator} rooflin\n```", ["'rooflin'", "roofline"]),
        ("```{calculator} kv.bytes kv.byte_per_token\n```", ["'kv.byte_per_token'", "kv.bytes_per_token"]),
        ("```{formula} kv.byte_per_token\n```", ["'kv.byte_per_token'", "kv.bytes_per_token"]),
        ("```{quiz} 77\n```", ["'77'", "book/quizzes"]),
        ("```{practice} 77\n```", ["'77'", "book/practice holds: 01"]),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_what_exists(build, markdown, says):
    _, warnings = build(markdown, **{"book/practice/01.yml": PROBLEM})
    assert "does not exist" in warnings and all(word in warnings for word in says), warnings


def test_a_formula_shows_latex_unit_source_and_inputs(build):
    f = formula["kv.bytes_per_token"]
    html, warnings = build("```{formula} kv.bytes_per_token\n:label: eq-kv\n```")
    assert 'id="equation-eq-kv"' in html and all(i.name in html for i in f.inputs)
    assert "Source" in html and "<details" in html and warnings == ""


def test_the_notation_table_has_a_row_for_every_symbol_in_use(build):
    html, warnings = build("```{notation-table}\n```")
    rows = notation_rows()
    assert len(rows) > 20 and html.count("<tr") == len(rows) + 1 and warnings == ""
    assert all(f'<span class="pre">{row.name}</span>' in html for row in rows)


def test_practice_folds_everything_that_gives_something_away(build):
    html, warnings = build("```{practice} 01\n```", **{"book/practice/01.yml": PROBLEM})
    assert html.count("<details") == html.count("</details>") == 3 + 1 + 1 + 1 + 1 + 2 and warnings == ""
    opened = re.sub(r"<details.*</details>", "", html, flags=re.DOTALL)
    assert "<strong>one</strong> token of Llama 2 70B" in opened
    assert "320 KiB" in html and "320 KiB" not in opened and "derives it" not in opened and "Twice" not in opened


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "holds no list of problems"),
        ("- id: a\n  title: x", "01.yml, a: level"),
        (PROBLEM.replace("level: M", "level: X"), "01.yml, kv.size: level"),
        (PROBLEM.replace("minutes: 10", "minutes: 0"), "kv.size: minutes"),
        (PROBLEM.replace("title:", "titel:"), "kv.size: tit"),
        (PROBLEM.replace("{kappa:KiB}.", "{kapa:KiB}."), "kv.size: solution: {kapa} has no value"),
        (PROBLEM.replace("{n_kv} KV", "{n_kv:heads of} KV"), "kv.size: samples.strong: "),
        (PROBLEM.replace("kappa > 300000", "kappa > 400000"), "kv.size: holds: 'kappa > 400000' is false"),
        (PROBLEM.replace("kappa > 300000", "model > 3"), "kv.size: holds: 'model' in 'model > 3' has no numeric value"),
        (PROBLEM.replace("kappa > 300000", "kappa"), "kv.size: holds: 'kappa' is no comparison"),
        (PROBLEM.replace("llama-2-70b", "llama-2-71b"), "kv.size: given: "),
        (PROBLEM.replace("kv.bytes_per_token", "kv.byte_per_token"), "kv.size: let.kappa: "),
        (PROBLEM.replace("let: {", "let: {idle: 1, "), "kv.size: let: 'idle' is computed and never used"),
        (PROBLEM.replace("let: {", "let: {n_kv: 1, "), "kv.size: let: 'n_kv' is defined twice"),
        (PROBLEM.replace(", Keys and values.]", "]"), "kv.size: hints: "),
        (PROBLEM.replace("lean: Some hundred KiB., ", ""), "kv.size: samples.lean: field required"),
        (PROBLEM.replace("lean: plausibility, ", ""), "kv.size: rubric.1.lean: field required"),
        (PROBLEM.replace(", answer: Twice.", ""), "kv.size: follow_up.1.answer: field required"),
        (PROBLEM + PROBLEM, "'kv.size' occurs twice"),
        ("- id: [", "is not YAML"),
        ("- just text", "problem 1"),
    ],
)
def test_bad_practice_files_name_file_problem_and_field(tmp_path, text, says):
    path = tmp_path / "01.yml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        practice.load(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("slug", "shown"), [("OWNER/REPO", False), ("ada/book", True)])
def test_repository_buttons_wait_for_an_address(build, slug, shown):
    html, _ = build("", slug=slug)
    assert ("https://github.com/ada/book" in html) is shown and "github.com/OWNER" not in html
