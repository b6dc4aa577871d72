"""Mixtures of experts: a larger batch reads more of the weights."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import oo

from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

ROUTING = Condition(k <= E, "k={k} exceeds E={E}; a token cannot use more experts than the layer has")
HIT = E * (1 - (1 - k / E) ** B)
BYTES = b_w * (P_dense + n_moe * P_expert * HIT)
UNIFORM = "expectation under uniform, independent routing: one token misses an expert with probability 1 - k/E"

declare(
    "moe.experts_hit",
    "Distinct experts that a layer reads in a step",
    r"E_{\mathrm{hit}}",
    HIT,
    "experts",
    source=UNIFORM,
    doc="Real routing is uneven, so fewer experts are hit. B counts tokens in the step.",
    valid=(ROUTING,),
    rises="B k",
    limits=(Limit(B, 1, k), Limit(B, oo, E)),
)

declare(
    "moe.tokens_per_expert",
    "Tokens that share one loaded expert",
    r"n_{\mathrm{tok/expert}}",
    B * k / HIT,
    "tokens/expert",
    source=UNIFORM,
    doc="Bk assignments over the experts hit: what amortizes the reading of an expert.",
    valid=(ROUTING,),
    rises="B",
    limits=(Limit(B, 1, 1),),
)

declare(
    "moe.bytes_read",
    "Weight bytes that a decode step reads",
    r"M_{\mathrm{moe}}",
    BYTES,
    "B",
    source=UNIFORM,
    doc="P_dense holds attention, embeddings, shared experts and dense layers; P_expert is one expert in one layer.",
    valid=(ROUTING,),
    rises="b_w P_dense n_moe P_expert B k",
    limits=(
        Limit(B, 1, b_w * (P_dense + n_moe * P_expert * k)),
        Limit(B, oo, b_w * (P_dense + n_moe * P_expert * E)),
    ),
)

declare(
    "moe.linear_intensity",
    "Arithmetic intensity of a decode step's linear layers",
    r"I_{\mathrm{moe}}",
    2 * FLOP * B * (P_dense + n_moe * P_expert * k) / BYTES,
    "FLOP/B",
    source=UNIFORM,
    doc="Below 2B/b_w as long as the batch does not hit every expert: sparse models need larger batches.",
    valid=(ROUTING,),
    rises="B",
    falls="b_w",
    limits=(Limit(B, 1, 2 * FLOP / b_w),),
)
