"""Finding a row by its id, and reading the data files beside this code."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labcore.core.errors import DataError, InputError

FOLDER = Path(__file__).parent


def require_id(kind: str, wanted: str, known: Iterable[str]) -> None:
    """Raise InputError naming close ids unless `wanted` is one of `known`."""
    known = list(known)
    if wanted in known:
        return
    close = difflib.get_close_matches(str(wanted).lower(), known, n=3, cutoff=0.5)
    raise InputError(f"no {kind} {wanted!r}: " + (f"did you mean {' or '.join(close)}?" if close else f"use {known}"))


def read_toml(name: str) -> dict[str, Any]:
    """A data file of this folder, parsed."""
    with (FOLDER / name).open("rb") as file:
        return tomllib.load(file)


def read_json(name: str) -> Any:
    """A data file of this folder, parsed."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def require_source(row: str, source: str, as_of: str) -> None:
    """Every fact says where it is from and of what day, month or year it is. Raises DataError naming the row."""
    if not source:
        raise DataError(f"{row}: source is empty")
    if not re.fullmatch(r"20\d\d(-(0[1-9]|1[0-2])(-[0-3]\d)?)?", as_of):
        raise DataError(f"{row}: as_of={as_of!r} is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")
