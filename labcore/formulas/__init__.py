"""The single symbolic source of every closed form in the book.

A formula is declared once, in sympy, with units and source. The LaTeX of the chapters, the vectorised Python
function, the JavaScript of the calculators and the checked answers of the quizzes all come from that declaration.

    formula["kv.bytes_per_token"](n_layers=80, n_kv=8, d_h=128, b_kv=2)      # 327680.0, in B/token
    same(formula["kv.paging.utilization"], derived)                         # proves a derivation
"""

from labcore.formulas import (  # noqa: F401, I001 (importing declares; this is the order of formula.ids())
    economics,
    latency,
    decode,
    roofline,
    prefill,
    moe,
    attention_io,
    kv,
    offload,
    capacity,
    context_parallel,
    paging,
    batching,
    speculation,
    quantization,
)
from labcore.formulas.derivation import DerivationError, same
from labcore.formulas.notation import NotationRow, notation_rows
from labcore.formulas.registry import Condition, Formula, Limit, UnknownFormula, formula
from labcore.formulas.symbols import Input
from labcore.formulas.vectors import golden

__all__ = [
    "Condition",
    "DerivationError",
    "Formula",
    "Input",
    "Limit",
    "NotationRow",
    "UnknownFormula",
    "formula",
    "golden",
    "notation_rows",
    "same",
]
