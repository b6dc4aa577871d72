"""One long sequence over several GPUs: its tokens are shared out, not only its heads."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, ceiling

from labcore.formulas.printing import product
from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

COPIES = Condition(
    n_dcp <= Max(1, n_gpu / n_kv),
    "n_dcp={n_dcp} ranks cannot share out a cache of which {n_gpu} ranks hold {bound} copies; take at most that many",
    Max(1, n_gpu / n_kv),
)

declare(
    "kv.cp.bytes_per_token",
    "KV bytes a token on one rank under decode-context parallelism",
    r"\kappa_{\mathrm{dcp}}",
    2 * n_layers * d_h * b_kv * ceiling(n_kv / n_gpu) / n_dcp,
    "B/token",
    source="vLLM documentation, context parallel deployment (2025): tokens dealt out within the ranks that hold copies",
    doc="Averaged over the tokens. Where tensor parallelism holds N_gpu/n_kv copies, up to that many ranks each keep a "
    "share of the tokens instead; n_dcp = 1 is tensor parallelism alone.",
    valid=(COPIES,),
    rises="n_layers n_kv d_h b_kv",
    falls="n_gpu n_dcp",
    limits=(Limit(n_dcp, 1, "kv.tp.bytes_per_token"),),
)

declare(
    "kv.ring.min_chunk",
    "Tokens a GPU that hide the passing of keys and values around a ring",
    r"c_{\mathrm{ring}}^\star",
    F * mfu * n_kv * b_kv / product(2 * FLOP, n_q, beta_link),
    "tokens",
    source="Ring Attention, arXiv:2310.01889, section 3: 4 n_q d_h c² FLOP against 2 n_kv d_h b_kv c bytes a hop",
    doc="Prefill. A hop multiplies a chunk of c queries with a chunk of c keys while the next chunk arrives. Without "
    "grouped heads and in 16 bits it is the ridge against the link, F/β_link.",
    rises="F mfu n_kv b_kv",
    falls="n_q beta_link",
    limits=(Limit(n_kv, n_q, F * mfu * b_kv / (2 * FLOP * beta_link)),),
)
