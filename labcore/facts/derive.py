"""Derive workloads/*.json from the raw traces: `LABCORE_DATA=… python -m labcore.facts.derive`."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from labcore.core.errors import DataError, InputError
from labcore.core.files import atomic_write, data_dir
from labcore.facts.lengths import Lengths
from labcore.facts.lookup import FOLDER, read_toml

WINDOW_S = 6 * 3600  # of the length shares
RATE_S = 600  # of the request rates
Histograms = dict[str, Any]


def unpacked(path: Path) -> bytes:
    """The content of a .gz file. Raises DataError naming it."""
    try:
        return gzip.decompress(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def exact(requests: Iterable[tuple[int, int]]) -> tuple[int, Histograms]:
    """Request count and histograms of prompt, output and their sum, from (prompt, output) pairs in tokens."""
    pairs = np.asarray(list(requests), dtype=np.int64)
    columns = {"prompt": pairs[:, 0], "output": pairs[:, 1], "total": pairs.sum(axis=1)}
    return len(pairs), {name: Lengths.of(column).encode() for name, column in columns.items()}


def from_csv(content: bytes, columns: list[str]) -> tuple[int, Histograms]:
    """A CSV with one request a line; `columns` names prompt and output."""
    return exact(tuple(int(float(row[name])) for name in columns) for row in _rows(content))


def from_jsonl(content: bytes, columns: list[str]) -> tuple[int, Histograms]:
    """The same for JSON lines."""
    return exact(tuple(json.loads(line)[name] for name in columns) for line in content.splitlines())


def quarter_octave_edges(top: int) -> list[int]:
    """0 and 2^(k/4), rounded, up to the first edge above `top`: the bins the ServeGen reduction uses."""
    edges = {0, *(round(2 ** (k / 4)) for k in range(4 * top.bit_length() + 2))}
    return [*sorted(edge for edge in edges if edge <= top), min(edge for edge in edges if edge > top)]


def from_servegen(content: bytes, rates: bytes, model: str) -> tuple[int, Histograms]:
    """ServeGen's length shares per six-hour window, averaged with each window's number of requests as weight."""
    requests = defaultdict(float)
    for row in _rows(rates):
        if row["model"] == model:
            requests[int(row["t_s"]) // WINDOW_S] += RATE_S * float(row["rate_rps"])
    weighted: dict[str, dict[int, float]] = {"input_tokens": defaultdict(float), "output_tokens": defaultdict(float)}
    for row in _rows(content):
        if row["field"] in weighted:
            weight = requests[int(row["t_s"]) // WINDOW_S]
            weighted[row["field"]][int(row["bin_lo"])] += weight * float(row["prob"])
    names = {"prompt": "input_tokens", "output": "output_tokens"}
    return round(sum(requests.values())), {name: _binned(weighted[field]) for name, field in names.items()}


def _binned(mass: dict[int, float]) -> Histograms:
    edges = quarter_octave_edges(max(mass))
    whole = sum(mass.values())
    return {"edges": edges, "shares": [float(f"{mass.get(edge, 0) / whole:.7g}") for edge in edges[:-1]]}


READERS: dict[str, Callable[..., tuple[int, Histograms]]] = {"csv": from_csv, "jsonl": from_jsonl}


def derive(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One workload's file from its row in workloads.toml and the trace folder."""
    content = unpacked(folder / row["file"])
    if row["format"] == "servegen":
        count, histograms = from_servegen(content, unpacked(folder / "servegen/rates_10min.csv.gz"), row["model"])
    else:
        count, histograms = READERS[row["format"]](content, row["columns"])
    kept = ("name", "source", "as_of", "licence", "cite", "file")
    derived = {name: row[name] for name in kept} | {"url": row.get("url", ""), "note": row.get("note", "")}
    derived |= {"biased": row.get("biased", False), "count": count}
    return derived | {"sha256": hashlib.sha256(content).hexdigest(), "histograms": histograms}


def text(derived: dict[str, Any]) -> str:
    """The committed form of a workload's file."""
    return json.dumps(derived, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    folder = data_dir()
    if folder is None:
        raise InputError("LABCORE_DATA is not set: point it at the folder of raw traces")
    for id, row in read_toml("workloads.toml").items():
        content = text(derive(row, folder))
        atomic_write(FOLDER / "workloads" / f"{id}.json", content)
        print(f"{id}: {len(content)} bytes")


if __name__ == "__main__":
    main()
