"""Lab 1, the bounds: what a layer costs, the roof over it, and the batch at which decode changes sides."""

from __future__ import annotations

import math

import numpy as np

from labcore import facts
from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab01_references as ref

LAB = "lab01"
A100, LAPTOP = facts.hardware("a100-80-sxm"), facts.hardware("laptop")
R_A100 = A100.flops("bf16") / A100.bandwidth
R_LAPTOP = LAPTOP.flops("fp32") / LAPTOP.bandwidth
LLAMA2_70B, FALCON = facts.model("llama-2-70b"), facts.model("falcon-7b")
LLAMA3_8B = facts.model("llama-3-8b")
MODELS = (facts.model("llama-2-7b"), LLAMA2_70B, LLAMA3_8B, FALCON)
BRINK = 2 * LLAMA3_8B.parameters() / 2**28 + 4  # FLOP/B of a sequence of 2,048 tokens alone; its cache has 2^28 bytes


def arrays(d_out, d_in, tokens, weights="float16", activations="float16"):
    """W [d_out, d_in] and X [d_in, tokens]."""
    return np.ones((d_out, d_in), weights), np.ones((d_in, tokens), activations)


def no_crossover(*args):
    """A stage: no batch is compute-bound here, and the function must say so with None."""

    def stage(attempt: Attempt) -> None:
        got = attempt(*args)
        if got is None:
            return
        if not isinstance(got, int | float):
            raise Fault(f"{attempt.call(args)} gave {describe(got)}, expected None: no batch is compute-bound here")
        why = "a negative or infinite batch is how the formula says that none exists; return None"
        if 0 < got < float("inf"):
            why = "no batch is compute-bound here, so return None"
        raise Fault(f"{attempt.call(args)} gave {describe(got)}, expected None: {why}")

    return stage


def crossover_exists(*args, says):
    """A stage: a crossover exists here; `says` explains an answer of None."""

    def stage(attempt: Attempt) -> None:
        if attempt(*args) is None:
            raise Fault(f"{attempt.call(args)} gave None, and a crossover exists here: {says}")
        attempt.expect(args)

    return stage


def same_crossover(attempt: Attempt) -> None:
    """Stage: agreement with the reference on real models at drawn contexts, ridges and widths."""
    generator = np.random.default_rng(0)
    for _ in range(100):
        model = MODELS[generator.integers(len(MODELS))]
        context, ridge = int(generator.integers(0, 6000)), float(generator.uniform(2, 400))
        args = model, context, ridge, float(generator.choice([0.5, 1, 2]))
        if ref.crossover_kv(*args) is None:
            no_crossover(*args)(attempt)
        else:
            crossover_exists(*args, says="compare what a sequence adds in FLOP with what it adds in bytes")(attempt)


EXERCISES = (
    Exercise(
        id="roofline.linear_cost",
        lab=LAB,
        title="FLOP and bytes of one linear layer",
        asked="How many FLOP and how many bytes does one linear layer cost for T tokens?",
        spec="Write `linear_cost(W, X)` for the product `Y = W @ X` of numpy arrays `W` [d_out, d_in] and `X` "
        "[d_in, T]. Return two integers, **(FLOP, bytes)**: `W` and `X` are read once and `Y` is written once. `Y` has "
        "the element type of `X`; that of `W` may be another. Do not compute the product.",
        reference=ref.linear_cost,
        stages=(
            oracle(*arrays(1, 1, 1), gives=(2, 6)),
            oracle(*arrays(4, 6, 2), gives=(96, 88)),
            trap(*arrays(4, 6, 5, "int8"), says="W has 1 byte an element here, X and Y have 2"),
            trap(*arrays(4, 6, 5, "float32"), says="W is the wider one here, and Y still has X's 2 bytes an element"),
            agrees(
                lambda g: arrays(
                    *(int(n) for n in g.integers(1, 9, 3)), g.choice(["int8", "f2", "f4"]), g.choice(["f2", "f4"])
                )
            ),
        ),
        mistakes=(
            Mistake(
                "every weight costs a multiplication and an addition per token, 2 FLOP",
                lambda W, X: (ref.linear_cost(W, X)[0] // 2, ref.linear_cost(W, X)[1]),
            ),
            Mistake(
                "all T tokens share one reading of the weights",
                lambda W, X: (ref.linear_cost(W, X)[0], ref.linear_cost(W, X)[1] + (X.shape[1] - 1) * W.nbytes),
            ),
            Mistake(
                "the result is written as well",
                lambda W, X: (ref.linear_cost(W, X)[0], W.nbytes + X.nbytes),
            ),
            Mistake(
                "that counts the weights alone; X is read and Y is written too",
                lambda W, X: (ref.linear_cost(W, X)[0], W.nbytes),
            ),
            Mistake(
                "those are elements, and bytes are asked for",
                lambda W, X: (ref.linear_cost(W, X)[0], W.size + X.size + W.shape[0] * X.shape[1]),
            ),
            Mistake(
                "Y has the element type of X, not of W",
                lambda W, X: (ref.linear_cost(W, X)[0], W.nbytes + X.nbytes + W.shape[0] * X.shape[1] * W.itemsize),
            ),
        ),
        hints=(
            "Take one weight. In how many multiplications does it take part if there are T columns, and how often "
            "must it come out of memory?",
            "FLOP: 2 · d_out · d_in · T. Bytes: what W and X occupy, plus d_out · T elements as wide as X's.",
            "`flops = 2 * W.size * X.shape[1]`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
    ),
    Exercise(
        id="roofline.attainable",
        lab=LAB,
        title="The roof",
        asked="Draw me the roofline of an A100 and put decode at batch 1 on it.",
        spec="Write `attainable(intensity, peak, bandwidth)`: the highest **FLOP/s** that work can reach if loading "
        "and computing overlap perfectly. `intensity` is `float64[N]` in FLOP/B, `peak` a number in "
        "FLOP/s, `bandwidth` one in B/s; return `float64[N]`.",
        reference=ref.attainable,
        stages=(
            oracle(np.array([1.0, 50.0]), 100.0, 10.0, gives=np.array([10.0, 100.0])),
            agrees(lambda g: (g.uniform(0.1, 1e3, 5), float(g.uniform(1e12, 1e15)), float(g.uniform(1e11, 1e13)))),
        ),
        mistakes=(
            Mistake("the slower of the two limits decides", lambda i, f, b: np.maximum(f, i * b)),
            Mistake("nothing computes faster than its peak", lambda i, f, b: i * b),
            Mistake("the peak is out of reach left of the ridge", lambda i, f, b: np.full_like(i, f)),
            Mistake(
                "that adds the two times; a roofline lets them overlap, so the longer one counts",
                lambda i, f, b: 1 / (1 / f + 1 / (i * b)),
            ),
            Mistake(
                "FLOP/B times B/s is FLOP/s; a quotient is not",
                lambda i, f, b: np.minimum(f, b / i),
            ),
        ),
        hints=(
            "In one second memory delivers `bandwidth` bytes. How much work arrives with them?",
            "Two ceilings: the peak, and intensity times bandwidth. The lower one holds, element by element.",
            "`delivered = intensity * bandwidth`",
        ),
        difficulty=1,
        importance=3,
        minutes=(4, 6),
    ),
    Exercise(
        id="roofline.crossover_batch",
        lab=LAB,
        title="The crossover, precision by precision",
        asked="We quantize the weights to 8 bits. Does decode become compute-bound at a smaller batch?",
        spec="Write `crossover_batch(peaks, bandwidth, weight_bits, activation_bits)`: the number of **sequences** at "
        "which linear layers become compute-bound. `peaks` maps a width in bits to the dense FLOP/s of that format, "
        "`bandwidth` is in B/s. A format with narrower weights than activations unpacks them and multiplies in the "
        "wider format. Count weight traffic only; return a number, not rounded.",
        reference=ref.crossover_batch,
        stages=(
            oracle({16: 300.0}, 2.0, 16, 16, gives=150.0),
            oracle({16: 300.0, 8: 700.0}, 2.0, 8, 16, gives=75.0),
            oracle({16: 300.0, 8: 700.0}, 2.0, 8, 8, gives=175.0),
            oracle({16: 300.0, 8: 700.0, 4: 1500.0}, 2.0, 4, 16, gives=37.5),
            agrees(
                lambda g: (
                    {
                        4: float(g.uniform(4e14, 9e14)),
                        8: float(g.uniform(2e14, 4e14)),
                        16: float(g.uniform(5e13, 2e14)),
                    },
                    float(g.uniform(1e11, 8e12)),
                    *((4, 4), (4, 8), (4, 16), (8, 8), (8, 16), (16, 16))[g.integers(6)],
                )
            ),
        ),
        mistakes=(
            Mistake(
                "weight-only formats multiply in the activations' width, so that peak applies",
                lambda p, b, w, a: p[w] / b * w / 16,
            ),
            Mistake(
                "when weights and activations are both narrow, the product runs at their own, higher peak",
                lambda p, b, w, a: p[16] / b * w / 16,
            ),
            Mistake(
                "the bytes are the weights' bytes, not the activations'",
                lambda p, b, w, a: p[max(w, a)] / b * a / 16,
            ),
            Mistake(
                "each weight gives 2 FLOP per sequence, so the ridge is reached with half as many",
                lambda p, b, w, a: p[max(w, a)] / b * w / 8,
            ),
            Mistake(
                "that leaves out the width of the weights",
                lambda p, b, w, a: p[max(w, a)] / b,
            ),
            Mistake(
                "bandwidth is in bytes, weight_bits in bits: divide by 8",
                lambda p, b, w, a: p[max(w, a)] / b * w / 2,
            ),
        ),
        hints=(
            "Two questions: how many bytes does a weight occupy in memory, and in which format is it multiplied?",
            "Set 2B / b_w equal to the ridge of the format that multiplies, and solve for B.",
            "`ridge = peaks[max(weight_bits, activation_bits)] / bandwidth`",
        ),
        difficulty=2,
        importance=3,
        minutes=(6, 10),
    ),
    Exercise(
        id="roofline.crossover_kv",
        lab=LAB,
        title="A crossover that may not exist",
        asked="At 4,096 tokens of context, how many sequences make decode of Llama 2 70B compute-bound on an A100?",
        spec="Write `crossover_kv(model, context, ridge, bytes_per_weight)`: the **sequences**, each with `context` "
        "tokens, at which the intensity of the whole decode step reaches `ridge` (FLOP/B), a number, not rounded, or "
        "`None` if no batch does. "
        "A step does 2P + 4·n_layers·n_heads·head_dim·L FLOP per sequence; it reads all weights once, and each "
        "sequence's cache once. Use `model.parameters()`, `model.kv_bytes_per_token()`, `model.n_layers`, "
        "`model.n_heads`, `model.head_dim`.",
        reference=ref.crossover_kv,
        stages=(
            trap(LLAMA2_70B, 0, 100.0, 2, says="without context this is the linear-layer answer, R·b_w/2", gives=100.0),
            trap(LLAMA2_70B, 1024, R_A100, 2, says="compare FLOP per sequence and bytes per sequence with the spec"),
            trap(LLAMA2_70B, 1024, R_A100, 0.5, says="b_w is the width of the weights alone"),
            no_crossover(LLAMA2_70B, 4096, R_A100, 2),
            no_crossover(LLAMA3_8B, 2048, BRINK, 2),  # a sequence's own FLOP/B is the ridge: the weights keep it below
            crossover_exists(
                LLAMA2_70B,
                2800,
                R_A100,
                2,
                says="attention's own FLOP push L_max further out",
            ),
            crossover_exists(
                FALCON,
                10**6,
                R_LAPTOP,
                2,
                says="on this ridge attention itself is compute-bound, so every context has one and L_max is negative",
            ),
            same_crossover,
        ),
        mistakes=(
            Mistake(
                "every sequence reads its own cache; only the weights are shared",
                lambda m, c, r, b: (
                    (r * (b * m.parameters() + c * m.kv_bytes_per_token()))
                    / (2 * m.parameters() + 4 * m.n_layers * m.n_heads * m.head_dim * c)
                ),
            ),
            Mistake(
                "attention's FLOP are missing",
                lambda m, c, r, b: r * b * m.parameters() / (2 * m.parameters() - r * c * m.kv_bytes_per_token()),
            ),
            Mistake(
                "attention's FLOP are counted for every query head, not every KV head",
                lambda m, c, r, b: (
                    r
                    * b
                    * m.parameters()
                    / (
                        2 * m.parameters()
                        + 4 * m.n_layers * m.n_kv_heads * m.head_dim * c
                        - r * c * m.kv_bytes_per_token()
                    )
                ),
            ),
            Mistake(
                "do not round: this is where the bound lies, not yet a batch that one can run",
                lambda m, c, r, b: math.ceil(ref.crossover_kv(m, c, r, b)),
            ),
            Mistake(
                "that ignores the context: KV reads belong into the bytes",
                lambda m, c, r, b: r * b / 2,
            ),
        ),
        hints=(
            "Write intensity as FLOP over bytes; B stands in the numerator, and in one of two terms below.",
            "Multiply out, collect B on one side: B · (FLOP per sequence − ridge · bytes per sequence) = ridge · "
            "weight bytes. What if the bracket is not positive?",
            "`own_flops = 2 * model.parameters() + 4 * model.n_layers * model.n_heads * model.head_dim * context`",
        ),
        difficulty=3,
        importance=3,
        minutes=(12, 18),
    ),
)
