"""Lab 1, the step: its time kernel by kernel, the experts it wakes, a report to mend and a claim to refute."""

from __future__ import annotations

import operator

import numpy as np

from labcore import facts
from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab01_references as ref

LAB = "lab01"
A100, H100, LAPTOP = (facts.hardware(id) for id in ("a100-80-sxm", "h100-sxm", "laptop"))
MODELS = LLAMA2, LLAMA2_70B, LLAMA3 = tuple(facts.model(id) for id in ("llama-2-7b", "llama-2-70b", "llama-3-8b"))
SMOLLM2, MISTRAL = facts.model("smollm2-135m"), facts.model("mistral-7b-v0.2")
A100_BF16 = A100.flops("bf16"), A100.bandwidth
H100_BF16 = H100.flops("bf16"), H100.bandwidth
LAPTOP_FP32 = LAPTOP.flops("fp32"), LAPTOP.bandwidth


def refutes(model, claimed, peak, bandwidth, bytes_per_weight):
    """A stage: any counterexample is put to the test; None is right only where there is none."""
    args = model, claimed, peak, bandwidth, bytes_per_weight

    def stage(attempt: Attempt) -> None:
        got, call = attempt(*args), attempt.call(args)
        if got is None:
            if (found := ref.counterexample(*args)) is not None:
                reached = ref.step_intensity(model, *found, bytes_per_weight)
                raise Fault(
                    f"{call} gave None, but the claim is false: try both ends of the context; {found[0]:,} sequences "
                    f"of {found[1]:,} reach {reached:.6g} FLOP/B, and the ridge is {peak / bandwidth:.6g}"
                )
            return
        try:
            batch, context = map(operator.index, got)
        except (TypeError, ValueError):
            raise Fault(f"{call} gave {describe(got)}, expected two integers (batch, context), or None") from None
        where = f"{call} gave ({batch}, {context}): "
        if batch < claimed:
            raise Fault(f"{where}the claim speaks of {claimed} and more, so fewer sequences refute nothing")
        if not 1 <= context <= model.context:
            raise Fault(f"{where}this model's context runs from 1 to {model.context:,} tokens")
        reached = ref.step_intensity(model, batch, context, bytes_per_weight)
        if reached >= peak / bandwidth:
            raise Fault(
                f"{where}{reached:.4g} FLOP/B against a ridge of {peak / bandwidth:.4g} is compute-bound, as claimed"
            )

    return stage


EXERCISES = (
    Exercise(
        id="roofline.step_seconds",
        lab=LAB,
        title="A decode step, kernel by kernel",
        asked="How long does one decode step take, and which part of it would you attack first?",
        spec="Write `step_seconds(model, batch, context, peak, bandwidth, width)`: the least time of a step's "
        "**(linear layers, attention)**, two numbers in seconds, without launches and communication. Linear layers "
        "overlap weight reads with arithmetic. Attention runs after them and takes as long as its KV reads. `width` "
        "is bytes per weight and per cached element (`model.kv_bytes_per_token(width)`), `peak` in FLOP/s, "
        "`bandwidth` in B/s.",
        reference=ref.step_seconds,
        stages=(
            trap(LLAMA3, 1, 0, 1e15, 1e12, 2, says="at batch 1 the linear layers wait for the weights"),
            trap(LLAMA3, 4096, 0, 1e15, 1e12, 2, says="at batch 4,096 they wait for the arithmetic"),
            trap(LLAMA3, 64, 1024, 1e15, 1e12, 2, says="64 sequences read 64 caches"),
            trap(LLAMA3, 64, 1024, 1e15, 1e12, 1, says="width counts for the cache as well"),
            agrees(
                lambda g: (
                    MODELS[g.integers(len(MODELS))],
                    int(g.integers(1, 1000)),
                    int(g.integers(0, 9000)),
                    float(g.uniform(1e12, 1e15)),
                    float(g.uniform(1e11, 1e13)),
                    int(g.choice([1, 2, 4])),
                )
            ),
        ),
        mistakes=(
            Mistake(
                "reading and arithmetic overlap inside the linear layers: the longer one counts, not the sum",
                lambda m, n, c, f, b, w: (
                    w * m.parameters() / b + 2 * m.parameters() * n / f,
                    n * c * m.kv_bytes_per_token(w) / b,
                ),
            ),
            Mistake(
                "the whole batch shares one reading of the weights",
                lambda m, n, c, f, b, w: (n * w * m.parameters() / b, n * c * m.kv_bytes_per_token(w) / b),
            ),
            Mistake(
                "each sequence has a cache of its own to read",
                lambda m, n, c, f, b, w: (ref.step_seconds(m, n, c, f, b, w)[0], c * m.kv_bytes_per_token(w) / b),
            ),
            Mistake(
                "cached elements are width bytes wide, like the weights",
                lambda m, n, c, f, b, w: (ref.step_seconds(m, n, c, f, b, w)[0], n * c * m.kv_bytes_per_token(2) / b),
            ),
            Mistake(
                "every weight does 2 FLOP for every sequence",
                lambda m, n, c, f, b, w: (
                    max(w * m.parameters() / b, m.parameters() * n / f),
                    n * c * m.kv_bytes_per_token(w) / b,
                ),
            ),
            Mistake(
                "those are milliseconds, and seconds are asked for",
                lambda m, n, c, f, b, w: tuple(1e3 * t for t in ref.step_seconds(m, n, c, f, b, w)),
            ),
        ),
        hints=(
            "Which bytes does a step read once, and which once per sequence?",
            "linear = the longer of weight bytes / bandwidth and FLOP / peak; attention = KV bytes of all sequences / "
            "bandwidth.",
            "`linear = max(width * model.parameters() / bandwidth, 2 * model.parameters() * batch / peak)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
    ),
    Exercise(
        id="roofline.experts_hit",
        lab=LAB,
        title="How many experts does a batch wake?",
        asked="A mixture of experts activates 8 of 128 experts per token. What does a batch of 64 read?",
        spec="Write `experts_hit(routing)`: `int64[steps, B, k]` holds, for each decode step and each of its B tokens, "
        "the k experts the router chose in one layer. Return the mean number of **distinct experts per step**, a "
        "`float`: each of them is read once in that step. Count; do not assume that routing is uniform.",
        reference=ref.experts_hit,
        stages=(
            oracle(np.array([[[0, 1]]]), gives=2.0),
            oracle(np.array([[[0, 1], [1, 2]]]), gives=3.0),
            oracle(np.array([[[0, 1], [0, 1], [1, 0]], [[0, 1], [1, 2], [2, 0]], [[1, 2], [2, 3], [3, 4]]]), gives=3.0),
            trap(np.array([[[3, 90]], [[3, 90]]]), says="two experts are read in each step, whatever their numbers"),
            agrees(
                lambda g: (
                    np.argsort(g.random((4, int(g.integers(2, 12)), 16)), axis=-1)[..., : int(g.integers(1, 5))] ** 2,
                ),
                says="all k experts of a token count, and k is not always 2",
            ),
        ),
        mistakes=(
            Mistake("experts that two tokens share are read once", lambda r: float(r.shape[1] * r.shape[2])),
            Mistake("every step reads its experts anew: count step by step, then average", lambda r: len(np.unique(r))),
            Mistake(
                "that is the total of all steps; the mean is asked for", lambda r: sum(len(set(s.flat)) for s in r)
            ),
            Mistake("that is k, the experts of one token; a step reads those of all its tokens", lambda r: r.shape[2]),
            Mistake(
                "that divides the experts of all steps together; a step reads its own",
                lambda r: len(np.unique(r)) / len(r),
            ),
        ),
        hints=(
            "What does a step read if all of its tokens choose the same two experts?",
            "For each step: put all chosen ids into a set, take its size. Then average over the steps.",
            "`sizes = [np.unique(step).size for step in routing]`",
        ),
        difficulty=1,
        importance=2,
        minutes=(5, 8),
    ),
    Exercise(
        id="roofline.debug_report",
        lab=LAB,
        title="Repair a roofline report",
        asked="This report says that our decode reads memory at twice its bandwidth. Find out what is wrong with it.",
        spec="`roofline_report(model, batch, context, seconds, headline, bandwidth)` reports **tokens/s** of the whole "
        "run and its **MBU** and **MFU** (1 means 100 %), weights and cache in 16 bits. `seconds` is `float64[N]`, the "
        "duration of each step; `context` is the mean over the run; `headline` is the datasheet's largest BF16 figure "
        "in FLOP/s, with 2:4 structured sparsity. The function below has three errors. Mend them all.",
        reference=ref.roofline_report,
        starter=ref.broken_roofline_report,
        stages=(
            trap(
                LLAMA2,
                1,
                1024,
                np.full(4, 0.01),
                2e15,
                2e12,
                says="look at MFU: structured sparsity doubles a headline figure and your matrices are dense",
            ),
            trap(
                LLAMA2,
                8,
                1024,
                np.array([0.01, 0.01, 0.01, 0.05]),
                2e15,
                2e12,
                says="look at tokens/s: 32 tokens in 80 ms are 400 tokens/s, however fast the best step was",
            ),
            trap(
                LLAMA3,
                32,
                2048,
                np.full(4, 0.01),
                2e15,
                2e12,
                says="look at MBU: a grouped-query model caches its KV heads, not its query heads",
            ),
            agrees(
                lambda g: (
                    MODELS[g.integers(len(MODELS))],
                    int(g.integers(1, 100)),
                    int(g.integers(1, 5000)),
                    g.uniform(0.01, 0.1, 5),
                    float(g.uniform(1e14, 4e15)),
                    float(g.uniform(1e11, 8e12)),
                ),
                says="compare the three entries with the spec, one by one",
            ),
        ),
        hints=(
            "An MBU above 1 is impossible here. Which factor in the bytes is too large for this model?",
            "Three lines are wrong: the time of a step, the heads that are cached, the peak.",
            "`step = np.mean(seconds)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
    ),
    Exercise(
        id="roofline.falsify",
        lab=LAB,
        title="Refute it with one operating point",
        asked="Somebody says: with about 156 sequences decode on an A100 is compute-bound. Agree?",
        spec="Write `counterexample(model, claimed, peak, bandwidth, bytes_per_weight)`: the claim is that `claimed` "
        "or more sequences make every decode step compute-bound. Return a tuple **(batch, context)** of integers that "
        "refutes it: at least `claimed` sequences, a context from 1 to `model.context` tokens, and an intensity of the "
        "whole step below peak / bandwidth. Return `None` if the claim holds for this model on this device. Cached "
        "elements have 2 bytes. Any counterexample counts.",
        reference=ref.counterexample,
        stages=(
            refutes(LLAMA2_70B, 156, *A100_BF16, 2),
            refutes(LLAMA2_70B, 4000, *A100_BF16, 2),
            refutes(LLAMA2_70B, 156, *LAPTOP_FP32, 4),
            refutes(LLAMA2_70B, 156, *H100_BF16, 2),
            refutes(LLAMA2_70B, 40, *A100_BF16, 0.5),
            refutes(LLAMA3, 300, *A100_BF16, 2),
            refutes(LLAMA2_70B, 10_000, 109.67e12, 1e12, 2),  # only the longest context refutes, by 0.01 FLOP/B
            refutes(MISTRAL, 20, 7.3e11, 1e11, 4),  # from 9,041 tokens on; its context ends at 32,768
            refutes(LLAMA2_70B, 100, *A100_BF16, 0.5),  # a cache of 0.5 bytes an element would bear the claim out
            refutes(LLAMA2_70B, 10, 5.00005e11, 1e11, 4),  # attention is above the ridge: only L = 1 refutes
            refutes(LLAMA2_70B, 10_000, 107e12, 1e12, 2),  # holds, thanks to attention's FLOP: 109.7, not 101.7
            refutes(MISTRAL, 20, *LAPTOP_FP32, 4),
            refutes(SMOLLM2, 12, *LAPTOP_FP32, 4),
        ),
        hints=(
            "Below the claimed batch nothing can be refuted. Which side of the operating point is left to choose?",
            "The intensity of the whole step either falls or rises with the context all the way: test 1 token and the "
            "longest context, at exactly the claimed batch.",
            "`for context in (1, model.context):`",
        ),
        difficulty=3,
        importance=3,
        minutes=(8, 12),
        seconds=20.0,
    ),
)
