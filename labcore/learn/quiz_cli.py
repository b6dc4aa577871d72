"""`labcore quiz validate` and `labcore quiz export`."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from labcore.core.errors import InputError
from labcore.learn import quiz

HELP = "check the quizzes, or export them to Anki and a calendar"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    validate = commands.add_parser("validate", help="check quiz files: schema, expressions, answers, distractors")
    validate.add_argument("files", nargs="*", type=Path, help="quiz files (default: all of book/quizzes)")
    export = commands.add_parser("export", help="write an Anki package, a calendar, or both")
    export.add_argument("files", nargs="*", type=Path, help="quiz files (default: all of book/quizzes)")
    export.add_argument("--anki", type=Path, metavar="FILE.apkg", help="write an Anki package")
    export.add_argument("--ics", type=Path, metavar="FILE.ics", help="write a calendar of review days")
    export.add_argument("--interview-date", type=_day, metavar="YYYY-MM-DD", help="fit every review before this day")
    export.add_argument("--start", type=_day, metavar="YYYY-MM-DD", help="first day of the ladder (default: today)")
    export.add_argument(
        "--draws", type=int, default=3, metavar="N", help="notes for each numeric question (default: 3)"
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it like 2027-01-15") from error


def run(args: argparse.Namespace) -> int:
    """Do what was asked; prints what was written. Raises InputError for bad files, dates and options."""
    files = args.files or sorted(quiz.find("00").parent.glob("*.yml"))
    quizzes = [quiz.load(path) for path in files]
    if args.action == "validate":
        for loaded in quizzes:
            print(f"{loaded.id} {loaded.title}: {len(loaded.items)} questions, all well")
        return 0
    if not args.anki and not args.ics:
        raise InputError("nothing to write: pass --anki FILE.apkg, --ics FILE.ics, or both")
    if args.interview_date and not args.ics:
        raise InputError("--interview-date shapes the calendar: pass --ics FILE.ics too")
    if args.anki:
        from labcore.learn import export_anki

        print(f"{args.anki}: {export_anki.export(quizzes, args.anki, args.draws)} notes")
    if args.ics:
        from labcore.learn import export_ics

        entries = export_ics.export(quizzes, args.ics, args.start or date.today(), args.interview_date)
        print(f"{args.ics}: {entries} entries")
    return 0
