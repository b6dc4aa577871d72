"""What a batch loses that waits for its longest answer, how many requests are in flight, when the first token comes.

Lengths are in steps, one token a step. A batch of B answers takes the longest of them; a scheduler that fills every
freed seat at once takes the mean. Their ratio is the gain under a backlog, and it is a property of the length law.
"""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import EulerGamma, log, oo

from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

ORDER = "expected maximum of B independent lengths over their mean"

declare(
    "batching.static_utilization",
    "Share of a static batch's seats that do useful work",
    r"u_{\mathrm{static}}",
    n / n_max,
    "1",
    source="sum of the lengths over B times the longest; Orca, OSDI 2022, section 2",
    doc="n is the mean length of the batch. The inverse is what refilling seats at once gains under a backlog.",
    valid=(Condition(n <= n_max, "a mean of n={n} tokens exceeds the longest answer, n_max={n_max}"),),
    rises="n",
    falls="n_max",
    limits=(Limit(n, n_max, 1),),
)

declare(
    "batching.gain_uniform",
    "Gain of continuous over static batching, lengths uniform from 0 to a maximum",
    r"g_{\mathrm{uniform}}",
    2 * B / (B + 1),
    "1",
    source=ORDER,
    doc="Never 2 or more, however large the batch: the longest answer is at most twice the mean.",
    rises="B",
    limits=(Limit(B, 1, 1), Limit(B, oo, 2)),
)

declare(
    "batching.gain_exponential",
    "Gain of continuous over static batching, lengths exponential",
    r"g_{\mathrm{exp}}",
    log(B) + EulerGamma + 1 / (2 * B),
    "1",
    source=ORDER + ": the harmonic number 1 + 1/2 + … + 1/B, to within 1/(12 B²)",
    doc="Grows with the logarithm of the batch and has no bound.",
    rises="B",
)

declare(
    "queue.in_flight",
    "Requests in the system (Little's law)",
    "N",
    request_rate * latency,
    "requests",
    source="Little, Operations Research 9(3), 1961",
    doc="Long-run means, whatever the order of service; waiting requests count if the latency counts their waiting.",
    rises="request_rate latency",
)

declare(
    "latency.ttft_prefix",
    "Time to first token when a prefix is cached",
    r"\mathrm{TTFT}",
    t_queue + (2 * FLOP * P * (L - L_hit) + 2 * FLOP * n_layers * n_q * d_h * (L**2 - L_hit**2)) / (n_gpu * F * mfu),
    "s",
    source="prefill.flops of the whole prompt less those of the hit, over the rate reached",
    doc="The rest of the prompt still attends to the hit. At least its last token is computed, whatever is cached.",
    valid=(Condition(L_hit < L, "L_hit={L_hit} leaves nothing to compute of L={L}; a hit ends before the last token"),),
    rises="t_queue L P n_layers n_q d_h",
    falls="L_hit n_gpu F mfu",
    limits=(Limit(L_hit, L, t_queue),),
)
