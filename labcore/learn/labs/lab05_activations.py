"""Lab 5, what the inputs say: AWQ's search for a scale, and the outlier columns of LLM.int8()."""

from __future__ import annotations

import numpy as np
import torch

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_tools import drawn_inputs, drawn_weight, matrix
from labcore.quant.rtn import quantize_weight
from labcore.quant.spec import QuantSpec

LAB = "lab05"


def searched(
    w,
    x,
    bits,
    group,
    grid,
    *,
    back=True,
    output=True,
    size=None,
    centred=True,
    alphas=None,
    first=True,
    sign=1,
    floor=1e-4,
):
    """`search_scale` with a part to be got wrong on purpose."""
    spec, losses = QuantSpec(bits, group), []
    size = x.abs().mean(0) if size is None else size(x)
    for alpha in [step / grid for step in range(grid)] if alphas is None else alphas(grid):
        scale = size.pow(alpha).clamp(min=floor)
        scale = scale / (scale.max() * scale.min()).sqrt() if centred else scale
        by = scale**sign
        trial = quantize_weight(w * by, spec).dequantize() / (by if back else 1)
        change = x @ (trial - w).T if output else trial - w
        losses.append((float(change.square().mean()), alpha, scale))
    return min(losses if first else losses[::-1], key=lambda one: one[0])[1:]


def loudest(x):
    """max|x| of each input channel."""
    return x.abs().amax(0)


def drawn_search(generator: np.random.Generator) -> tuple:
    seed, out = int(generator.integers(1 << 30)), int(generator.integers(2, 6))
    x = drawn_inputs(seed, 24, 8, loud=float(generator.uniform(2, 20)))
    return drawn_weight(seed + 5, out, 8), x, int(generator.integers(2, 4)), 4, 10


def loud_layer(seed: int) -> tuple:
    """Arguments of `search_scale`: a layer whose input channel 1 is twelve times as loud as the others."""
    return drawn_weight(seed, 4, 8), drawn_inputs(seed + 1, 24, 8, 12.0), 3, 4, 10


def silent_channel(seed: int) -> tuple:
    """The same with an input channel that is always 0."""
    w, x, *rest = loud_layer(seed)
    x[:, 5] = 0
    return w, x, *rest


def int8_of(
    x,
    w,
    threshold,
    *,
    outlier=None,
    own=True,
    float_w=False,
    split=True,
    guard=True,
    grid=127,
    per_row=True,
    w_largest=None,
    to=torch.round,
):
    """`int8_linear` with a part to be got wrong on purpose."""
    out = (x.abs() >= threshold).any(0) if outlier is None else outlier(x, threshold)
    out = out if split else torch.zeros_like(out)
    rest = x.masked_fill(out, 0)

    def rounded(a, largest):
        largest = torch.where(largest > 0, largest, 1.0) if guard else largest
        return to(a * grid / largest).clamp(-grid, grid) * largest / grid

    w8 = rounded(w, w.abs().amax(1, keepdim=True) if w_largest is None else w_largest(w, out))
    of_tokens = (rest if own else x).abs().amax(1, keepdim=True)
    x8 = rounded(rest, of_tokens if per_row else of_tokens.amax())
    return x8 @ w8.T + (x - rest) @ (w if float_w else w8).T


def drawn_product(generator: np.random.Generator) -> tuple:
    seed, tokens, out = (int(generator.integers(*span)) for span in ((0, 1 << 30), (1, 6), (1, 5)))
    loud = float(generator.choice([1.0, 20.0]))
    return drawn_inputs(seed, tokens, 8, loud), drawn_weight(seed + 5, out, 8), 6.0


EXERCISES = (
    Exercise(
        id="quant.awq",
        lab=LAB,
        title="AWQ's search, and what folding leaves unchanged",
        asked="AWQ keeps no weight in FP16. How does it protect the important channels?",
        spec="Write `search_scale(w, x, bits, group, grid)`: `w`, float64 [out, in], reads the inputs `x` [tokens, "
        "in]. For each α = i/`grid`, i from 0 to `grid` − 1: the scale is s = mean|x|^α of each input channel, at "
        "least 1e−4, divided by √(max s · min s); the weight is w · s rounded to nearest (`quantize_weight(…, "
        "QuantSpec(bits, group)).dequantize()`) and **divided by s again**, as folding does with the input. Return "
        "**(α, s)** with the smallest mean squared change of the **output** x Wᵀ, the smallest α of several.",
        reference=ref.search_scale,
        stages=(
            oracle(
                matrix((1.0, 0.0), (0.0, 2.0)),
                matrix((1, 4), (1, -4)),
                4,
                2,
                2,
                gives=(0.0, torch.ones(2).double()),
            ),
            trap(
                *loud_layer(2),
                says="channel 1 is twelve times as loud as the others; look at s first, which x and α alone decide",
            ),
            trap(*loud_layer(29), says="the best of the α from 0 to 0.9"),
            trap(*silent_channel(1), says="channel 5 is silent: without the floor of 1e−4 the centring divides by 0"),
            agrees(drawn_search, n=15),
        ),
        mistakes=(
            Mistake(
                "divide by s behind the rounding: with x/s for x, w · s must stand for the same function as before",
                lambda *a: searched(*a, back=False),
            ),
            Mistake(
                "the loss is that of the output: an error in a quiet channel hardly matters",
                lambda *a: searched(*a, output=False),
            ),
            Mistake("AWQ takes the mean of |x|; the maximum is SmoothQuant's", lambda *a: searched(*a, size=loudest)),
            Mistake(
                "AWQ takes the mean of |x|, not the root of the mean square",
                lambda *a: searched(*a, size=lambda x: x.square().mean(0).sqrt()),
            ),
            Mistake(
                "the other way round: the weight of a loud channel is multiplied by s, and its input divided",
                lambda *a: searched(*a, sign=-1),
            ),
            Mistake("divide s by √(max s · min s)", lambda *a: searched(*a, centred=False)),
            Mistake(
                "α = 1 is not tried: i runs to grid − 1",
                lambda *a: searched(*a, alphas=lambda grid: [step / grid for step in range(grid + 1)]),
            ),
            Mistake(
                "α is i/grid, so that 1 is not among them; i/(grid − 1) reaches it",
                lambda *a: searched(*a, alphas=lambda grid: [step / (grid - 1) for step in range(grid)]),
            ),
            Mistake(
                "of several α with the same error the smallest: replace the best by a strictly smaller error only",
                lambda *a: searched(*a, first=False),
            ),
        ),
        hints=(
            "Before rounding nothing changes: (w s)(x/s) = w x. Behind it the loud channels have smaller errors, and "
            "the quiet ones pay. How far to go is found by trying.",
            "For each α: s; trial = quantize_weight(w * s, spec).dequantize() / s; loss = mean of ((x @ (trial − "
            "w).T)²). Keep the best, strictly smaller only.",
            "`size = x.abs().mean(0)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        rel_tol=1e-5,
    ),
    Exercise(
        id="quant.outliers",
        lab=LAB,
        title="Eight bits, but for the outlier columns",
        asked="One channel of the activations is a hundred times as large as the others. What does INT8 do to the "
        "rest?",
        spec="Write `int8_linear(x, w, threshold)`: x Wᵀ of `x`, float64 [tokens, in], and `w` [out, in], by "
        "LLM.int8(). A **column** of x in which any token reaches the threshold (|x| ≥ threshold) stays in float. "
        "What is left of each token, and each row of w (all columns), is rounded to codes −127 … 127 with step "
        "max|·|/127, its own; a row of zeros stays zero. Return [tokens, out]: the product of the rounded numbers, "
        "plus the outlier columns of x times the same columns of the **rounded** w, which is all that is stored.",
        reference=ref.int8_linear,
        stages=(
            oracle(matrix((127.0, -2.4)), matrix((127, 0), (0, 127)), 1000.0, gives=matrix((16129, -254))),
            oracle(
                matrix((100.0, 30.3, 0.5)),
                127 * torch.eye(3).double(),
                6.0,
                gives=matrix((12700, 3848.1, 63.5)),
            ),
            trap(matrix((9.0, 8.0)), matrix((0.5, 0.31)), 6.0, says="nothing is left of this token: max|·| is 0"),
            trap(
                matrix((-9.0, 0.3, 0.77), (0.4, 1.3, -0.2)),
                matrix((0.5, 0.31, -0.77), (0.9, -0.4, 0.1)),
                6.0,
                says="column 0 leaves for every token, also for the one that is small there",
            ),
            trap(
                matrix((6.0, 0.37, -0.2)),
                matrix((0.5, 0.31, -0.77)),
                6.0,
                says="6 reaches the threshold",
            ),
            trap(
                matrix((1.0, 0.3)),
                matrix((0.0, 0.0), (0.5, 0.31)),
                6.0,
                says="row 0 of w is all zeros and stays zero: its max|·| is 0 too",
            ),
            trap(
                matrix((1e-9, 3e-10)),
                matrix((1e9, 0.0), (0.0, 1e9)),
                6.0,
                says="a token of small numbers is not empty: its step is its own max|·|/127",
            ),
            agrees(drawn_product, n=20),
        ),
        mistakes=(
            Mistake(
                "reaching the threshold is enough: |x| ≥ threshold",
                lambda *a: int8_of(*a, outlier=lambda x, t: (x.abs() > t).any(0)),
            ),
            Mistake(
                "a large negative number is an outlier too: |x|",
                lambda *a: int8_of(*a, outlier=lambda x, t: (x >= t).any(0)),
            ),
            Mistake(
                "the large column still sets the step of its token: take max|·| of what is left",
                lambda *a: int8_of(*a, own=False),
            ),
            Mistake(
                "only 8-bit weights are stored: the outlier columns use them too, not the original w",
                lambda *a: int8_of(*a, float_w=True),
            ),
            Mistake("the outlier columns have to leave the integer product", lambda *a: int8_of(*a, split=False)),
            Mistake("a row of zeros gives 0/0", lambda *a: int8_of(*a, guard=False)),
            Mistake(
                "one step for each token, not one for all tokens",
                lambda *a: int8_of(*a, per_row=False),
            ),
            Mistake("round to the nearest code, do not cut off", lambda *a: int8_of(*a, to=torch.trunc)),
            Mistake(
                "each row of w has a step of its own",
                lambda *a: int8_of(*a, w_largest=lambda w, out: w.abs().amax()),
            ),
            Mistake(
                "w is stored before any x is known: the step of its rows comes from all columns",
                lambda *a: int8_of(*a, w_largest=lambda w, out: w.masked_fill(out, 0).abs().amax(1, keepdim=True)),
            ),
            Mistake("symmetric codes reach 127, not 128", lambda *a: int8_of(*a, grid=128)),
            Mistake(
                "a whole column leaves when any token reaches the threshold: an integer product has no holes",
                lambda *a: int8_of(*a, outlier=lambda x, t: x.abs() >= t),
            ),
        ),
        hints=(
            "Two products that add up: a float one over a few columns, an integer one over the others.",
            "out = (|x| ≥ threshold).any(0); rest = x with those columns 0; round(rest), round(w) by rows; "
            "round(rest) @ round(w).T + x[:, out] @ round(w)[:, out].T.",
            "`out = (x.abs() >= threshold).any(0)`",
        ),
        difficulty=2,
        importance=2,
        minutes=(8, 12),
        rel_tol=1e-5,
    ),
)
