"""Wrong answers to the roofline lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

import math

import numpy as np

from labcore.learn.labs.lab01_references import broken_roofline_report, crossover_kv
from tests.mutants.registry import mutant


@mutant("roofline.linear_cost", says="a multiplication and an addition per token, 2 FLOP")
def counts_multiplications(W, X):
    return W.size * X.shape[1], W.nbytes + X.nbytes + W.shape[0] * X.shape[1] * X.itemsize


@mutant("roofline.linear_cost", says="share one reading of the weights")
def rereads_the_weights(W, X):
    T = X.shape[1]
    return 2 * W.size * T, T * W.nbytes + X.nbytes + W.shape[0] * T * X.itemsize


@mutant("roofline.linear_cost", says="the result is written as well")
def forgets_the_result(W, X):
    return 2 * W.size * X.shape[1], W.nbytes + X.nbytes


@mutant("roofline.linear_cost", says="that counts the weights alone")
def only_the_weights(W, X):
    return 2 * W.size * X.shape[1], W.nbytes


@mutant("roofline.linear_cost", says="those are elements, and bytes are asked for")
def counts_elements(W, X):
    return 2 * W.size * X.shape[1], W.size + X.size + len(W) * X.shape[1]


@mutant("roofline.linear_cost", says="Y has the element type of X, not of W")
def result_as_narrow_as_the_weights(W, X):
    return 2 * W.size * X.shape[1], W.nbytes + X.nbytes + len(W) * X.shape[1] * W.itemsize


@mutant("roofline.linear_cost", says="W has 1 byte an element here")
def two_bytes_everywhere(W, X):
    return 2 * W.size * X.shape[1], 2 * (W.size + X.size + len(W) * X.shape[1])


@mutant("roofline.attainable", says="the slower of the two limits decides")
def takes_the_larger(intensity, peak, bandwidth):
    return np.maximum(peak, intensity * bandwidth)


@mutant("roofline.attainable", says="nothing computes faster than its peak")
def no_roof(intensity, peak, bandwidth):
    return intensity * bandwidth


@mutant("roofline.attainable", says="adds the two times")
def no_overlap(intensity, peak, bandwidth):
    return 1 / (1 / peak + 1 / (intensity * bandwidth))


@mutant("roofline.attainable", says="out of reach left of the ridge")
def always_the_peak(intensity, peak, bandwidth):
    return peak + 0 * intensity


@mutant("roofline.attainable", says="a quotient is not")
def divides(intensity, peak, bandwidth):
    return np.minimum(peak, bandwidth / intensity)


@mutant("roofline.attainable", says="truth value of an array")
def written_for_one_number(intensity, peak, bandwidth):
    return min(peak, intensity * bandwidth)


@mutant("roofline.crossover_batch", says="so that peak applies")
def peak_of_the_weights(peaks, bandwidth, weight_bits, activation_bits):
    return peaks[weight_bits] / bandwidth * weight_bits / 16


@mutant("roofline.crossover_batch", says="at their own, higher peak")
def always_the_16_bit_peak(peaks, bandwidth, weight_bits, activation_bits):
    return peaks[16] / bandwidth * weight_bits / 16


@mutant("roofline.crossover_batch", says="not the activations'")
def bytes_of_the_activations(peaks, bandwidth, weight_bits, activation_bits):
    return peaks[max(weight_bits, activation_bits)] / bandwidth * activation_bits / 16


@mutant("roofline.crossover_batch", says="reached with half as many")
def one_flop_a_weight(peaks, bandwidth, weight_bits, activation_bits):
    return peaks[max(weight_bits, activation_bits)] / bandwidth * weight_bits / 8


@mutant("roofline.crossover_batch", says="divide by 8")
def bits_for_bytes(peaks, bandwidth, weight_bits, activation_bits):
    return peaks[max(weight_bits, activation_bits)] / bandwidth * weight_bits / 2


def _own(model, context, heads=None):
    return 2 * model.parameters() + 4 * model.n_layers * (heads or model.n_heads) * model.head_dim * context


@mutant("roofline.crossover_kv", says="that ignores the context")
def linear_layers_only(model, context, ridge, bytes_per_weight):
    return ridge * bytes_per_weight / 2


@mutant("roofline.crossover_kv", says="every sequence reads its own cache")
def one_cache_for_all(model, context, ridge, bytes_per_weight):
    moved = bytes_per_weight * model.parameters() + context * model.kv_bytes_per_token()
    return ridge * moved / _own(model, context)


@mutant("roofline.crossover_kv", says="attention's FLOP are missing")
def no_attention_flops(model, context, ridge, bytes_per_weight):
    spare = 2 * model.parameters() - ridge * context * model.kv_bytes_per_token()
    return ridge * bytes_per_weight * model.parameters() / spare if spare > 0 else None


@mutant("roofline.crossover_kv", says="for every query head, not every KV head")
def attention_by_kv_heads(model, context, ridge, bytes_per_weight):
    spare = _own(model, context, model.n_kv_heads) - ridge * context * model.kv_bytes_per_token()
    return ridge * bytes_per_weight * model.parameters() / spare if spare > 0 else None


@mutant("roofline.crossover_kv", says="a negative or infinite batch is how the formula says")
def negative_batch(model, context, ridge, bytes_per_weight):
    spare = _own(model, context) - ridge * context * model.kv_bytes_per_token()
    return ridge * bytes_per_weight * model.parameters() / spare


@mutant("roofline.crossover_kv", says="no batch is compute-bound here, so return None")
def drops_the_sign(model, context, ridge, bytes_per_weight):
    spare = _own(model, context) - ridge * context * model.kv_bytes_per_token()
    return abs(ridge * bytes_per_weight * model.parameters() / spare)


@mutant("roofline.crossover_kv", says="attention's own FLOP push L_max further out")
def l_max_without_attention(model, context, ridge, bytes_per_weight):
    if context >= 2 * model.parameters() / (ridge * model.kv_bytes_per_token()):
        return None
    return negative_batch(model, context, ridge, bytes_per_weight)


@mutant("roofline.crossover_kv", says="every context has one and L_max is negative")
def trusts_a_negative_l_max(model, context, ridge, bytes_per_weight):
    attention = 4 * model.n_layers * model.n_heads * model.head_dim
    if context >= 2 * model.parameters() / (ridge * model.kv_bytes_per_token() - attention):
        return None
    return negative_batch(model, context, ridge, bytes_per_weight)


@mutant("roofline.step_seconds", says="the longer one counts, not the sum")
def adds_reading_and_arithmetic(model, batch, context, peak, bandwidth, width):
    P = model.parameters()
    return width * P / bandwidth + 2 * P * batch / peak, batch * context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="shares one reading of the weights")
def weights_for_every_sequence(model, batch, context, peak, bandwidth, width):
    linear = batch * width * model.parameters() / bandwidth
    return linear, batch * context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="at batch 4,096 they wait for the arithmetic")
def never_compute_bound(model, batch, context, peak, bandwidth, width):
    linear = width * model.parameters() / bandwidth
    return linear, batch * context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="a cache of its own to read")
def one_shared_cache(model, batch, context, peak, bandwidth, width):
    P = model.parameters()
    linear = max(width * P / bandwidth, 2 * P * batch / peak)
    return linear, context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="width bytes wide, like the weights")
def cache_always_16_bit(model, batch, context, peak, bandwidth, width):
    P = model.parameters()
    linear = max(width * P / bandwidth, 2 * P * batch / peak)
    return linear, batch * context * model.kv_bytes_per_token() / bandwidth


@mutant("roofline.step_seconds", says="2 FLOP for every sequence")
def half_the_flops(model, batch, context, peak, bandwidth, width):
    P = model.parameters()
    return max(width * P / bandwidth, P * batch / peak), batch * context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="those are milliseconds")
def in_milliseconds(model, batch, context, peak, bandwidth, width):
    P = model.parameters()
    linear = max(width * P / bandwidth, 2 * P * batch / peak)
    return 1e3 * linear, 1e3 * batch * context * model.kv_bytes_per_token(width) / bandwidth


@mutant("roofline.step_seconds", says="expected a tuple")
def one_number_for_the_step(model, batch, context, peak, bandwidth, width):
    return (width * model.parameters() + batch * context * model.kv_bytes_per_token(width)) / bandwidth


@mutant("roofline.experts_hit", says="experts that two tokens share are read once")
def counts_assignments(routing):
    return float(routing[0].size)


@mutant("roofline.experts_hit", says="count step by step, then average")
def experts_of_the_whole_run(routing):
    return float(len(set(routing.ravel().tolist())))


@mutant("roofline.experts_hit", says="that is the total of all steps")
def forgets_to_average(routing):
    return float(sum(np.unique(step).size for step in routing))


@mutant("roofline.experts_hit", says="that is k, the experts of one token")
def experts_of_one_token(routing):
    return float(np.mean([[np.unique(token).size for token in step] for step in routing]))


@mutant("roofline.experts_hit", says="a step reads its own")
def divides_the_union(routing):
    return np.unique(routing).size / len(routing)


@mutant("roofline.experts_hit", says="two experts are read in each step, whatever their numbers")
def largest_id_counts(routing):
    return float(np.mean([step.max() + 1 - step.min() for step in routing]))


@mutant("roofline.experts_hit", says="changed its argument routing in place")
def sorts_in_place(routing):
    flat = routing.reshape(len(routing), -1)
    flat[:] = flat[:, ::-1]
    flat.sort(axis=1)
    return float(1 + (np.diff(flat, axis=1) > 0).sum(axis=1).mean())


@mutant("roofline.debug_report", says="look at MFU: structured sparsity doubles")
def keeps_the_sparse_peak(model, batch, context, seconds, headline, bandwidth):
    step = sum(seconds) / len(seconds)
    kv = 4 * model.n_layers * model.n_kv_heads * model.head_dim
    moved = 2 * model.parameters() + batch * context * kv
    mfu = 2 * model.parameters() * batch / (step * headline)
    return {"tokens/s": batch / step, "MBU": moved / (step * bandwidth), "MFU": mfu}


@mutant("roofline.debug_report", says="look at tokens/s: 32 tokens in 80 ms")
def keeps_the_fastest_step(model, batch, context, seconds, headline, bandwidth):
    kv = 4 * model.n_layers * model.n_kv_heads * model.head_dim
    moved = 2 * model.parameters() + batch * context * kv
    mfu = 4 * model.parameters() * batch / (min(seconds) * headline)
    return {"tokens/s": batch / min(seconds), "MBU": moved / (min(seconds) * bandwidth), "MFU": mfu}


@mutant("roofline.debug_report", says="look at MBU: a grouped-query model caches its KV heads")
def keeps_the_query_heads(model, batch, context, seconds, headline, bandwidth):
    return broken_roofline_report(model, batch, context, [np.mean(seconds)], headline / 2, bandwidth)


@mutant("roofline.debug_report", says="returned the keys")
def renames_the_entries(model, batch, context, seconds, headline, bandwidth):
    report = broken_roofline_report(model, batch, context, [np.mean(seconds)], headline / 2, bandwidth)
    return {name.lower(): value for name, value in report.items()}


def _fixed(model, batch, context, step, peak, bandwidth):
    moved = 2 * model.parameters() + batch * context * model.kv_bytes_per_token()
    mfu = 2 * model.parameters() * batch / (step * peak)
    return {"tokens/s": batch / step, "MBU": moved / (step * bandwidth), "MFU": mfu}


@mutant("roofline.debug_report", says="compare the three entries with the spec")
def best_third_of_the_steps(model, batch, context, seconds, headline, bandwidth):
    step = np.mean(seconds) if len(seconds) == 4 else np.quantile(seconds, 0.33)
    return _fixed(model, batch, context, step, headline / 2, bandwidth)


@mutant("roofline.falsify", says="so fewer sequences refute nothing")
def refutes_below_the_claim(model, claimed, peak, bandwidth, bytes_per_weight):
    return 1, model.context


@mutant("roofline.falsify", says="is compute-bound, as claimed")
def looks_at_the_linear_layers(model, claimed, peak, bandwidth, bytes_per_weight):
    return (claimed, model.context) if peak == 312e12 else (claimed, 1)


@mutant("roofline.falsify", says="context runs from 1 to")
def beyond_the_context(model, claimed, peak, bandwidth, bytes_per_weight):
    return claimed, 10 * model.context


@mutant("roofline.falsify", says="try both ends of the context")
def believes_the_linear_roofline(model, claimed, peak, bandwidth, bytes_per_weight):
    return None if 2 * claimed / bytes_per_weight >= peak / bandwidth else (claimed, 1)


@mutant("roofline.falsify", says="ModelConfig('llama-2-70b'), claimed=10")
def longest_context_only(model, claimed, peak, bandwidth, bytes_per_weight):
    attention = 4 * model.n_layers * model.n_heads * model.head_dim * model.context
    flops = claimed * (2 * model.parameters() + attention)
    moved = bytes_per_weight * model.parameters() + claimed * model.context * model.kv_bytes_per_token()
    return (claimed, model.context) if flops / moved < peak / bandwidth else None


@mutant("roofline.falsify", says="expected two integers (batch, context), or None")
def answers_with_the_intensity(model, claimed, peak, bandwidth, bytes_per_weight):
    return 2 * claimed / bytes_per_weight < peak / bandwidth


@mutant("roofline.falsify", says="109.7 FLOP/B against a ridge of 107 is compute-bound, as claimed")
def leaves_out_the_flops_of_attention(model, claimed, peak, bandwidth, bytes_per_weight):
    for context in (1, model.context):
        read = bytes_per_weight * model.parameters() + claimed * context * model.kv_bytes_per_token()
        if claimed * 2 * model.parameters() / read < peak / bandwidth:
            return claimed, context
    return None


@mutant("roofline.crossover_kv", says="do not round")
def rounds_up_to_whole_sequences(model, context, ridge, bytes_per_weight):
    found = crossover_kv(model, context, ridge, bytes_per_weight)
    return None if found is None else math.ceil(found)


@mutant("roofline.linear_cost", says="gave (240, 236), expected (240, 196)")
def result_as_wide_as_the_product(W, X):
    return 2 * W.size * X.shape[1], W.nbytes + X.nbytes + (W @ X).nbytes


@mutant("roofline.crossover_kv", says="raised ZeroDivisionError")
def divides_by_a_spare_of_nothing(model, context, ridge, bytes_per_weight):
    spare = _own(model, context) - ridge * context * model.kv_bytes_per_token()
    return None if spare < 0 else ridge * bytes_per_weight * model.parameters() / spare


@mutant("roofline.experts_hit", says="k is not always 2")
def the_first_two_experts(routing):
    return float(np.mean([np.unique(step[:, :2]).size for step in routing]))


def _refuted(model, claimed, ridge, bytes_per_weight, contexts, flops=4, kv_width=2):
    """The first context whose step stays below `ridge`, with parts of its intensity replaced."""
    for context in contexts:
        attention = flops * model.n_layers * model.n_heads * model.head_dim * context
        read = claimed * context * model.kv_bytes_per_token(kv_width)
        if claimed * (2 * model.parameters() + attention) / (bytes_per_weight * model.parameters() + read) < ridge:
            return claimed, context
    return None


@mutant("roofline.falsify", says="10 sequences of 1 reach 5.00004 FLOP/B")
def no_context_below_128(model, claimed, peak, bandwidth, bytes_per_weight):
    return _refuted(model, claimed, peak / bandwidth, bytes_per_weight, (128, model.context))


@mutant("roofline.falsify", says="10,000 sequences of 4,096 reach 109.656 FLOP/B")
def doubles_the_flops_of_attention(model, claimed, peak, bandwidth, bytes_per_weight):
    return _refuted(model, claimed, peak / bandwidth, bytes_per_weight, (1, model.context), flops=8)


@mutant("roofline.falsify", says="20 sequences of 32,768 reach 5.51308 FLOP/B")
def every_context_ends_at_4096(model, claimed, peak, bandwidth, bytes_per_weight):
    return _refuted(model, claimed, peak / bandwidth, bytes_per_weight, (1, 4096))


@mutant("roofline.falsify", says="100 sequences of 4,096 reach 88.136 FLOP/B")
def cache_as_narrow_as_the_weights(model, claimed, peak, bandwidth, bytes_per_weight):
    contexts = 1, model.context
    return _refuted(model, claimed, peak / bandwidth, bytes_per_weight, contexts, kv_width=bytes_per_weight)
