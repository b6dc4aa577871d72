"""The card above a stub: what is asked, how hard it is, how long it takes, which question it prepares for."""

from __future__ import annotations

from dataclasses import dataclass

from labcore.learn.exercises.exercise import Exercise, find


@dataclass(frozen=True)
class Card:
    """An exercise's card. Markdown, so that it takes the page's own theme; hints are folded."""

    exercise: Exercise

    @property
    def facts(self) -> str:
        one = self.exercise
        low, high = one.minutes
        minutes = f"{low} min" if low == high else f"{low} to {high} min"
        return f"difficulty {_dots(one.difficulty)} · importance {_dots(one.importance)} · {minutes}"

    def __repr__(self) -> str:
        one = self.exercise
        return f"{one.title} [{one.id}]\n{self.facts}\nAsked as: {one.asked}\n{one.spec}"

    def _repr_markdown_(self) -> str:
        one = self.exercise
        hints = "\n\n".join(
            f"<details>\n<summary>Hint {n} of 3</summary>\n\n{text}\n\n</details>"
            for n, text in enumerate(one.hints, 1)
        )
        head = f"**Exercise: {one.title}** · `{one.id}`\n\n{self.facts}"
        return f"{head}\n\n*Asked as:* {one.asked}\n\n{one.spec}\n\n{hints}"


def _dots(n: int) -> str:
    return "●" * n + "○" * (3 - n)


def card(exercise_id: str) -> Card:
    """The card of an exercise. Raises InputError for an unknown id."""
    return Card(find(exercise_id))
