"""The practice problems of the book, and the numbers they write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labcore import facts
from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.learn.book_ext import practice, practice_page
from labcore.learn.claims_check import figures, prose
from labcore.learn.quiz.text import FIELD

FILES = sorted((Path(__file__).parents[2] / "book" / "practice").glob("*.yml"))
PROBLEMS = [pytest.param(problem, id=problem.id) for path in FILES for problem in practice.load(path)]


def typed(text: str) -> list[str]:
    """Figures with a unit that the text carries itself instead of writing a computed value."""
    return figures(prose(FIELD.sub("", text)))


def test_a_typed_figure_is_found():
    assert typed("It takes 4.8 ms, or {share:.0%} of {t:ms}.") == ["4.8ms"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_figure_is_typed(problem):
    assert {field: found for field, text in problem.texts() if (found := typed(text))} == {}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_page_has_no_field_left_and_closes_what_it_opens(problem):
    page = practice_page.markdown(problem)
    assert not FIELD.search(re.sub(r"\$[^$]+\$", "", page).replace("{dropdown}", ""))
    in_math = [math for math in re.findall(r"\$[^$]+\$", page) if re.search(r"\{\w+:[^{}]*\}", math)]
    assert not in_math, "what stands in math is not filled"
    fences = re.findall(r"^(:{5,6})(\{dropdown\})?", page, re.M)
    assert sum(bool(opens) for _, opens in fences) * 2 == len(fences)


def problem_with(**fields) -> practice.Problem:
    """A problem that is complete but for what is asked of it here."""
    three = {"no": "x", "lean": "x", "strong": "x"}
    step = {"asked": "x", "answer": "x"}
    base = {"id": "a", "title": "x", "level": "M", "minutes": 1, "asked": "x", "hints": ["x"] * 3, "solution": "x"}
    base |= {"rubric": [{"criterion": "x", **three}] * 2, "samples": three, "follow_up": [step] * 2}
    return practice.Problem.model_validate(base | fields)


def test_a_second_device_and_model_bring_their_figures_under_a_name():
    given = {"hardware": "h100-sxm", "old": {"hardware": "a100-80-sxm"}, "small": {"model": "llama-3-8b"}}
    values = problem_with(given=given).values()
    assert values["beta"] == facts.hardware("h100-sxm").bandwidth and values["old"] == "NVIDIA A100 80GB SXM"
    assert values["old_beta"] == facts.hardware("a100-80-sxm").bandwidth
    assert values["small_P"] == facts.model("llama-3-8b").parameters() and "P" not in values


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3"])
def test_one_token_of_a_mixture_reads_its_active_parameters(name):
    values = problem_with(given={"model": name}).values()
    experts = {key: values[key] for key in ("E", "k", "n_moe", "P_expert", "P_dense")}
    assert formula["moe.bytes_read"](b_w=1, B=1, **experts) == pytest.approx(facts.model(name).active_parameters())
    assert values["P_dense"] + values["n_moe"] * values["E"] * values["P_expert"] == facts.model(name).parameters()


def test_an_unknown_model_is_named():
    with pytest.raises(InputError, match="llama-4-8b"):
        problem_with(given={"model": "llama-4-8b"}).values()
