"""What lab 1 asks for, solved: the roofline of a decode step, counted, predicted and defended.

P, κ (KV bytes per token), B, L and b_w mean what they mean in `labcore.formulas`; models are `facts.ModelConfig`.
Sources: Williams, Waterman and Patterson (CACM 52(4), 2009); Pope et al. (arXiv:2211.05102), section 2.
"""

from __future__ import annotations

import numpy as np


def linear_cost(W, X):
    """FLOP and bytes (two integers) of Y = W @ X, for W [d_out, d_in] and X [d_in, T]; Y has X's element type.

    One multiplication and one addition per weight and token; W and X are read once, Y is written once.
    """
    d_out, d_in = W.shape
    tokens = X.shape[1]
    flops = 2 * d_out * d_in * tokens
    return flops, W.nbytes + X.nbytes + d_out * tokens * X.itemsize


def attainable(intensity, peak, bandwidth):
    """FLOP/s that work of `intensity` FLOP/B, float64[N], can reach on `peak` FLOP/s and `bandwidth` B/s."""
    return np.minimum(peak, intensity * bandwidth)


def crossover_batch(peaks, bandwidth, weight_bits, activation_bits):
    """Sequences at which linear layers become compute-bound; `peaks` maps a width in bits to its dense FLOP/s.

    The product runs in the wider of the two formats, the memory traffic in the weights' own.
    """
    ridge = peaks[max(weight_bits, activation_bits)] / bandwidth
    return ridge * (weight_bits / 8) / 2


def crossover_kv(model, context, ridge, bytes_per_weight):
    """Sequences at which a whole decode step reaches `ridge` FLOP/B at `context` tokens each; None if none do."""
    own_flops = 2 * model.parameters() + 4 * model.n_layers * model.n_heads * model.head_dim * context
    own_bytes = context * model.kv_bytes_per_token()
    spare = own_flops - ridge * own_bytes  # what a sequence adds beyond the FLOP that its own bytes give time for
    return ridge * bytes_per_weight * model.parameters() / spare if spare > 0 else None


def step_seconds(model, batch, context, peak, bandwidth, width):
    """Seconds of a decode step's (linear layers, attention), `width` bytes per weight and cached element.

    Linear layers overlap reading and arithmetic; attention, which runs after them, takes as long as its KV reads.
    """
    weights = model.parameters()
    linear = max(width * weights / bandwidth, 2 * weights * batch / peak)
    attention = batch * context * model.kv_bytes_per_token(width) / bandwidth
    return linear, attention


def experts_hit(routing):
    """Mean number of distinct experts that a step reads; `routing` is int64[steps, B, k], the experts of each token."""
    return float(np.mean([np.unique(step).size for step in routing]))


def broken_roofline_report(model, batch, context, seconds, headline, bandwidth):
    """Tokens/s, MBU and MFU of a run. It has three errors."""
    step = min(seconds)
    kv_per_token = 2 * model.n_layers * model.n_heads * model.head_dim * 2
    moved = 2 * model.parameters() + batch * context * kv_per_token
    flops = 2 * model.parameters() * batch
    return {
        "tokens/s": batch / step,
        "MBU": moved / (step * bandwidth),
        "MFU": flops / (step * headline),
    }


def roofline_report(model, batch, context, seconds, headline, bandwidth):
    """Tokens/s, MBU and MFU of a run of decode steps that took `seconds`, float64[N]; 16-bit weights and cache.

    Every step gives each of `batch` sequences one token at `context` tokens of context (the mean over the run).
    `headline` is the datasheet's FLOP/s with 2:4 structured sparsity, twice the dense peak.
    """
    step = np.mean(seconds)  # all tokens over all the time that passed
    kv_per_token = 2 * model.n_layers * model.n_kv_heads * model.head_dim * 2
    moved = 2 * model.parameters() + batch * context * kv_per_token
    flops = 2 * model.parameters() * batch
    return {
        "tokens/s": batch / step,
        "MBU": moved / (step * bandwidth),
        "MFU": flops / (step * headline / 2),
    }


def step_intensity(model, batch, context, bytes_per_weight):
    """FLOP/B of a whole decode step: every weight once, every sequence's cache once."""
    flops = batch * (2 * model.parameters() + 4 * model.n_layers * model.n_heads * model.head_dim * context)
    moved = bytes_per_weight * model.parameters() + batch * context * model.kv_bytes_per_token()
    return flops / moved


def counterexample(model, claimed, peak, bandwidth, bytes_per_weight):
    """A (batch, context) that refutes "`claimed` sequences or more are compute-bound", or None if the claim holds.

    The context runs from 1 token to `model.context`. Intensity rises with the batch, so `claimed` is the hardest
    case, and it is monotonic in the context, so its minimum lies at one end.
    """
    for context in (1, model.context):
        if step_intensity(model, claimed, context, bytes_per_weight) < peak / bandwidth:
            return claimed, context
    return None
