"""The roofline, and the batch at which decode leaves its memory-bound side."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, Min, oo

from labcore.formulas.conditions import CONTEXT
from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

ROOFLINE = "roofline: Williams, Waterman and Patterson, CACM 52(4), 2009"
FLOPS_PER_TOKEN = 2 * FLOP * P + 4 * FLOP * n_layers * n_q * d_h * L

declare(
    "roofline.ridge",
    "Ridge point",
    "R",
    F / beta,
    "FLOP/B",
    source=f"{ROOFLINE}; F and β from the device's datasheet, dense",
    doc="Below R FLOP a byte the memory sets the pace, above it the arithmetic units do.",
    rises="F",
    falls="beta",
)

declare(
    "roofline.attainable",
    "Attainable rate",
    r"F_{\mathrm{att}}",
    Min(F, intensity * beta),
    "FLOP/s",
    source=ROOFLINE,
    rises="F intensity beta",
    limits=(Limit(intensity, oo, F),),
)

declare(
    "roofline.pass_intensity",
    "Arithmetic intensity of a pass over the weights",
    r"I_{\mathrm{pass}}",
    2 * FLOP * T / b_w,
    "FLOP/B",
    source="2 FLOP a parameter and token: Pope et al., arXiv:2211.05102, section 2",
    doc="Linear layers only. T counts prefill and decode tokens alike.",
    rises="T",
    falls="b_w",
)

declare(
    "roofline.pass_time",
    "Shortest time of a pass over the weights",
    r"t_{\mathrm{pass}}",
    Max(b_w * P / beta, 2 * FLOP * P * T / F),
    "s",
    source=f"{ROOFLINE}, applied to the linear layers",
    doc="Linear layers only, memory traffic and arithmetic fully overlapped, one GPU or the sums over several.",
    rises="b_w P T",
    falls="F beta",
    limits=(Limit(T, oo, oo),),
)

declare(
    "roofline.crossover_batch",
    "Batch at which the linear layers become compute-bound",
    r"B^\star",
    R * b_w / 2 / FLOP,
    "sequences",
    source=f"2B/b_w = R; {ROOFLINE}",
    doc="Linear layers only: no KV reads, no attention. As many prefill tokens make a pass compute-bound.",
    rises="R b_w",
)

declare(
    "roofline.intensity_kv",
    "Arithmetic intensity of a decode step with KV reads",
    "I(B, L)",
    B * FLOPS_PER_TOKEN / (b_w * P + B * L * kappa),
    "FLOP/B",
    source="costs of Pope et al., arXiv:2211.05102, section 2",
    doc="Every sequence has L tokens of context. Weights are read once a step, each sequence's cache as well.",
    rises="B n_q d_h n_layers",
    falls="b_w kappa",
    limits=(Limit(L, 0, "decode.linear_intensity"), Limit(B, oo, "roofline.intensity_limit")),
)

declare(
    "roofline.intensity_limit",
    "Arithmetic intensity of a decode step at unbounded batch",
    r"I_\infty(L)",
    FLOPS_PER_TOKEN / (L * kappa),
    "FLOP/B",
    source="limit of roofline.intensity_kv for B → ∞",
    doc="If it lies below R, no batch makes decode compute-bound.",
    valid=(CONTEXT,),
    rises="P n_q d_h n_layers",
    falls="L kappa",
    limits=(Limit(L, oo, 4 * FLOP * n_layers * n_q * d_h / kappa),),
)

declare(
    "roofline.max_context",
    "Context beyond which decode is memory-bound at every batch",
    r"L_{\max}",
    2 * FLOP * P / (R * kappa - 4 * FLOP * n_layers * n_q * d_h),
    "tokens",
    source="zero of the denominator of roofline.crossover_batch_kv",
    doc="Exists if attention's own intensity, 4 n_ℓ n_q d_h / κ, lies below R.",
    valid=(
        Condition(
            4 * FLOP * n_layers * n_q * d_h < R * kappa,
            "R={R} FLOP/B is not above attention's own {bound} FLOP/B, so a crossover batch exists at every context; "
            "there is no L_max",
            4 * FLOP * n_layers * n_q * d_h / kappa,
        ),
    ),
    rises="P n_layers n_q d_h",
    falls="R kappa",
    limits=(Limit(R, oo, 0),),
)

declare(
    "roofline.crossover_batch_kv",
    "Batch at which a decode step with KV reads becomes compute-bound",
    r"B^\star(L)",
    R * b_w * P / (FLOPS_PER_TOKEN - R * L * kappa),
    "sequences",
    source="roofline.intensity_kv = R, solved for B",
    doc="Defined for L < L_max (roofline.max_context); beyond it no batch is compute-bound.",
    valid=(
        Condition(
            R * L * kappa < FLOPS_PER_TOKEN,
            "no batch is compute-bound at L={L} tokens; keep the context below L_max = {bound} (roofline.max_context)",
            2 * FLOP * P / (R * kappa - 4 * FLOP * n_layers * n_q * d_h),
        ),
    ),
    rises="R b_w kappa",
    falls="n_layers n_q d_h",
    limits=(
        Limit(L, 0, "roofline.crossover_batch"),
        Limit(L, 2 * FLOP * P / (R * kappa - 4 * FLOP * n_layers * n_q * d_h), oo),
    ),
)
