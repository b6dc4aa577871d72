"""The cost of a prompt."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

FLOPS = 2 * FLOP * P * L + 2 * FLOP * n_layers * n_q * d_h * L**2
TIME = FLOPS / (n_gpu * F * mfu)

declare(
    "prefill.flops",
    "FLOPs of a causal prefill",
    r"\mathrm{FLOP}_{\mathrm{prefill}}",
    FLOPS,
    "FLOP",
    source="Kaplan et al., arXiv:2001.08361, section 2.1; PaLM, arXiv:2204.02311, appendix B, half of it causal",
    doc="One prompt of L tokens, nothing cached before it.",
    rises="P n_layers n_q d_h L",
    limits=(Limit(L, 0, 0),),
)

declare(
    "prefill.time",
    "Time of a causal prefill",
    r"t_{\mathrm{prefill}}",
    TIME,
    "s",
    source="prefill.flops over the rate reached",
    doc="Compute-bound: L of about R tokens or more (at 2-byte weights); shorter prompts take a pass over the weights.",
    rises="P n_layers n_q d_h L",
    falls="n_gpu F mfu",
)
