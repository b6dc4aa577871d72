"""What a quiz file may say: one pydantic model a kind of item, strict about unknown fields.

| kind | the reader | graded by |
|---|---|---|
| numeric | types a number | `answer`, within rel_tol; a `distractors` value names its error |
| predict | estimates before computing | `answer`, within a factor `within` |
| single, diagnose | picks one option; diagnose reads an `exhibit` first | the option that is right |
| multi | ticks options | all right ones and no other |
| order | sorts `order` | each entry's `value`, ascending, or the order in the file |
| cloze | fills the `[[blank]]`s of the stem | `accept` (text) or `expr`/`formula` (number) |
| spoken | answers aloud, then compares | itself, against `rubric` and three `samples` |
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labcore.core.units import unit
from labcore.learn.ladder import LADDER
from labcore.learn.quiz.expressions import Expression, check_name, from_formula, parse
from labcore.learn.quiz.text import FIXED

BLANK = re.compile(r"\[\[(\w+)\]\]")
Text = Annotated[str, Field(min_length=1)]
Value = int | float | str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Computed(Strict):
    """A value that is computed: `expr`, or a registered `formula` with some inputs replaced by `with`."""

    expr: str | None = None
    formula: str | None = None
    replace: dict[str, str] = Field(default={}, alias="with")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"expr": str(given)} if isinstance(given, (str, int, float)) else given

    @model_validator(mode="after")
    def _one_source(self):
        given = [name for name in ("expr", "formula", "accept") if getattr(self, name, None)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of expr and formula{' and accept' * hasattr(self, 'accept')}")
        if given != ["accept"]:
            if self.compiled.is_comparison:  # reading it says what cannot be parsed
                raise ValueError(f"{self.expr!r} is a comparison, not a number")
        return self

    @property
    def compiled(self) -> Expression:
        """The parsed expression. Raises InputError."""
        return parse(self.expr) if self.expr is not None else from_formula(self.formula, tuple(self.replace.items()))


class Answer(Computed):
    """A computed number in base units, the unit it is asked in, how it is written, and how exact it must be."""

    unit: str = "1"
    format: str | None = None
    rel_tol: float = Field(default=0.01, gt=0, le=0.2)

    @field_validator("unit")
    @classmethod
    def _known(cls, text: str) -> str:
        unit(text)
        return text

    @model_validator(mode="after")
    def _decimals(self):
        match = FIXED.fullmatch(self.format.strip("{:}")) if self.format else None
        if self.format and not match:
            raise ValueError(f"format {self.format!r} is not like '{{:.1%}}' or '{{:,.0f}}'")
        if match and match[2] == "%" and self.unit not in ("1", "%"):
            raise ValueError(f"format {self.format!r} is a percentage, but the unit is {self.unit!r}")
        return self

    @property
    def decimals(self) -> int | None:
        """Decimals shown; None stands for four significant digits."""
        return int(FIXED.fullmatch(self.format.strip("{:}"))[1]) if self.format else None

    @property
    def asked_in(self) -> str:
        """The unit beside the box: a percentage format asks for percent."""
        return "%" if self.format and "%" in self.format else self.unit


class Distractor(Computed):
    """A wrong value and the error that leads to it."""

    why: Text


def _comparison(text: bool | str | None) -> bool | str | None:
    if isinstance(text, str) and not parse(text).is_comparison:
        raise ValueError(f"{text!r} is no comparison")
    return text


class Option(Strict):
    """One choice. `right` is true, false, or a comparison that each draw decides."""

    text: Text
    right: bool | str = False
    why: str = ""

    _is_comparison = field_validator("right")(_comparison)


class Entry(Strict):
    """One line to sort; `value` proves its place."""

    text: Text
    value: Computed | None = None


class Blank(Computed):
    """One gap: words that are accepted, or a computed number."""

    accept: list[Text] = []
    rel_tol: float = Field(default=0.01, gt=0, le=0.2)


class Graded(Strict):
    """Something for each of the three grades."""

    @model_validator(mode="before")
    @classmethod
    def _yaml_no(cls, given: Any) -> Any:
        # YAML reads an unquoted key `no` as False
        return (
            {"no" if key is False else key: value for key, value in given.items()} if isinstance(given, dict) else given
        )


class Rubric(Graded):
    """What separates the three answers, as points to tick."""

    strong: list[Text] = Field(min_length=2)
    lean: list[Text] = Field(min_length=1)
    no: list[Text] = Field(min_length=1)


class Samples(Graded):
    """An answer of each grade, as spoken."""

    strong: Text
    lean: Text
    no: Text


class Item(Strict):
    """What every kind has.

    section: the heading that explains it, as text or as its anchor. rung: the day of the ladder on which the item is
    first asked. draw, given, where, let: see variants.py; `where` keeps the draws for which it holds, `let` names
    intermediate values for texts and expressions.
    """

    id: str = Field(pattern=r"^[a-z0-9]+([.\-][a-z0-9]+)*$")
    chapter: str = Field(pattern=r"^[a-z0-9_]+$")
    section: Text
    ability: str = Field(default="", pattern=r"^(C\d+\.\d+)?$")
    rung: int = 0
    level: Literal["M", "S", "T"]
    stem: Text
    draw: dict[str, Annotated[list[Value], Field(min_length=1)]] = {}
    given: dict[str, Value] = {}
    where: str | None = None
    let: dict[str, Computed] = {}
    hints: list[Text] = Field(default=[], max_length=3)
    explain: Text
    follow_up: str | None = None

    @field_validator("rung")
    @classmethod
    def _on_the_ladder(cls, rung: int) -> int:
        if rung not in LADDER:
            raise ValueError(f"{rung} is not a rung; the ladder has {', '.join(map(str, LADDER))}")
        return rung

    _is_comparison = field_validator("where")(_comparison)

    @model_validator(mode="after")
    def _names(self):
        names = [*self.draw, *self.given, *self.let]
        for name in names:
            check_name(name)
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is defined twice")
        return self

    @property
    def anchor(self) -> str:
        """The id that Sphinx gives the section's heading: lower case, hyphens, no leading number."""
        return re.sub(r"[^a-z0-9]+", "-", self.section.lower()).lstrip("-0123456789").rstrip("-")

    @property
    def heading(self) -> str:
        """The section as a reader knows it."""
        return self.section.replace("-", " ").capitalize() if self.section == self.anchor else self.section

    @property
    def page(self) -> str:
        """Page of the built book that explains the item, without suffix."""
        return f"{'labs' if self.chapter.startswith('lab') else 'book'}/{self.chapter}"


class Numeric(Item):
    kind: Literal["numeric"]
    answer: Answer
    distractors: list[Distractor] = Field(min_length=1)


class Predict(Item):
    kind: Literal["predict"]
    answer: Answer
    within: float = Field(default=2.0, gt=1, le=10)
    distractors: list[Distractor] = []


class Single(Item):
    kind: Literal["single"]
    options: list[Option] = Field(min_length=2)


class Multi(Item):
    kind: Literal["multi"]
    options: list[Option] = Field(min_length=3)


class Diagnose(Item):
    kind: Literal["diagnose"]
    exhibit: Text
    options: list[Option] = Field(min_length=2)


class Order(Item):
    kind: Literal["order"]
    order: list[Entry] = Field(min_length=3)


class Cloze(Item):
    kind: Literal["cloze"]
    blanks: dict[str, Blank] = Field(min_length=1)

    @model_validator(mode="after")
    def _every_blank(self):
        if sorted(BLANK.findall(self.stem)) != sorted(self.blanks):
            raise ValueError(f"the stem has the blanks {BLANK.findall(self.stem)}, blanks defines {list(self.blanks)}")
        return self


class Spoken(Item):
    kind: Literal["spoken"]
    seconds: int = Field(default=60, ge=20, le=600)
    rubric: Rubric
    samples: Samples


KINDS: dict[str, type[Item]] = {
    "numeric": Numeric,
    "single": Single,
    "multi": Multi,
    "order": Order,
    "cloze": Cloze,
    "predict": Predict,
    "diagnose": Diagnose,
    "spoken": Spoken,
}
