"""Quiz files: what is accepted, what is refused and in which words, and what travels to the page."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import DataError, InputError
from labcore.learn import quiz
from labcore.learn.quiz import checks, expressions, text, variants
from labcore.learn.quiz.schema import KINDS

WARM_UP = Path(__file__).resolve().parents[2] / "book" / "quizzes" / "00.yml"
ITEM = {
    "id": "try.one",
    "chapter": "03_batching",
    "section": "waste",
    "level": "M",
    "kind": "numeric",
    "stem": "{S} slots, {n} tokens: utilization?",
    "draw": {"S": [16, 64], "n": [100, 200]},
    "answer": {"formula": "kv.paging.utilization", "format": "{:.1%}", "rel_tol": 0.005},
    "distractors": [{"expr": "n / (n + 2 * S)", "why": "two blocks"}],
    "explain": "Half a block.",
}
OPTIONS = [{"text": "a", "right": True}, {"text": "b", "why": "no"}, {"text": "c", "why": "no"}]


def write(tmp_path, *items):
    path = tmp_path / "03.yml"
    path.write_text(yaml.safe_dump({"title": "Try", "items": list(items)}, allow_unicode=True))
    return path


def changed(**fields):
    item = copy.deepcopy(ITEM) | fields
    return {key: value for key, value in item.items() if value is not None}


def single(**fields):
    return changed(kind="single", answer=None, distractors=None, options=OPTIONS) | fields


def test_a_valid_item_is_read_and_its_answers_are_computed(tmp_path):
    item = quiz.load(write(tmp_path, ITEM)).items[0]
    by_hand = {(S, n): n / (n + (S - 1) / 2) for S in (16, 64) for n in (100, 200)}
    found = {(v["S"], v["n"]): checks.evaluate(item.answer, v) for v in checks.variants(item)}
    assert found == pytest.approx(by_hand)
    assert (item.page, item.anchor, item.heading) == ("book/03_batching", "waste", "Waste")
    assert item.answer.asked_in == "%"


REFUSED = {
    "kind: 'essay' is not one of numeric": changed(kind="essay"),
    "level: input should be 'M', 'S' or 'T'": changed(level="X"),
    "explain: field required": changed(explain=None),
    "answr: extra inputs are not permitted": changed(answr=1),
    "rung: 5 is not a rung; the ladder has 0, 3, 7, 14, 21": changed(rung=5),
    "answer: no formula has the id 'kv.paging.utilisation'": changed(answer={"formula": "kv.paging.utilisation"}),
    "answer: 'n +' is not an expression": changed(answer="n +"),
    "answer: '__import__(\"os\")' in": changed(answer='__import__("os")'),
    "answer: 'n.real' in 'n.real' is not arithmetic": changed(answer="n.real"),
    "answer: 'm' in 'n / m' has no numeric value": changed(answer="n / m"),
    "answer: 'n / (S - 16)' ": changed(answer="n / (S - 16)"),
    "answer: is 0 for some draw": changed(answer="n - 100"),
    "answer.unit: unit 'GBB' is unknown": changed(answer={"expr": "n", "unit": "GBB"}),
    "answer: format '{:d}' is not like": changed(answer={"expr": "n", "format": "{:d}"}),
    "answer: give exactly one of expr and formula": changed(answer={"unit": "B"}),
    "answer: formula kv.paging.utilization has no input 'F'": changed(
        answer={"formula": "kv.paging.utilization", "with": {"F": "n"}}
    ),
    "distractors.0: 0.863931 cannot be told from the answer 0.863931 for S=64, n=200": changed(
        distractors=[{"formula": "kv.paging.utilization", "why": "the same"}]),
    "distractors.1: ": changed(
        distractors=[*ITEM["distractors"], {"expr": "n / (2 * S + n)", "why": "the same again"}]),
    "stem: {k} has no value; the names are S, n": changed(stem="{k}?"),
    "explain: unit 'slots_' is unknown": changed(explain="{S:slots_}"),
    "draw: no hardware 'h100'": changed(given={"hardware": "h100"}),
    "draw: 'beta' is drawn, and hardware 'h100-sxm' brings it too": changed(
        given={"hardware": "h100-sxm"}, draw=ITEM["draw"] | {"beta": [1]}),
    "draw: where 'n < 0' leaves no draw": changed(where="n < 0"),
    "where: 'n + 1' is no comparison": changed(where="n + 1"),
    "draw: draws 8,000 combinations": changed(draw=ITEM["draw"] | {"a": [*range(1, 2001)]}),
    "the item: 'var' cannot be a name": changed(draw=ITEM["draw"] | {"var": [1]}),
    "the item: 'n' is defined twice": changed(let={"n": "S"}),
    "options: 2 are right for S=": single(options=[*OPTIONS, {"text": "d", "right": True}]),
    "options: 0 are right for": single(options=OPTIONS[1:]),
    "options.1: is wrong, so it needs a why": single(options=[OPTIONS[0], {"text": "b"}]),
    "options: 3 of 3 are right": single(kind="multi", options=[OPTIONS[0]] * 3),
    "order: is not ascending: the values are 2, 1, 3": changed(
        kind="order", draw=None, stem="Sort", answer=None, distractors=None,
        order=[{"text": t, "value": t} for t in "213"]),
    "the item: the stem has the blanks ['x'], blanks defines ['y']": changed(
        kind="cloze", answer=None, distractors=None, stem="[[x]]", blanks={"y": {"accept": ["a"]}}),
    "follow_up: 'try.two' is no item of this file": changed(follow_up="try.two"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_wrong_item_is_refused_with_file_item_and_field(tmp_path, sentence):
    with pytest.raises(DataError) as caught:
        quiz.load(write(tmp_path, REFUSED[sentence]))
    message = str(caught.value)
    assert message.startswith("03.yml, try.one: ") and sentence in message and "\n" not in message, message


def test_files_that_are_no_quiz_are_refused(tmp_path):
    path = tmp_path / "03.yml"
    for content, sentence in (
        ("- id: a", "must hold `title: …` and `items:`"),
        ("title: [", "is not YAML"),
        ("title: a\nitems: []", "items: is empty"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match="03") as caught:
            quiz.load(path)
        assert sentence in str(caught.value)
    path.write_bytes(b"title: \xff")
    with pytest.raises(DataError, match=r"03\.yml is not YAML: 'utf-8' codec") as caught:
        quiz.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"try\.one: id: occurs twice"):
        quiz.load(write(tmp_path, ITEM, ITEM))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        quiz.load(tmp_path / "04.yml")


def test_an_unquoted_no_in_yaml_is_the_grade_no(tmp_path):
    graded = {"strong": ["a", "b"], "lean": ["c"], False: ["d"]}
    samples = {"strong": "a", "lean": "b", False: "c"}
    item = changed(kind="spoken", answer=None, distractors=None, rubric=graded, samples=samples)
    assert quiz.load(write(tmp_path, item)).items[0].rubric.no == ["d"]


def test_a_draw_can_decide_which_option_is_right(tmp_path):
    options = [{"text": "a", "right": "n < 150", "why": "x"}, {"text": "b", "right": "n > 150", "why": "x"}]
    item = quiz.load(write(tmp_path, single(options=options))).items[0]
    for values in checks.variants(item):
        assert [checks.holds(o, values) for o in item.options] == [values["n"] < 150, values["n"] > 150]


def test_distractors_that_reach_into_the_tolerance_of_the_answer_are_noticed():
    assert not checks.differ(1.009, 1.0, 0.005) and checks.differ(1.011, 1.0, 0.005)


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0.5, 3))
def test_expressions_mean_what_python_means(a, b, c):
    for source in ("a / (a + b) - 2 * c", "ceil(a / b)", "max(a, b, c) ** 0.5", "-a + 3e2", "min(a, 7) * log2(b)"):
        names = {"ceil": math.ceil, "max": max, "min": min, "log2": math.log2}
        expected = eval(source, names | {"a": a, "b": b, "c": c})
        assert expressions.parse(source)({"a": a, "b": b, "c": c}) == pytest.approx(expected, rel=1e-9)


def test_words_of_javascript_are_no_names():
    for name in ("var", "ceil", "a-b", "é"):
        with pytest.raises(InputError, match="cannot be a name"):
            expressions.check_name(name)


@pytest.mark.parametrize(
    "spec, shown",
    [(None, "79.11"), ("GB", "0.00000007911 GB"), (".1f", "79.1"), (".1%", "7,911.0 %"), ("ms", "79,110 ms")],
)
def test_values_in_texts(spec, shown):
    assert text.shown(79.11, spec).replace("7.911e−8", "0.00000007911") == shown


def test_braces_of_tex_stay_and_markup_is_escaped():
    filled = text.fill(r"$\frac{n}{S}$ for {n} <b>", {"n": 5})
    assert filled == r"$\frac{n}{S}$ for 5 <b>"
    assert text.inline(filled) == r'<span class="math">\(\frac{n}{S}\)</span> for 5 &lt;b&gt;'
    assert text.to_html("a `b`\n\n**c** *d*") == "<p>a <code>b</code></p><p><strong>c</strong> <em>d</em></p>"


def test_variants_are_every_combination_once_in_a_fixed_order():
    rows = variants.drawn("try.one", ITEM["draw"], {"k": 7})
    assert {(r["S"], r["n"], r["k"]) for r in rows} == {(S, n, 7) for S in (16, 64) for n in (100, 200)}
    assert rows == variants.drawn("try.one", ITEM["draw"], {"k": 7}) and len(rows) == 4


# ---- the quiz that ships ---------------------------------------------------------------------------------------------


def test_the_warm_up_uses_every_kind_and_every_rung():
    loaded = quiz.load(WARM_UP)
    assert {item.kind for item in loaded.items} == set(KINDS)
    assert {item.rung for item in loaded.items} == {0, 3, 7, 14, 21}
    fresh = [item for item in loaded.items if item.kind == "numeric" and len(checks.rows(item)) >= 4]
    assert len(loaded.items) >= 14 and len(fresh) >= 5
    assert sum(len(item.distractors) >= 2 for item in fresh) >= 5


BY_HAND = {
    "units.gib.001": lambda v: v["gib"] * 1024**3,
    "units.link.001": lambda v: v["gb"] * 1e9 / (v["gbit"] * 1e9 / 8),
    "units.bits.001": lambda v: v["P"] / (8 / v["bits"]),
    "units.read-weights.001": lambda v: 2 * v["P"] / v["beta"],
    "units.room.001": lambda v: v["cards"] * v["capacity"] - v["b_w"] * v["P"],
    "units.ridge.001": lambda v: v["sparse"] / 2 / v["beta"],
    "units.throughput.001": lambda v: v["B"] * 1000 / v["ms"],
    "units.log.001": lambda v: (
        10 ** (math.log10(v["low"]) + v["percent"] / 100 * (math.log10(v["high"]) - math.log10(v["low"])))
    ),
    "units.mean.001": lambda v: sum(1 / r for r in (v["a"], v["b"])) / 2,
    "units.floor.001": lambda v: max(v["tflop"] * 1e12 / v["F_bf16"], v["gb"] * 1e9 / v["beta"]),
}


def test_every_numeric_answer_of_the_warm_up_agrees_with_a_second_derivation():
    numeric = {item.id: item for item in quiz.load(WARM_UP).items if item.kind in ("numeric", "predict")}
    assert set(numeric) == set(BY_HAND)
    for name, item in numeric.items():
        for values in checks.variants(item):
            assert checks.evaluate(item.answer, values) == pytest.approx(BY_HAND[name](values), rel=1e-12), (
                name,
                values,
            )


@pytest.mark.parametrize("path", sorted(WARM_UP.parent.glob("*.yml")), ids=lambda path: path.stem)
def test_every_link_of_a_quiz_leads_to_a_heading(path):
    from docutils.nodes import make_id

    root = WARM_UP.parents[2]
    for item in quiz.load(path).items:
        page = root / item.page
        if page.with_suffix(".md").exists():
            lines = page.with_suffix(".md").read_text(encoding="utf-8").splitlines()
        else:
            cells = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
            lines = [line for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).splitlines()]
        assert item.anchor in {make_id(line.lstrip("# ")) for line in lines if line.startswith("#")}, item.id


def test_what_travels_to_the_page_is_plain_and_always_the_same():
    loaded = quiz.load(WARM_UP)
    first = json.dumps(loaded.as_json(), sort_keys=True)
    assert first == json.dumps(quiz.load(WARM_UP).as_json(), sort_keys=True)
    assert "formula" not in first and "sympy" not in first
    fallback = loaded.html()
    assert "A driver reports" in fallback and "2^{30}" not in fallback and "takes GB and GiB" not in fallback


def test_the_notebook_widget_names_what_exists(tmp_path, monkeypatch):
    widget = quiz.quiz("00")
    assert repr(widget) == "quiz('00'): Units and notation, 19 questions"
    assert widget.html() == quiz.load(WARM_UP).html() and "items" in json.dumps(widget.spec)
    with pytest.raises(DataError, match="there is no quiz '99'; there is 00"):
        quiz.quiz("99")
    assert "00" in quiz.review().spec["quizzes"]
