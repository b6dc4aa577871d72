"""Wrong answers to the warm-up lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

import numpy as np

from labcore.learn.labs.lab00 import broken_kv_gigabytes
from tests.mutants.registry import mutant

GB, GIB = 10**9, 2**30


@mutant("units.room", says="the card is in GiB, 2**30 bytes each")
def card_in_decimal(card_gib, weights_gb):
    return (card_gib - weights_gb) * 1e9


@mutant("units.room", says="the weights are in GB, 10**9 bytes each")
def weights_in_binary(card_gib, weights_gb):
    return (card_gib - weights_gb) * 1024**3


@mutant("units.room", says="that is in GB, and bytes are asked for")
def answers_in_gigabytes(card_gib, weights_gb):
    return card_gib * GIB / GB - weights_gb


@mutant("units.room", says="do not cut it off at zero")
def hides_the_deficit(card_gib, weights_gb):
    return max(0, card_gib * GIB - weights_gb * GB)


@mutant("units.room", says="expected")
def rounds_the_card(card_gib, weights_gb):
    return card_gib * 1.07e9 - weights_gb * GB


@mutant("units.send", says="the link counts bits and you count bytes")
def forgets_the_bits(num_bytes, gigabits_per_second):
    return num_bytes / (gigabits_per_second * GB)


@mutant("units.send", says="bytes become bits by multiplying with 8")
def divides_by_eight(num_bytes, gigabits_per_second):
    return num_bytes / 8 / (gigabits_per_second * GB)


@mutant("units.send", says="link rates are decimal")
def binary_link(num_bytes, gigabits_per_second):
    return num_bytes * 8 / (gigabits_per_second * GIB)


@mutant("units.send", says="that is in milliseconds")
def milliseconds(num_bytes, gigabits_per_second):
    return 1000 * num_bytes * 8 / (gigabits_per_second * GB)


@mutant("units.send", says="a time is an amount over a rate")
def rate_over_amount(num_bytes, gigabits_per_second):
    return gigabits_per_second * GB / (num_bytes * 8)


@mutant("units.mean_tpot", says="average the times, not the rates")
def reciprocal_of_the_mean(tokens_per_second):
    return 1 / sum(tokens_per_second) * len(tokens_per_second)


@mutant("units.mean_tpot", says="that is in milliseconds")
def tpot_in_milliseconds(tokens_per_second):
    return float(np.mean(1e3 / tokens_per_second))


@mutant("units.mean_tpot", says="that is a rate in tokens/s")
def harmonic_mean(tokens_per_second):
    return len(tokens_per_second) / np.sum(1 / tokens_per_second)


@mutant("units.mean_tpot", says="that is a median")
def median_time(tokens_per_second):
    return float(np.median(1 / tokens_per_second))


@mutant("units.mean_tpot", says="returned an array of shape")
def forgets_to_average(tokens_per_second):
    return 1 / np.tile(tokens_per_second, 8)


@mutant("units.mean_tpot", says="in place")
def overwrites_the_rates(tokens_per_second):
    np.reciprocal(tokens_per_second, out=tokens_per_second)
    return float(tokens_per_second.mean())


@mutant("units.log_axis", says="that is a linear axis")
def linear_axis(low, high, fraction):
    return low + (high - low) * fraction


@mutant("units.log_axis", says="the axis starts at low, not at 1")
def starts_at_one(low, high, fraction):
    return 10 ** (np.log10(high) * fraction)


@mutant("units.log_axis", says="counts from the right tick")
def from_the_right(low, high, fraction):
    return high / (high / low) ** fraction


@mutant("units.log_axis", says="that is the logarithm of the value")
def leaves_the_logarithm(low, high, fraction):
    return (1 - fraction) * np.log10(low) + fraction * np.log10(high)


@mutant("units.log_axis", says="equal steps on a logarithmic axis are equal factors")
def always_the_geometric_mean_of_decades(low, high, fraction):
    return 10 ** round(np.log10(low) + fraction * np.log10(high / low))


@mutant("units.ridge", says="a sparse peak is twice the dense one")
def believes_the_sparse_peak(tflops, gigabytes_per_second, sparse):
    return tflops * 1000 / gigabytes_per_second


@mutant("units.ridge", says="leaves a factor of 1000")
def loses_the_prefix(tflops, gigabytes_per_second, sparse):
    return tflops / (2 if sparse else 1) / gigabytes_per_second


@mutant("units.ridge", says="upside down")
def upside_down(tflops, gigabytes_per_second, sparse):
    return gigabytes_per_second / (1000 * tflops / (1 + sparse))


@mutant("units.ridge", says="halves a peak that is dense already")
def always_halves(tflops, gigabytes_per_second, sparse):
    return tflops * 500 / gigabytes_per_second


@mutant("units.ridge", says="bandwidth is decimal")
def binary_bandwidth(tflops, gigabytes_per_second, sparse):
    return tflops / (1 + sparse) * 1e12 / (gigabytes_per_second * GIB)


@mutant("units.kv_debug", says="once per KV head, not per query head")
def only_the_unit_mended(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    return 2 * n_layers * n_heads * head_dim * 2 * tokens / 1e9


@mutant("units.kv_debug", says="that is GiB; the name promises GB")
def only_the_heads_mended(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    return 2 * n_layers * n_kv_heads * head_dim * 2 * tokens / 1024**3


@mutant("units.kv_debug", says="both a key and a value are stored")
def keys_alone(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    return n_layers * n_kv_heads * head_dim * 2 * tokens / 1e9


@mutant("units.kv_debug", says="every layer has its own cache")
def one_layer(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    return 2 * n_kv_heads * head_dim * 2 * tokens / 1e9


@mutant("units.kv_debug", says="expected")
def rescales_the_broken_one(n_layers, n_heads, n_kv_heads, head_dim, tokens):
    return broken_kv_gigabytes(n_layers, n_heads, n_kv_heads, head_dim, tokens) / 8


@mutant("units.falsify", says="published figures are rounded; compare within 2 %")
def wants_it_exact(claimed, peak, bandwidth):
    names = {1.0: "right", 2.0: "sparse peak", 8.0: "bits for bytes"}
    return names.get(claimed / (peak / bandwidth), "something else")


@mutant("units.falsify", says="compare the double within 2 % too")
def rounds_only_the_right_one(claimed, peak, bandwidth):
    ratio = claimed / (peak / bandwidth)
    if abs(ratio - 1) < 0.02:
        return "right"
    return {2.0: "sparse peak", 8.0: "bits for bytes"}.get(ratio, "something else")


@mutant("units.falsify", says="half the ridge is not a doubled peak")
def ignores_the_direction(claimed, peak, bandwidth):
    ratio = claimed / (peak / bandwidth)
    ratio = max(ratio, 1 / ratio)
    near = [n for f, n in ((1, "right"), (2, "sparse peak"), (8, "bits for bytes")) if abs(ratio / f - 1) <= 0.02]
    return near[0] if near else "something else"


@mutant("units.falsify", says="2 % is relative")
def within_six_flop_per_byte(claimed, peak, bandwidth):
    true = peak / bandwidth
    for factor, name in ((1, "right"), (2, "sparse peak"), (8, "bits for bytes")):
        if abs(claimed - factor * true) <= 6:
            return name
    return "something else"


@mutant("units.falsify", says="halfway between right and double is neither")
def rounds_to_the_nearest(claimed, peak, bandwidth):
    ratio = claimed / (peak / bandwidth)
    nearest = min((1, 2, 8, 0.1), key=lambda factor: abs(ratio - factor))
    return {1: "right", 2: "sparse peak", 8: "bits for bytes"}.get(nearest, "something else")


def _nearly(ratio, tolerance):
    for factor, name in ((1, "right"), (2, "sparse peak"), (8, "bits for bytes")):
        if abs(ratio / factor - 1) <= tolerance:
            return name
    return "something else"


@mutant("units.falsify", says="2.5 % off is more than rounding")
def allows_three_percent(claimed, peak, bandwidth):
    return _nearly(claimed / (peak / bandwidth), 0.03)


@mutant("units.falsify", says="1.9 % off is still rounding")
def allows_one_and_a_half_percent(claimed, peak, bandwidth):
    return _nearly(claimed / (peak / bandwidth), 0.0185)


@mutant("units.falsify", says="expected text")
def answers_yes_or_no(claimed, peak, bandwidth):
    return abs(claimed / (peak / bandwidth) - 1) <= 0.02


@mutant("units.falsify", says="a ridge is seldom a whole number")
def rounds_the_ridge(claimed, peak, bandwidth):
    return _nearly(claimed / round(peak / bandwidth), 0.02)


@mutant("units.falsify", says="each of the three factors has its own 2 %")
def seven_times_is_bits_for_bytes(claimed, peak, bandwidth):
    ratio = claimed / (peak / bandwidth)
    return "bits for bytes" if 6.86 <= ratio <= 8.16 else _nearly(ratio, 0.02)
