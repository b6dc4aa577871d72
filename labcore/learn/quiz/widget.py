"""A quiz and the review as notebook widgets: the same scripts as in the built book."""

from __future__ import annotations

from labcore.learn.quiz import fallback
from labcore.learn.quiz.load import Quiz, find, load
from labcore.learn.widgets.base import Widget


class QuizWidget(Widget):
    """A checkpoint in a notebook. The live view carries its items along; the built book has them in its data script."""

    def __init__(self, quiz: Quiz) -> None:
        super().__init__("quiz", {"quiz": quiz.id, "title": quiz.title, "quizzes": {quiz.id: quiz.as_json()}})
        self.quiz = quiz

    def html(self) -> str:
        """See Quiz.html."""
        return self.quiz.html()

    def __repr__(self) -> str:
        return f"quiz({self.quiz.id!r}): {self.quiz.title}, {len(self.quiz.items)} questions"


def quiz(name: str) -> QuizWidget:
    """The checkpoint `book/quizzes/<name>.yml` as a widget. Raises DataError naming the quizzes there are."""
    return QuizWidget(load(find(name)))


def review() -> Widget:
    """What is due today across all chapters, as a widget. Raises DataError outside a checkout."""
    quizzes = {path.stem: load(path).as_json() for path in sorted(find("00").parent.glob("*.yml"))}
    return Widget("review", {"title": "Review", "quizzes": quizzes}, fallback.REVIEW)
