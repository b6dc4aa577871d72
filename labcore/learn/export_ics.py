"""The ladder as a calendar: one all-day entry for every day on which reviews fall, and one for the interview."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from labcore.core.errors import InputError
from labcore.core.files import atomic_write
from labcore.learn.ladder import schedule
from labcore.learn.quiz import Quiz


def plan(
    quizzes: Iterable[Quiz], start: date, interview: date | None = None
) -> dict[date, list[tuple[Quiz, int, int]]]:
    """Day → (quiz, rung, questions) for a reader who begins every quiz on `start` and passes.

    On a rung, every question that is first asked on it or below it is asked. Raises InputError for an interview that
    is not after `start`.
    """
    if interview is not None and interview <= start:
        raise InputError(
            f"the interview on {interview} is not after the first day, {start}; pass --start or a later date"
        )
    days: dict[date, list[tuple[Quiz, int, int]]] = defaultdict(list)
    for rung, day in schedule(start, interview).items():
        if interview is not None and day >= interview:
            continue
        for quiz in quizzes:
            if count := sum(item.rung <= rung for item in quiz.items):
                days[day].append((quiz, rung, count))
    return dict(days)


def calendar(quizzes: Iterable[Quiz], start: date, interview: date | None = None) -> bytes:
    """The iCalendar text (RFC 5545). The same input gives the same bytes: importing it again updates, never doubles."""
    from icalendar import Calendar, Event

    quizzes = list(quizzes)
    found = Calendar()
    found.add("prodid", "-//labcore//quiz ladder//EN")
    found.add("version", "2.0")

    def entry(uid: str, day: date, title: str, text: str) -> None:
        event = Event()
        event.add("uid", f"{uid}@labcore")
        event.add("dtstamp", datetime(start.year, start.month, start.day, tzinfo=UTC))
        event.add("dtstart", day)
        event.add("dtend", day + timedelta(days=1))
        event.add("summary", title)
        event.add("description", text)
        event.add("transp", "TRANSPARENT")
        found.add_component(event)

    for day, rows in sorted(plan(quizzes, start, interview).items()):
        total = sum(count for *_, count in rows)
        lines = [f"{quiz.title}: {count} question{'s' * (count != 1)}, day {rung}" for quiz, rung, count in rows]
        first = min(rung for _, rung, _ in rows)
        entry(f"review-day-{first}", day, f"Review: {total} questions", "\n".join(lines))
    if interview is not None:
        entry("interview", interview, "Interview", "Good luck.")
    return found.to_ical()


def export(quizzes: Iterable[Quiz], path: str | Path, start: date, interview: date | None = None) -> int:
    """Write the calendar; returns how many entries it has. The file appears whole or not at all."""
    text = calendar(quizzes, start, interview)
    atomic_write(Path(path), text)
    return text.count(b"BEGIN:VEVENT")
