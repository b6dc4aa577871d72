"""The ladder of spaced reviews: 0, 3, 7, 14 and 21 days, counted in the reader's local calendar days.

A pass moves an item up one rung, a hesitant pass repeats the same wait, a failure returns it to day 3. An interview
date compresses every wait in proportion, so that the last rung falls before the interview. Pure functions over dates:
no clock is read and no time zone enters, so neither daylight saving nor travel can move a review.
labcore-quiz.js holds the same functions; both run on the same golden walks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from labcore.core.errors import InputError

LADDER = (0, 3, 7, 14, 21)
TOP = LADDER[-1]
RETURN = 3  # the rung a failure goes back to
Outcome = Literal["pass", "hold", "fail"]


@dataclass(frozen=True)
class Place:
    """Where an item stands: it waits for rung `rung`, having left rung `base` on day `since`. `rung` None: done."""

    rung: int | None
    base: int
    since: date


def below(rung: int) -> int:
    """The next lower rung; 0 below 3."""
    return LADDER[max(0, LADDER.index(rung) - 1)]


def enter(rung: int, start: date) -> Place:
    """An item that is first asked `rung` days after the reader starts. Raises InputError off the ladder."""
    if rung not in LADDER:
        raise InputError(f"{rung} is not a rung; the ladder has {', '.join(map(str, LADDER))}")
    return Place(rung, 0, start)


def due(place: Place, interview: date | None = None) -> date | None:
    """The day on which the item is asked again; None once it has passed the top rung.

    With an interview after `since`, the days that remain before it take the place of the days the ladder still
    needs, if they are fewer; a wait never shrinks below one day.
    """
    if place.rung is None:
        return None
    wait = place.rung - place.base
    if interview is not None and interview > place.since:
        needed, available = TOP - place.base, (interview - place.since).days - 1
        if available < needed:
            wait = min(wait, max(1, wait * available // needed))
    return place.since + timedelta(days=wait)


def answer(place: Place, outcome: Outcome, today: date, interview: date | None = None) -> Place:
    """The place after an answer given on `today`.

    An answer before the item is due is practice: only a failure counts. Raises InputError for an unknown outcome.
    """
    if outcome not in ("pass", "hold", "fail"):
        raise InputError(f"outcome {outcome!r} is not one of pass, hold, fail")
    if outcome == "fail":
        return Place(RETURN, 0, today)
    when = due(place, interview)
    if when is None or today < when:
        return place
    if outcome == "hold":
        rung = max(RETURN, place.rung)
        return Place(rung, below(rung), today)
    if place.rung == TOP:
        return Place(None, TOP, today)
    return Place(LADDER[LADDER.index(place.rung) + 1], place.rung, today)


def schedule(start: date, interview: date | None = None) -> dict[int, date]:
    """Rung → day of an item that is asked from day 0 on and passed each time, on the day."""
    days, place = {}, enter(0, start)
    while (when := due(place, interview)) is not None:
        days[place.rung] = when
        place = answer(place, "pass", when, interview)
    return days
