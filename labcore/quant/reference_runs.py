"""What the authors' own code makes of one small layer: reference_runs.json, written by tests/quant/make_reference_runs.

Recorded rather than run, because neither repository is a package. The layer is made of integers, so that every machine
computes with the same numbers, bit for bit.
"""

import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

ROWS, COLUMNS, TOKENS, GROUP, BLOCK = 6, 32, 64, 8, 16


def layer() -> tuple[Tensor, Tensor]:
    """A weight [6, 32] and inputs [64, 32], float32, whose channels are correlated and differ in size.

    Every group has a weight of either sign: there the two ranges agree, theirs that need not contain 0, ours that does.
    """
    generator = torch.Generator().manual_seed(20221031)
    draw = lambda low, high, *shape: torch.randint(low, high, shape, generator=generator).float()  # noqa: E731
    size, strength = draw(1, 9, COLUMNS), 2.0 ** -(torch.arange(COLUMNS) // 6)
    x = (draw(-4, 5, TOKENS, COLUMNS) * strength) @ draw(-2, 3, COLUMNS, COLUMNS)
    w = draw(-60, 61, ROWS, COLUMNS)
    w[:, ::GROUP], w[:, 1::GROUP] = w[:, ::GROUP].abs() + 1, -w[:, 1::GROUP].abs() - 1
    return w / 64, x * size / 64


@cache
def recorded() -> dict:
    """gptq: runs with their options, their weights [6, 32] and their loss; awq: the search's curve and exponent."""
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
