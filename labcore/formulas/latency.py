"""What a user waits for."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

declare(
    "latency.tpot",
    "Mean time per output token after the first",
    r"\mathrm{TPOT}",
    (e2e - ttft) / (n_out - 1),
    "s/token",
    source="DistServe, arXiv:2401.09670, section 2; vLLM benchmark definitions",
    doc="The first token belongs to TTFT, so n_out tokens have n_out - 1 gaps. TPOT is the mean gap, ITL is each one.",
    valid=(
        Condition(n_out > 1, "n_out={n_out} leaves no gap between tokens; TPOT needs at least 2 output tokens"),
        Condition(e2e >= ttft, "e2e={e2e} s is below ttft={ttft} s; end-to-end time includes the time to first token"),
    ),
    rises="e2e",
    falls="ttft n_out",
)

declare(
    "latency.e2e",
    "Time from request to last token",
    r"\mathrm{E2E}",
    ttft + (n_out - 1) * tpot,
    "s",
    source="DistServe, arXiv:2401.09670, section 2; vLLM benchmark definitions",
    doc="Prefill produces the first token; decode steps produce the other n_out - 1.",
    rises="ttft n_out tpot",
    limits=(Limit(n_out, 1, ttft),),
)
