"""Practice problems: the YAML file of a chapter, checked. What a problem looks like on the page: practice_page.py.

    - id: roofline.upgrade                       # names the problem in errors; unique in the file
      title: …                                   # plain text
      level: M                                   # M mid-level, S senior, T staff
      minutes: 15
      serves: [C0.1]                             # checkpoint abilities; may be left out
      given: {batch: 8, old: {hardware: a100-80-sxm}, model: llama-3-8b}
      let: {t_w: {formula: decode.weight_time, with: {b_w: "2", beta: old_beta}}, ratio: "new_beta / old_beta"}
      holds: ["ratio > 1"]                       # what the texts say in words, checked
      asked: … {t_w:ms} …                        # from here on MyST text; {name:unit} writes a computed value
      hints: [idea, setup, first step]
      solution: …
      rubric: [{criterion: Model, strong: …, lean: …, no: …}]
      samples: {no: …, lean: …, strong: …}       # answers as spoken
      follow_up: [{asked: …, answer: …}]         # each one changes a single assumption

`given` and `let` are those of a quiz item (labcore.learn.quiz). Under a name of its own, as `old` above, a second
device or model brings the same figures with that name in front: old_beta, old_F_bf16. A model that routes to experts
also brings E, k, n_moe, P_expert and P_dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from labcore import facts
from labcore.core.errors import DataError, InputError
from labcore.learn.quiz.checks import evaluate
from labcore.learn.quiz.expressions import check_name, parse
from labcore.learn.quiz.schema import Computed, Graded, Samples, Text, Value
from labcore.learn.quiz.text import fields, fill
from labcore.learn.quiz.variants import resolve
from labcore.learn.yaml_file import read_yaml

if TYPE_CHECKING:
    from pathlib import Path


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Criterion(Graded):
    """One row of the rubric: what three answers do about it."""

    criterion: Text
    strong: Text
    lean: Text
    no: Text


class FollowUp(Strict):
    """A question that changes one assumption, and its answer."""

    asked: Text
    answer: Text


class Problem(Strict):
    """One problem, its texts not yet filled."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    title: Text
    level: Literal["M", "S", "T"]
    minutes: int = Field(gt=0)
    serves: list[Annotated[str, Field(pattern=r"^C\d+\.\d+$")]] = []
    given: dict[str, Value | dict[Literal["hardware", "model"], str]] = {}
    let: dict[str, Computed] = {}
    holds: list[Text] = []
    asked: Text
    hints: list[Text] = Field(min_length=3, max_length=3)
    solution: Text
    rubric: list[Criterion] = Field(min_length=2)
    samples: Samples
    follow_up: list[FollowUp] = Field(min_length=2)

    @field_validator("holds")
    @classmethod
    def _comparisons(cls, texts: list[str]) -> list[str]:
        for text in texts:
            if not parse(text).is_comparison:
                raise ValueError(f"{text!r} is no comparison")
        return texts

    def figures(self) -> dict[str, Any]:
        """The given values and what their devices and models bring. Raises InputError for an unknown id."""
        plain = {name: value for name, value in self.given.items() if not isinstance(value, dict)}
        known = resolve(plain) | _experts(plain.get("model"))
        for name, record in self.given.items():
            if isinstance(record, dict):
                brought = resolve(record) | _experts(record.get("model"))
                known |= {name if key in record else f"{name}_{key}": value for key, value in brought.items()}
        return known

    def values(self) -> dict[str, Any]:
        """Every name that the texts may write, in base units. Raises InputError for a name without a value."""
        known = self.figures()
        for name, computed in self.let.items():
            check_name(name)
            if name in known:
                raise InputError(f"{name!r} is defined twice")
            known[name] = evaluate(computed, known)
        return known

    def used(self) -> set[str]:
        """Names that a text, a comparison or another computed value reads."""
        read = [parse(text).names for text in self.holds] + [c.compiled.names for c in self.let.values()]
        return {name for names in read for name in names} | {n for _, text in self.texts() for n, _ in fields(text)}

    def texts(self) -> Iterator[tuple[str, str]]:
        """(field, text) of everything that is filled and shown."""
        yield from (("asked", self.asked), ("solution", self.solution))
        yield from ((f"hints.{n}", hint) for n, hint in enumerate(self.hints))
        yield from ((f"samples.{grade}", text) for grade, text in self.samples)
        for n, row in enumerate(self.rubric):
            yield from ((f"rubric.{n}.{field}", text) for field, text in row)
        for n, step in enumerate(self.follow_up):
            yield from ((f"follow_up.{n}.{field}", text) for field, text in step)


def _experts(model: str | None) -> dict[str, float]:
    """What a mixture of experts brings besides its shape: the inputs of the formulas moe.*, biases aside."""
    moe = facts.model(model).moe if model else None
    if moe is None:
        return {}
    config = facts.model(model)
    layers, expert = config.n_layers - moe.dense_layers, 3 * config.hidden * moe.moe_intermediate
    dense = config.parameters() - layers * moe.n_experts * expert
    return {"E": moe.n_experts, "k": moe.top_k, "n_moe": layers, "P_expert": expert, "P_dense": dense}


def load(path: Path) -> list[Problem]:
    """Read `book/practice/NN.yml`: a list of problems.

    Raises DataError naming the file, the problem and the field when one is missing, unknown or of the wrong type, when
    a text writes a name without a value or a comparison in `holds` is false, or when two problems share an id.
    """
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path.name} holds no list of problems; start each problem with '- id: …'")
    problems = [_problem(path.name, number, entry) for number, entry in enumerate(entries, 1)]
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(f"{path.name}: the id {problem.id!r} occurs twice; ids are unique")
        seen.add(problem.id)
    return problems


def _problem(file: str, number: int, entry: object) -> Problem:
    name = entry.get("id", f"problem {number}") if isinstance(entry, dict) else f"problem {number}"
    field = "given"
    try:
        problem = Problem.model_validate(entry)
        problem.figures()
        field = "let"
        values = problem.values()
        for comparison in problem.holds:
            field = "holds"
            if not parse(comparison)(_numbers(comparison, values)):
                raise InputError(f"{comparison!r} is false")
        for field, text in problem.texts():  # noqa: B007 (the except clause names it)
            fill(text, values)
        field = "let"
        if idle := sorted(set(problem.let) - problem.used()):
            raise InputError(f"{idle[0]!r} is computed and never used")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the entry"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}, {name}: {field}: {message[:1].lower()}{message[1:]}") from error
    except InputError as error:
        raise DataError(f"{file}, {name}: {field}: {error}") from error
    return problem


def _numbers(comparison: str, values: dict[str, Any]) -> dict[str, Any]:
    if unknown := [n for n in parse(comparison).names if not isinstance(values.get(n), (int, float))]:
        raise InputError(f"{unknown[0]!r} in {comparison!r} has no numeric value")
    return values
