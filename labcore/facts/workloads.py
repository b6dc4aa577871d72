"""How long prompts and answers are in published traces of real and benchmark traffic.

The histograms in workloads/ are derived from the raw traces by `python -m labcore.facts.derive`; chapters read them,
so that the book builds without the traces. `download` brings the raw file where its publisher offers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labcore.core.errors import DataError
from labcore.core.fetch import fetch_url
from labcore.core.files import cache_dir
from labcore.facts.lengths import BinnedLengths, Lengths
from labcore.facts.lookup import FOLDER, read_json, require_id, require_source


@dataclass(frozen=True)
class Workload:
    """One trace. count: requests. file: its place in the trace folder; sha256: of that file, unpacked.

    url: where the same bytes are published, empty if this is a reduction of something larger. cite: the paper its
    licence or authors ask to name. note: what to beware of. biased: known not to represent its service's traffic.
    """

    id: str
    name: str
    count: int
    source: str
    as_of: str
    licence: str
    cite: str
    file: str
    sha256: str
    url: str
    note: str
    biased: bool
    histograms: Mapping[str, Any]

    def __post_init__(self) -> None:
        require_source(f"workload {self.id}", self.source, self.as_of)

    @cached_property
    def prompt(self) -> Lengths | BinnedLengths:
        """Lengths of the prompts."""
        return self._histogram("prompt")

    @cached_property
    def output(self) -> Lengths | BinnedLengths:
        """Lengths of the answers."""
        return self._histogram("output")

    @cached_property
    def lengths(self) -> Lengths:
        """Prompt and answer together, request by request: what the KV cache holds when a request ends.

        Raises DataError where prompts and answers were published separately.
        """
        if "total" not in self.histograms:
            raise DataError(
                f"{self.id}: prompt and output lengths were published separately, so no request's total is known"
            )
        return self._histogram("total")

    def _histogram(self, which: str) -> Lengths | BinnedLengths:
        stored = self.histograms[which]
        if isinstance(stored, str):
            return Lengths.decode(stored)
        return BinnedLengths(np.asarray(stored["edges"], float), np.asarray(stored["shares"], float))

    def download(self, progress: bool = True) -> Path:
        """The raw trace, fetched into the cache and checked against `sha256`.

        Raises DataError if it is not published as one file, FetchError if the download fails.
        """
        if not self.url:
            raise DataError(f"{self.id}: not published as one file; it was reduced from {self.source}")
        return fetch_url(self.url, cache_dir() / "traces" / Path(self.url).name, self.sha256, progress)


@cache
def workload_ids() -> tuple[str, ...]:
    """The ids of all known workloads."""
    return tuple(sorted(path.stem for path in (FOLDER / "workloads").glob("*.json")))


@cache
def _read(id: str) -> Workload:
    return Workload(id=id, **read_json(f"workloads/{id}.json"))


def workload(id: str) -> Workload:
    """The workload with that id. Raises InputError naming close ids."""
    require_id("workload", id, workload_ids())
    return _read(id)
