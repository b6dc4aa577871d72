"""What a token costs, in money and in energy."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import oo

from labcore.formulas.printing import fraction, product
from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

declare(
    "economics.usd_per_mtok",
    "Cost of a million output tokens",
    r"\text{USD per Mtok}",
    fraction(product(TOKENS_PER_MTOK, price_hour), product(SECONDS_PER_HOUR, throughput, u)),
    "USD/Mtok",
    source="definition",
    doc="price_hour and throughput count the same machines; u is the share of paid hours spent at that throughput.",
    rises="price_hour",
    falls="throughput u",
    limits=(Limit(throughput, oo, 0),),
)

declare(
    "energy.joules_per_token",
    "Energy of an output token",
    r"E_{\mathrm{tok}}",
    n_gpu * power / throughput,
    "J/tok",
    source="definition; power from the datasheet's TDP is an upper bound, measured power is better",
    doc="GPUs only: hosts, network and cooling come on top.",
    rises="n_gpu power",
    falls="throughput",
)
