"""Warm-up lab: units and notation. Seven small functions, and the mistakes that people make in each of them.

The references are written in the units people speak (GB, Gb/s, TFLOP/s) on purpose: converting is the exercise.
"""

from __future__ import annotations

import numpy as np

from labcore.learn.exercises import Exercise, Mistake, agrees, oracle, register, trap

LAB = "lab00"


def room(card_gib, weights_gb):
    """Bytes left on a card of `card_gib` GiB after loading `weights_gb` GB of weights; negative if they do not fit."""
    return card_gib * 2**30 - weights_gb * 10**9


def send_seconds(num_bytes, gigabits_per_second):
    """Seconds to send `num_bytes` bytes over a link that carries `gigabits_per_second` Gb/s."""
    return 8 * num_bytes / (gigabits_per_second * 10**9)


def mean_tpot(tokens_per_second):
    """Mean time per output token, s, of N streams of equal length whose rates are `tokens_per_second`, float64[N]."""
    return float(np.mean(1 / tokens_per_second))


def log_position(low, high, fraction):
    """The value that lies `fraction` of the way from tick `low` to tick `high` on a logarithmic axis."""
    return low * (high / low) ** fraction


def ridge(tflops, gigabytes_per_second, sparse):
    """Ridge point, FLOP/B: dense peak over bandwidth. `sparse` says that `tflops` is the 2:4 structured-sparsity peak.

    Source: the roofline model, Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009.
    """
    dense = tflops / 2 if sparse else tflops
    return dense * 10**12 / (gigabytes_per_second * 10**9)


def broken_kv_gigabytes(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    """GB of KV cache for `tokens` tokens at 2 bytes an element. It has two errors."""
    per_token = 2 * n_layers * n_heads * head_dim * 2
    return per_token * tokens / 2**30


def kv_gigabytes(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    """GB of KV cache for `tokens` tokens at 2 bytes an element: a key and a value per layer and KV head."""
    per_token = 2 * n_layers * n_kv_heads * head_dim * 2
    return per_token * tokens / 10**9


def diagnose(claimed, peak, bandwidth):
    """What went into a published ridge of `claimed` FLOP/B, given the dense `peak` (FLOP/s) and `bandwidth` (B/s).

    "right", "sparse peak" (twice too high), "bits for bytes" (8 times too high) or "something else"; 2 % is rounding.
    """
    ratio = claimed / (peak / bandwidth)
    for factor, name in ((1, "right"), (2, "sparse peak"), (8, "bits for bytes")):
        if abs(ratio / factor - 1) <= 0.02:
            return name
    return "something else"


register(
    Exercise(
        id="units.room",
        lab=LAB,
        title="Room beside the weights",
        asked="A 70B model in FP8 on one 80 GB card: how much is left for the KV cache?",
        spec="Write `room(card_gib, weights_gb)`. The driver reports the card in GiB, the checkpoint is listed in GB. "
        "Return what is left in **bytes**, one number; a negative one says by how much the weights do not fit.",
        reference=room,
        stages=(
            oracle(1, 0, gives=2.0**30),
            oracle(2, 1, gives=1_147_483_648.0),
            trap(80, 141.11, says="a negative result says how much does not fit; do not cut it off at zero"),
            agrees(lambda g: (float(g.uniform(8, 288)), float(g.uniform(1, 400)))),
        ),
        mistakes=(
            Mistake("the card is in GiB, 2**30 bytes each", lambda card, weights: (card - weights) * 10**9),
            Mistake("the weights are in GB, 10**9 bytes each", lambda card, weights: (card - weights) * 2**30),
            Mistake("that is in GB, and bytes are asked for", lambda card, weights: card * 2**30 / 10**9 - weights),
            Mistake("that is in GiB, and bytes are asked for", lambda card, weights: card - weights * 10**9 / 2**30),
        ),
        hints=(
            "Two numbers can be subtracted only when they count the same thing. What do GiB and GB both count?",
            "Turn each into bytes: one with a power of two, the other with a power of ten. Then subtract.",
            "`card_bytes = card_gib * 2**30`",
        ),
        difficulty=1,
        importance=3,
        minutes=(3, 5),
    ),
    Exercise(
        id="units.send",
        lab=LAB,
        title="Bytes through a link that is sold in bits",
        asked="Prefill runs on one machine, decode on another. How long does the KV cache take over a 400 Gb/s link?",
        spec="Write `send_seconds(num_bytes, gigabits_per_second)`: the time in **seconds** to send `num_bytes` bytes, "
        "ignoring latency and headers. Networks are sold in bits per second, memory in bytes.",
        reference=send_seconds,
        stages=(
            oracle(50 * 10**9, 400, gives=1.0),
            oracle(10**9, 8, gives=1.0),
            agrees(lambda g: (int(g.integers(1, 10**12)), float(g.uniform(1, 3200)))),
        ),
        mistakes=(
            Mistake("the link counts bits and you count bytes", lambda n, rate: n / (rate * 10**9)),
            Mistake("bytes become bits by multiplying with 8", lambda n, rate: n / 8 / (rate * 10**9)),
            Mistake("link rates are decimal, 10**9 bits a second for 1 Gb/s", lambda n, rate: 8 * n / (rate * 2**30)),
            Mistake("that is in milliseconds, and seconds are asked for", lambda n, rate: 8 * n / (rate * 10**6)),
            Mistake("that is a rate in 1/s; a time is an amount over a rate", lambda n, rate: rate * 10**9 / (8 * n)),
        ),
        hints=(
            "A time is an amount divided by a rate, when both count the same thing.",
            "Count bits on both sides: 8 a byte above, 10**9 for each Gb/s below.",
            "`bits = 8 * num_bytes`",
        ),
        difficulty=1,
        importance=2,
        minutes=(3, 5),
    ),
    Exercise(
        id="units.mean_tpot",
        lab=LAB,
        title="Averaging rates",
        asked="Two streams run at 20 and 80 tokens/s. What is the mean time per output token?",
        spec="Write `mean_tpot(tokens_per_second)`. The argument is `float64[N]`, the rates of N streams that emit "
        "equally many tokens; return their mean time per output token (TPOT), a `float` in **s/token**.",
        reference=mean_tpot,
        stages=(
            oracle(np.array([50.0]), gives=0.02),
            oracle(np.array([20.0, 80.0]), gives=0.03125),
            trap(np.array([5.0, 100.0, 100.0, 100.0]), says="one slow stream counts as much as three fast ones"),
            agrees(lambda g: (g.uniform(1, 200, size=int(g.integers(1, 9))),)),
        ),
        mistakes=(
            Mistake("that inverts the mean rate; average the times, not the rates", lambda r: 1 / np.mean(r)),
            Mistake("that is in milliseconds, and seconds are asked for", lambda r: 1000 * np.mean(1 / r)),
            Mistake("that is a rate in tokens/s; a TPOT is a time in s/token", lambda r: 1 / np.mean(1 / r)),
            Mistake("that is the mean rate in tokens/s; TPOT is its reciprocal, stream by stream", np.mean),
            Mistake("that is a median; the mean is asked for", lambda r: np.median(1 / r)),
        ),
        hints=(
            "A stream at 20 tokens/s takes 0.05 s for each. What does the other take?",
            "Turn every rate into a time first, then average the times.",
            "`times = 1 / tokens_per_second`",
        ),
        difficulty=2,
        importance=3,
        minutes=(4, 6),
    ),
    Exercise(
        id="units.log_axis",
        lab=LAB,
        title="Reading a logarithmic axis",
        asked="On this roofline plot the point sits halfway between 10 and 100 FLOP/B. What is its intensity?",
        spec="Write `log_position(low, high, fraction)`: the value `fraction` of the way from tick `low` to tick "
        "`high` on a logarithmic axis; all three are numbers, `low` and `high` above 0, `fraction` from 0 to 1.",
        reference=log_position,
        stages=(
            oracle(1, 100, 0.5, gives=10.0),
            oracle(1, 10_000, 0.25, gives=10.0),
            trap(20, 320, 0.5, says="equal steps on a logarithmic axis are equal factors: 20, 80, 320"),
            trap(8.0, 64.0, 0, says="at fraction 0 the value is the left tick, at 1 the right one"),
            agrees(lambda g: (float(g.uniform(0.01, 10)), float(g.uniform(11, 1e4)), float(g.uniform(0, 1)))),
        ),
        mistakes=(
            Mistake("that is a linear axis: equal steps are equal factors here", lambda a, b, f: a + f * (b - a)),
            Mistake("the axis starts at low, not at 1", lambda a, b, f: float(b) ** f),
            Mistake("that is the logarithm of the value", lambda a, b, f: np.log10(a) + f * np.log10(b / a)),
            Mistake("that counts from the right tick", lambda a, b, f: b * (a / b) ** f),
        ),
        hints=(
            "Halfway between 1 and 100 lies 10: the same factor, twice.",
            "The whole way is a factor of high / low; the part of the way is that factor to a power.",
            "`factor = (high / low) ** fraction`",
        ),
        difficulty=2,
        importance=2,
        minutes=(4, 6),
    ),
    Exercise(
        id="units.ridge",
        lab=LAB,
        title="The ridge point of a datasheet",
        asked="At how many FLOP per byte does this GPU stop waiting for memory?",
        spec="Write `ridge(tflops, gigabytes_per_second, sparse)`: the ridge point in **FLOP/B** for dense arithmetic. "
        "`sparse` is True when the datasheet's TFLOP/s assume 2:4 structured sparsity, which doubles the figure.",
        reference=ridge,
        stages=(
            oracle(1, 1000, False, gives=1.0),
            oracle(312, 2000, False, gives=156.0),
            trap(1000, 2000, True, says="a sparse peak is twice the dense one: halve it"),
            agrees(lambda g: (float(g.uniform(10, 5000)), float(g.uniform(100, 8000)), bool(g.integers(2)))),
        ),
        mistakes=(
            Mistake("TFLOP/s over GB/s leaves a factor of 1000", lambda f, b, s: (f / 2 if s else f) / b),
            Mistake("that is B/FLOP, upside down", lambda f, b, s: b * 1e9 / ((f / 2 if s else f) * 1e12)),
            Mistake("bandwidth is decimal: 1 GB is 10**9 B", lambda f, b, s: (f / 2 if s else f) * 1e12 / (b * 2**30)),
            Mistake("that halves a peak that is dense already", lambda f, b, s: f / 2 * 1000 / b),
        ),
        hints=(
            "The ridge point is a ratio of two rates; seconds cancel and FLOP per byte remain.",
            "Bring the peak to FLOP/s (dense!) and the bandwidth to B/s, then divide.",
            "`dense = tflops / 2 if sparse else tflops`",
        ),
        difficulty=1,
        importance=3,
        minutes=(4, 6),
    ),
    Exercise(
        id="units.kv_debug",
        lab=LAB,
        title="Repair a KV-cache calculator",
        asked="This calculator says 20 GB for one 8k session of Llama 3 70B. Do you believe it?",
        spec="`kv_gigabytes(n_layers, n_heads, n_kv_heads, head_dim, tokens)` should return the **GB** of keys and "
        "values for `tokens` tokens at 2 bytes an element. The function below has two errors. Find and mend both.",
        reference=kv_gigabytes,
        starter=broken_kv_gigabytes,
        stages=(
            oracle(1, 1, 1, 1, 10**9, gives=4.0),
            oracle(80, 64, 8, 128, 1, gives=0.00032768),
            agrees(lambda g: (*(int(n) for n in g.integers(2, 100, 2)), 1, 128, int(g.integers(1, 10**6)))),
        ),
        mistakes=(
            Mistake(
                "keys and values are stored once per KV head, not per query head",
                lambda n, q, kv, d, t: 4 * n * q * d * t / 10**9,
            ),
            Mistake(
                "that is GiB; the name promises GB, 10**9 bytes",
                lambda n, q, kv, d, t: 4 * n * kv * d * t / 2**30,
            ),
            Mistake(
                "both a key and a value are stored",
                lambda n, q, kv, d, t: 2 * n * kv * d * t / 10**9,
            ),
            Mistake(
                "every layer has its own cache",
                lambda n, q, kv, d, t: 4 * kv * d * t / 10**9,
            ),
            Mistake(
                "an element has 2 bytes: an extra or a missing 2",
                lambda n, q, kv, d, t: 8 * n * kv * d * t / 10**9,
            ),
        ),
        hints=(
            "Work out one token of a model with one layer and one head by hand, then compare.",
            "One error is in what is counted, the other in the unit it is counted in.",
            "`per_token = 2 * n_layers * n_kv_heads * head_dim * 2`",
        ),
        difficulty=2,
        importance=3,
        minutes=(5, 8),
    ),
    Exercise(
        id="units.falsify",
        lab=LAB,
        title="Falsify a ridge point",
        asked="I read that an H100's ridge in BF16 is 591 FLOP/B. Is that right, and if not, what happened?",
        spec="Write `diagnose(claimed, peak, bandwidth)`: given a published ridge (FLOP/B) and the true dense peak "
        '(FLOP/s) and bandwidth (B/s), return `"right"`, `"sparse peak"` (twice too high), `"bits for bytes"` (8 times '
        'too high) or `"something else"`. Published figures are rounded: allow 2 % each way.',
        reference=diagnose,
        stages=(
            oracle(100.0, 1e14, 1e12, gives="right"),
            oracle(200.0, 1e14, 1e12, gives="sparse peak"),
            oracle(800.0, 1e14, 1e12, gives="bits for bytes"),
            trap(295, 989.4e12, 3.35e12, says="published figures are rounded; compare within 2 %"),
            trap(591, 989.4e12, 3.35e12, says="published figures are rounded; compare the double within 2 % too"),
            trap(50.0, 1e14, 1e12, says="half the ridge is not a doubled peak: the ratio has a direction"),
            trap(12.5, 1e14, 1e12, says="an eighth is not eight times: the ratio has a direction"),
            trap(150.0, 1e14, 1e12, says="halfway between right and double is neither"),
            trap(1.0, 1e12, 1e12, says="2 % is relative: a small ridge is judged like a large one", gives="right"),
            trap(1.5, 1e12, 1e12, says="2 % is relative: a small ridge is judged like a large one"),
            trap(97.5, 1e14, 1e12, says="2.5 % off is more than rounding"),
            trap(102.5, 1e14, 1e12, says="2.5 % off is more than rounding"),
            trap(820.0, 1e14, 1e12, says="2 % of itself: eight times the ridge is 784 to 816 here"),
            trap(98.1, 1e14, 1e12, says="1.9 % off is still rounding"),
            trap(203.8, 1e14, 1e12, says="1.9 % off the double is still rounding"),
            trap(2.5, 2.5e12, 1e12, says="a ridge is seldom a whole number: 2.5 here, not 2; do not round it first"),
            agrees(
                lambda g: (
                    float(g.choice([1, 2, 8, 3, 0.5, 7]) * g.uniform(0.95, 1.05)) * (true := float(g.uniform(1, 400))),
                    true * (bandwidth := float(g.uniform(1e11, 9e12))),
                    bandwidth,
                ),
                says="each of the three factors has its own 2 %, above and below",
            ),
        ),
        hints=(
            "What is the ratio of the claim to the ridge you compute, if the claim used the sparse peak?",
            "Form one ratio and compare it with 1, 2 and 8, each within 2 % of itself.",
            "`ratio = claimed / (peak / bandwidth)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(6, 10),
    ),
)
