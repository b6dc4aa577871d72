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
    spoken = [(grade, [write(getattr(problem.samples, key))]) for key, grade in GRADES]
    parts.append(_folded("Three answers, as spoken", _definitions(spoken)))
    # not a table: four columns of prose do not fit a phone
    scored = [
        (write(row.criterion), [f"*{grade}:* {write(getattr(row, key))}" for key, grade in GRADES])
        for row in problem.rubric
    ]
    parts.append(_folded("How it is scored", _definitions(scored)))
    chain = "\n\n".join(
        f"**{n}.** {write(step.asked)}\n\n{_folded('Answer', write(step.answer), ':::::')}"
        for n, step in enumerate(problem.follow_up, 1)
    )
    parts.append(_folded("Follow-up questions: one assumption changes at a time", chain))
    return "\n\n".join(parts)


def _definitions(entries: list[tuple[str, list[str]]]) -> str:
    """A definition list of (term, what is said about it); further lines of a text are indented to stay inside."""
    said = ((term, "\n\n".join(": " + text.replace("\n", "\n  ") for text in texts)) for term, texts in entries)
    return "\n\n".join(f"{term}\n{texts}" for term, texts in said)


def _folded(title: str, body: str, fence: str = "::::::") -> str:
    return f"{fence}{{dropdown}} {title}\n{body}\n{fence}"
