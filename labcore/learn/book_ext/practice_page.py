"""A practice problem as MyST: the question in the open, everything that gives something away folded."""

from __future__ import annotations

from labcore.learn.book_ext.practice import Problem
from labcore.learn.quiz.text import fill

LEVELS = {"M": "mid-level", "S": "senior", "T": "staff"}
GRADES = (("no", "No hire"), ("lean", "Lean hire"), ("strong", "Strong hire"))


def markdown(problem: Problem) -> str:
    """One problem: question, hints one by one, three spoken answers, rubric, solution, follow-up chain."""
    values = problem.values()
    write = lambda text: fill(text.strip(), values)  # noqa: E731
    serves = f", {', '.join(problem.serves)}" if problem.serves else ""
    parts = [f"**{problem.title}** ({LEVELS[problem.level]}, {problem.minutes} min{serves})", write(problem.asked)]
    parts += [_folded(f"Hint {n}", write(hint)) for n, hint in enumerate(problem.hints, 1)]
    parts.append(_folded("Solution", write(problem.solution)))
    parts.append(_folded("Three answers, as spoken", _graded(problem.samples, write)))
    # a definition list: four columns of prose do not fit a phone
    criteria = "\n\n".join(f"**{write(row.criterion)}**\n\n{_graded(row, write)}" for row in problem.rubric)
    parts.append(_folded("How it is scored", criteria))
    chain = "\n\n".join(
        f"**{n}.** {write(step.asked)}\n\n{_folded('Answer', write(step.answer), ':::::')}"
        for n, step in enumerate(problem.follow_up, 1)
    )
    parts.append(_folded("Follow-up questions: one assumption changes at a time", chain))
    return "\n\n".join(parts)


def _graded(texts, write) -> str:
    """A definition list of the three grades."""
    lines = ((grade, write(getattr(texts, field)).replace("\n", "\n  ")) for field, grade in GRADES)
    return "\n\n".join(f"{grade}\n: {text}" for grade, text in lines)


def _folded(title: str, body: str, fence: str = "::::::") -> str:
    return f"{fence}{{dropdown}} {title}\n{body}\n{fence}"
