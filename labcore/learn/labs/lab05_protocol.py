"""Lab 5, bytes and a verdict: a block of NF4 as it is stored, and what two perplexities on the same windows prove."""

from __future__ import annotations

import math

import numpy as np
import torch

from labcore.formats.nf4 import levels
from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_tools import drawn_weight

LAB = "lab05"
NF4 = levels("nf4")


def block_of(x, levels, *, signed=False, order="pairs", low_first=False, below=False, above=False, even=False):
    """`nf4_block` with a part to be got wrong on purpose."""
    largest = x.max() if signed else x.abs().max()
    scaled = x / largest.clamp(min=1e-38)
    if even:
        codes = ((scaled + 1) * 7.5).round()
    elif below:
        codes = torch.searchsorted(levels, scaled, right=True) - 1
    elif above:
        codes = torch.searchsorted(levels, scaled)
    else:
        codes = (scaled[:, None] - levels).abs().argmin(1)
    codes = codes.clamp(0, 15).to(torch.uint8)
    half = len(x) // 2
    first, second = (codes[::2], codes[1::2]) if order == "pairs" else (codes[:half], codes[half:])
    first, second = (second, first) if low_first else (first, second)
    return first << 4 | second, float(largest)


def drawn_block(generator: np.random.Generator) -> tuple:
    seed, pairs = int(generator.integers(1 << 30)), int(generator.integers(2, 33))
    return drawn_weight(seed, 1, 2 * pairs)[0].float() * float(generator.uniform(0.01, 3)), NF4


def decision(exact, quantized, most, *, paired=True, root=True, correct=1, exp=True, by="high", z=1.96):
    """`decide` with a part to be got wrong on purpose."""
    excess = quantized - exact
    n = len(excess)
    spread = excess.std(correction=correct) if paired else (exact.var() + quantized.var()).sqrt()
    spread = z * float(spread) / (math.sqrt(n) if root else 1)
    mean = float(excess.mean())
    ends = mean, mean - spread, mean + spread
    ends = tuple(math.exp(one) for one in ends) if exp else tuple(1 + one for one in ends)
    return *ends, {"value": ends[0], "low": ends[1], "high": ends[2]}[by] <= most


def ratio_of_means(exact, quantized, most):
    """Perplexities averaged over windows, after exp."""
    _, low, high, _ = decision(exact, quantized, most)
    return float(quantized.exp().mean() / exact.exp().mean()), low, high, high <= most


def around_the_ratio(exact, quantized, most):
    """The standard error of the logarithm on both sides of the ratio."""
    _, low, high, _ = decision(exact, quantized, most, exp=False)
    value = math.exp((low + high) / 2 - 1)
    off = (high - low) / 2
    return value, value - off, value + off, value + off <= most


def drawn_windows(generator: np.random.Generator) -> tuple:
    n = int(generator.integers(4, 40))
    exact = 3 + 0.4 * drawn_weight(int(generator.integers(1 << 30)), 1, n)[0]
    worse = float(generator.uniform(0, 0.03)) + 0.02 * drawn_weight(int(generator.integers(1 << 30)), 1, n)[0]
    return exact, exact + worse, float(generator.choice([1.01, 1.02]))


def windows(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


EXERCISES = (
    Exercise(
        id="quant.nf4",
        lab=LAB,
        title="A block of NF4, byte for byte",
        asked="Your loader for a 4-bit checkpoint runs, and the model speaks noise. What do you check first?",
        spec="Write `nf4_block(x, levels)`: `x`, float32 [n], n even, is one block; `levels`, float32 [16], ascending "
        "from −1 to 1, are NF4's. Divide by the block's largest magnitude, take the code of the **nearest** level for "
        "each number, and put two codes into a byte: the **earlier** one into the **high** half. Return **(bytes "
        "uint8 [n/2], largest magnitude as a float)**. A block of zeros has magnitude 0 and the code of level 0 "
        "throughout.",
        reference=ref.nf4_block,
        stages=(
            oracle(
                torch.tensor([-2.0, 2.0, 0.0, 1.9]), NF4, gives=(torch.tensor([0x0F, 0x7F], dtype=torch.uint8), 2.0)
            ),
            oracle(
                torch.tensor([2.0, 0.0, -2.0, 0.0]), NF4, gives=(torch.tensor([0xF7, 0x07], dtype=torch.uint8), 2.0)
            ),
            trap(torch.tensor([-3.0, 0.0, 1.0, 0.5]), NF4, says="the largest magnitude is 3"),
            trap(torch.zeros(4), NF4, says="a block of zeros must not become nan"),
            trap(torch.tensor([1.0, 0.78, -0.6, 0.04]), NF4, says="0.78 lies closest to the level 0.72"),
            trap(
                torch.tensor([1e-9, -1e-9, 5e-10, 0.0]),
                NF4,
                says="only a block of zeros is an exception: small numbers are divided by their own largest magnitude",
            ),
            agrees(drawn_block, n=20),
        ),
        mistakes=(
            Mistake(
                "the halves are swapped: bitsandbytes puts the earlier code into the high half, code << 4",
                lambda *a: block_of(*a, low_first=True),
            ),
            Mistake(
                "numbers 2i and 2i + 1 share a byte; number i with number i + n/2 is ggml's order",
                lambda *a: block_of(*a, order="halves"),
            ),
            Mistake(
                "the magnitude is max|x|: a block's largest number may be negative",
                lambda *a: block_of(*a, signed=True),
            ),
            Mistake("the nearest level, not the one below", lambda *a: block_of(*a, below=True)),
            Mistake("the nearest level, not the one above", lambda *a: block_of(*a, above=True)),
            Mistake(
                "those are sixteen even steps; NF4's levels are quantiles and lie closer together near 0",
                lambda *a: block_of(*a, even=True),
            ),
        ),
        hints=(
            "Three decisions: what to divide by, which level is nearest, which code comes first. A wrong third one "
            "shows in no statistic of the weights.",
            "scaled = x / max|x| (with max|x| = 0 divide by 1); codes = argmin over |scaled[:, None] − levels|; bytes "
            "= codes[::2] << 4 | codes[1::2], as uint8.",
            "`largest = x.abs().max()`",
        ),
        difficulty=2,
        importance=2,
        minutes=(6, 10),
    ),
    Exercise(
        id="quant.decide",
        lab=LAB,
        title="A perplexity, an interval, a decision",
        asked="Your 4-bit model has a perplexity 1 % above the float one. Do you ship it?",
        spec="Write `decide(exact, quantized, most)`: two models have read the **same** windows; `exact` and "
        "`quantized`, float64 [windows], are their mean surprises −ln p, window by window. The quantity is the ratio "
        "of the perplexities: exp of the mean of the differences. Its 95 % interval is exp of that mean ± 1.96 "
        "standard errors, s/√n with s the sample standard deviation (n − 1) **of the differences**. Return **(ratio, "
        "low, high, accepted)**, and accept only if the **whole** interval is at most `most`.",
        reference=ref.decide,
        stages=(
            oracle(windows(2, 3, 4), windows(2, 3, 4), 1.01, gives=(1.0, 1.0, 1.0, True)),
            trap(windows(2, 3, 4), windows(2, 3, 4), 1.0, says="an upper end of exactly `most` is accepted: at most"),
            oracle(
                windows(2.0, 4.0, 3.0),
                windows(2.0, 4.25, 3.5),  # differences 0, 0.25, 0.5: mean and standard deviation 0.25
                1.2,
                gives=(
                    math.exp(0.25),
                    math.exp(0.25 - 1.96 * 0.25 / math.sqrt(3)),
                    math.exp(0.25 + 1.96 * 0.25 / math.sqrt(3)),
                    False,
                ),
            ),
            trap(
                windows(2, 3, 4, 5), windows(2.0, 3.03, 4.0, 5.01), 1.02, says="the ratio is 1.01, its interval wider"
            ),
            trap(windows(2, 3, 4, 5), windows(2.1, 3.1, 4.1, 5.11), 1.01, says="worse by a tenth in every window"),
            trap(
                windows(2, 3, 4, 5),
                windows(2.004, 3.005, 4.005, 5.006),
                1.01,
                says="surely worse, by half a percent, and surely by less than `most`: accepted",
            ),
            trap(
                windows(2, 3, 4),
                windows(2.25, 2.75, 3.75),
                1.01,
                says="better on average, but the interval reaches beyond `most`",
            ),
            agrees(drawn_windows, n=20),
        ),
        mistakes=(
            Mistake(
                "both models read the same windows: what a hard window does to both cancels in the difference, so take "
                "the spread of the differences",
                lambda *a: decision(*a, paired=False),
            ),
            Mistake(
                "quantized − exact: a worse model is the more surprised one, and its ratio is above 1",
                lambda exact, quantized, most: decision(quantized, exact, most),
            ),
            Mistake(
                "exp comes last, at both ends: the interval of a ratio is not symmetric",
                around_the_ratio,
            ),
            Mistake("95 % of a normal distribution lie within 1.96 standard errors", lambda *a: decision(*a, z=2)),
            Mistake(
                "the mean of n windows is known √n times better than one window", lambda *a: decision(*a, root=False)
            ),
            Mistake("the sample standard deviation divides by n − 1", lambda *a: decision(*a, correct=0)),
            Mistake(
                "a difference of surprises is the logarithm of the ratio: take exp", lambda *a: decision(*a, exp=False)
            ),
            Mistake(
                "accept by the upper end: that the ratio might be below `most` is not enough",
                lambda *a: decision(*a, by="value"),
            ),
            Mistake("that accepts whatever is not proven bad: take the upper end", lambda *a: decision(*a, by="low")),
            Mistake(
                "average the surprises, then take exp: the mean of perplexities is ruled by the hardest window",
                ratio_of_means,
            ),
        ),
        hints=(
            "Pair first, then average, then exp. The windows differ far more from each other than the models do.",
            "d = quantized − exact; mean = d.mean(); e = 1.96 · d.std() / √n; (exp(mean), exp(mean − e), exp(mean + "
            "e)), and whether the last is at most `most`.",
            "`excess = quantized - exact`",
        ),
        difficulty=1,
        importance=3,
        minutes=(6, 10),
    ),
)
