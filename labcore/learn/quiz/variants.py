"""Fresh parameters: every combination an item may draw, in an order that Python and the page share.

`draw` lists values for each name, `given` fixes one. The names `hardware` and `model` take an id of `labcore.facts`
and bring that record's figures along: beta, memory, F_bf16, … and n_layers, n_kv, d_h, P, ….
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

from labcore import facts
from labcore.core.errors import InputError

KEPT = 64  # variants that travel to the page; all are checked
LIMIT = 4096
_WORD = 0xFFFFFFFF


def seed_of(text: str) -> int:
    """FNV-1a, 32 bits, over the UTF-8 bytes."""
    state = 0x811C9DC5
    for byte in text.encode():
        state = (state ^ byte) * 0x01000193 & _WORD
    return state


def uniform(seed: int):
    """Mulberry32: yields floats in [0, 1), the same ones as `uniform` in js/quiz/text.js."""
    state = seed & _WORD
    while True:
        state = state + 0x6D2B79F5 & _WORD
        t = (state ^ state >> 15) * (state | 1) & _WORD
        t = (t ^ t + ((t ^ t >> 7) * (t | 61) & _WORD)) & _WORD
        yield (t ^ t >> 14) / 2**32


def shuffled(values: Sequence[Any], seed: int) -> list[Any]:
    """Fisher-Yates, from the end, with `uniform(seed)`; `shuffled` in js/quiz/text.js gives the same order."""
    order, random = list(values), uniform(seed)
    for last in range(len(order) - 1, 0, -1):
        other = int(next(random) * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


@cache
def figures(kind: str, name: str) -> Mapping[str, Any]:
    """The names that `hardware: <id>` or `model: <id>` brings, in base units. KeyError text of facts on a bad id."""
    if kind == "hardware":
        chip = facts.hardware(name)
        peaks = {f"F_{dtype}": rate for dtype, rate in chip.peak.items() if rate}
        sizes = {"memory": chip.memory_bytes, "capacity": chip.capacity_bytes}
        return {"hardware": chip.name, "beta": chip.bandwidth, **sizes, **peaks}
    config = facts.model(name)
    shape = {"n_layers": config.n_layers, "hidden": config.hidden, "n_q": config.n_heads, "n_kv": config.n_kv_heads}
    shape |= {"d_h": config.head_dim, "vocab": config.vocab, "P": config.parameters()}
    return {"model": config.name, **shape}


def resolve(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with the figures of its hardware and model. Raises InputError for an unknown id or a name given twice."""
    known = dict(row)
    for kind in ("hardware", "model"):
        if kind not in row:
            continue
        try:
            brought = figures(kind, row[kind])
        except (KeyError, InputError) as error:
            raise InputError(str(error.args[0])) from error
        if twice := sorted((set(brought) - {kind}) & set(row)):
            raise InputError(f"{twice[0]!r} is drawn, and {kind} {row[kind]!r} brings it too; drop one of them")
        known |= brought
    return known


def drawn(item_id: str, draw: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of `draw` with `given`, resolved, shuffled by the item's id. At least one row."""
    total = 1
    for values in draw.values():
        total *= len(values)
    if not 0 < total <= LIMIT:
        raise InputError(f"draws {total:,} combinations; between 1 and {LIMIT:,} can be checked")
    combinations = shuffled(list(product(*draw.values())), seed_of(item_id))
    return [resolve({**given, **dict(zip(draw, values, strict=True))}) for values in combinations]
