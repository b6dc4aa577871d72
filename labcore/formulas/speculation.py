"""Speculative decoding: tokens a verification yields, what it costs, and when the exchange pays.

The closed forms take every drafted token to be kept with the same probability alpha, independently of the others.
That is a model; the law of one token and its alpha are exact in labcore.sampling.rejection.
"""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from collections.abc import Callable

from sympy import Max, oo

from labcore.core.errors import InputError
from labcore.formulas.moe import ROUTING, UNIFORM
from labcore.formulas.registry import Condition, Limit, declare, formula
from labcore.formulas.symbols import *

LEVIATHAN = "Leviathan et al., arXiv:2211.17192"
TOKENS = (1 - alpha ** (K + 1)) / (1 - alpha)
REJECTS = Condition(alpha < 1, "alpha=1 keeps every draft, which is the limit: K + 1 = {bound} tokens a pass", K + 1)
KV_TIME = B * L * kappa / beta
STEP = Max(b_w * P / beta, 2 * FLOP * P * B / F) + KV_TIME
VERIFICATION = Max(b_w * P / beta, 2 * FLOP * P * B * (K + 1) / F) + KV_TIME

declare(
    "speculation.expected_tokens",
    "Tokens that one verification yields",
    r"\mathrm{E}[\mathrm{tokens}]",
    TOKENS,
    "tokens",
    source=f"{LEVIATHAN}, equation 1",
    doc="1 + α + α² + … + α^K: the accepted drafts and one token more, the correction or the bonus.",
    valid=(REJECTS,),
    rises="alpha K",
    limits=(Limit(alpha, 0, 1), Limit(alpha, 1, K + 1), Limit(K, 1, 1 + alpha), Limit(K, oo, 1 / (1 - alpha))),
)

declare(
    "speculation.accepted_drafts",
    "Drafted tokens that one verification keeps",
    r"\mathrm{E}[\mathrm{accepted}]",
    alpha * (1 - alpha**K) / (1 - alpha),
    "tokens",
    source=f"{LEVIATHAN}, equation 1, less the token that the target adds",
    doc="One less than the tokens of the verification. Confusing the two is off by one a pass.",
    valid=(REJECTS,),
    rises="alpha K",
    limits=(Limit(alpha, 0, 0), Limit(alpha, 1, K), Limit(K, 1, alpha), Limit(K, oo, alpha / (1 - alpha))),
)

declare(
    "speculation.speedup",
    "Speed-up of speculation where a verification costs a plain step",
    r"S_{\mathrm{free}}",
    TOKENS / (1 + c * K),
    "1",
    source=f"{LEVIATHAN}, theorem 3.8",
    doc="c is the time of one draft step in plain steps. Some K pays exactly if α > c (their corollary 3.9).",
    valid=(REJECTS,),
    rises="alpha",
    falls="c",
    limits=(Limit(c, 0, "speculation.expected_tokens"), Limit(K, 1, (1 + alpha) / (1 + c))),
)

declare(
    "speculation.gain",
    "Speed-up of speculation where a verification costs v plain steps",
    "S",
    TOKENS / (v + c * K),
    "1",
    source=f"{LEVIATHAN}, theorem 3.8, without its assumption that a verification takes as long as a step",
    valid=(REJECTS,),
    rises="alpha",
    falls="c v",
    limits=(Limit(v, 1, "speculation.speedup"),),
)

declare(
    "speculation.rate",
    "Output rate of one sequence under speculation",
    r"X_{\mathrm{spec}}",
    TOKENS / (K * t_draft + t_ver),
    "tok/s",
    source=f"{LEVIATHAN}, section 3.3",
    doc="K draft steps one after the other, then one pass of the target.",
    valid=(REJECTS,),
    rises="alpha",
    falls="t_draft t_ver",
)

declare(
    "speculation.verify_time",
    "Time of a verification",
    r"t_{\mathrm{ver}}",
    VERIFICATION,
    "s",
    source="decode.step_time with K + 1 tokens a sequence; MagicDec, arXiv:2408.11049, section 3",
    doc="The cache is read once for all K + 1 tokens of a sequence, the arithmetic is done for each.",
    rises="b_w P B L kappa K",
    falls="F beta",
    limits=(Limit(B, 0, b_w * P / beta),),
)

declare(
    "speculation.batch_gain",
    "Speed-up of speculation at batch B and context L",
    r"S(B, L)",
    TOKENS * STEP / (VERIFICATION + c * K * STEP),
    "1",
    source=f"{LEVIATHAN}, theorem 3.8, over speculation.verify_time",
    doc="Dense target, one GPU or the sums over several. Short contexts lose it to arithmetic, long ones keep it.",
    valid=(REJECTS,),
    rises="alpha L kappa F",
    falls="c",
    limits=(Limit(L, oo, "speculation.speedup"), Limit(B, 0, "speculation.speedup")),
)

declare(
    "speculation.free_drafts",
    "Drafted tokens a sequence that a verification carries for nothing",
    r"K_{\mathrm{free}}",
    R * b_w / (2 * FLOP * B) - 1,
    "tokens",
    source="B (K + 1) = R b_w/2, see roofline.crossover_batch",
    doc="Linear layers only. Below 0 a plain step is already compute-bound.",
    rises="R b_w",
    falls="B",
)

declare(
    "speculation.experts_ratio",
    "Experts that a verification reads, over those of a plain step",
    r"r_{\mathrm{exp}}",
    (1 - (1 - k / E) ** (B * (K + 1))) / (1 - (1 - k / E) ** B),
    "1",
    source=f"moe.experts_hit at B (K + 1) tokens and at B; {UNIFORM}",
    doc="For a mixture of experts a verification is not free even where bytes set the pace. Drafts of one text share "
    "more experts than independent tokens do, so this is the upper end.",
    valid=(ROUTING,),
    rises="K",
    falls="B k",
    limits=(Limit(B, oo, 1), Limit(k, E, 1)),
)


def best_length(gain: Callable[[int], float], longest: int = 64) -> int:
    """K*: the draft length from 1 to `longest` whose speed-up is largest, the shortest of several.

    gain: the speed-up at K, for example `lambda K: formula["speculation.speedup"](alpha=0.8, K=K, c=0.05)`. Whether it
    pays is another question: `gain(best_length(gain)) > 1`.
    """
    return max(range(1, longest + 1), key=gain)


def break_even_alpha(K: int, c: float) -> float:
    """The acceptance at which K drafts at cost c each neither gain nor lose, where a verification costs a plain step.

    The root of 1 + α + … + α^K = 1 + cK, which has no closed form for K > 4; found by bisection to the last digit.
    Raises InputError for c of 1 or more: a draft as slow as its target never pays.
    """
    if not 0 <= c < 1:
        raise InputError(f"c={c}: a draft step must cost from 0 to less than a plain step for any acceptance to pay")
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        pays = formula["speculation.speedup"](alpha=middle, K=K, c=c) >= 1
        low, high = (low, middle) if pays else (middle, high)
    return high
