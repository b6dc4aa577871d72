"""Moving a cache against computing it again."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, oo

from labcore.formulas.prefill import TIME
from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

declare(
    "kv.transfer_time",
    "Time to move one sequence's cache",
    r"t_{\mathrm{xfer}}",
    L * kappa / beta_link,
    "s",
    source="bytes over bandwidth; Splitwise, arXiv:2311.18677, and Mooncake, arXiv:2407.00079, measure it",
    doc="Latency and the overlap with computing are left out.",
    rises="L kappa",
    falls="beta_link",
    limits=(Limit(beta_link, oo, 0),),
)

declare(
    "kv.recompute_time",
    "Time to compute one sequence's cache again",
    r"t_{\mathrm{recompute}}",
    TIME,
    "s",
    source="prefill.time of the tokens that were dropped",
    rises="P n_layers n_q d_h L",
    falls="n_gpu F mfu",
)

declare(
    "kv.offload_break_even_bandwidth",
    "Link bandwidth above which moving the cache beats computing it",
    r"\beta_{\mathrm{link}}^\star",
    n_gpu * F * mfu * kappa / (2 * FLOP * P + 2 * FLOP * n_layers * n_q * d_h * L),
    "B/s",
    source="kv.transfer_time = kv.recompute_time",
    doc="Falls with the context: a long prefix is dearer to compute than to move.",
    rises="n_gpu F mfu kappa",
    falls="P n_layers n_q d_h L",
    limits=(Limit(L, 0, n_gpu * F * mfu * kappa / (2 * FLOP * P)),),
)

declare(
    "kv.offload_break_even_context",
    "Context above which moving the cache beats computing it",
    r"L_{\mathrm{link}}^\star",
    Max(0, (n_gpu * F * mfu * kappa / beta_link - 2 * FLOP * P) / (2 * FLOP * n_layers * n_q * d_h)),
    "tokens",
    source="kv.transfer_time = kv.recompute_time, solved for the context",
    doc="0 when the link wins at every length: a token's FLOPs without attention already take longer than its bytes.",
    rises="n_gpu F mfu kappa",
    falls="P n_layers n_q d_h beta_link",
    limits=(Limit(beta_link, oo, 0),),
)
