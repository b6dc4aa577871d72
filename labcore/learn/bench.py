"""`labcore bench` suite of the exercises: what a reader waits for between running a cell and seeing ✓."""

from __future__ import annotations

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.learn import exercises


def suite(run: RunBuilder) -> None:
    """One row: a check of the warm-up's exercise with the most stages, from call to verdict."""
    exercise = max(exercises.of_lab("lab00"), key=lambda one: len(one.stages))

    def answer(*args, **named):
        return exercise.reference(*args, **named)

    samples = alternate({"check": lambda: exercises.evaluate(exercise, answer)})
    verdict = exercises.evaluate(exercise, answer)
    run.add(
        Row(
            key="learn.check",
            what=f"one check of {exercise.id}: {verdict.message}",
            ours=samples["check"],
            unit="s",
            kind="value",
            correct={"pass": verdict.state == exercises.PASSED, "how": "a right answer is told that it passed"},
            target={"must": 0.1, "target": 0.02},
            threads=1,
        )
    )
