"""What a paged KV cache wastes: only the rest of the last block."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import ceiling, oo

from labcore.formulas.printing import half
from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

PAGED = "PagedAttention, arXiv:2309.06180, section 4.1"

declare(
    "kv.paging.blocks",
    "Blocks that a sequence owns",
    "n_b",
    ceiling(n / S),
    "blocks",
    source=PAGED,
    rises="n",
    falls="S",
)

declare(
    "kv.paging.waste",
    "Reserved, unused slots of one sequence",
    "w(n, S)",
    S * ceiling(n / S) - n,
    "tokens",
    source=PAGED,
    doc="Between 0 and S - 1; 0 when the last block is full.",
    limits=(Limit(n, S, 0),),
)

declare(
    "kv.paging.tail_waste",
    "Expected unused slots of a sequence",
    r"\bar w",
    half(S - 1),
    "tokens",
    source="mean of kv.paging.waste over remainders, all S equally likely",
    doc="Lengths that cluster depart from it; measure on the service's own trace.",
    rises="S",
    limits=(Limit(S, 1, 0),),
)

declare(
    "kv.paging.utilization",
    "Share of reserved KV memory that holds live tokens",
    "u_{\\mathrm{page}}",
    n / (n + half(S - 1)),
    "1",
    source="n over n plus kv.paging.tail_waste",
    doc="n is the mean length of the sequences, long against S or with uniform remainders.",
    rises="n",
    falls="S",
    limits=(Limit(n, oo, 1), Limit(S, 1, 1)),
)
