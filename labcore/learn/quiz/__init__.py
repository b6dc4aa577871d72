"""Quizzes: the items of `book/quizzes/NN.yml`, checked, and shown in the page, in a notebook, in Anki and a calendar.

`load(path)` reads one file; `quiz("00")` shows it in a notebook. What a file may say: `schema`.
"""

from labcore.learn.quiz.load import Quiz, find, load
from labcore.learn.quiz.widget import quiz, review

__all__ = ["Quiz", "find", "load", "quiz", "review"]
