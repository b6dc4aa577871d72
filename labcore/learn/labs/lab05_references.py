"""Reference answers of lab 5: functions of `labcore.quant` and `labcore.formats`, in the shapes the lab asks for."""

from __future__ import annotations

import torch

from labcore.formats import nf4
from labcore.formulas import formula
from labcore.learn.labs.lab05_tools import nearest, row_grid, upper_factor
from labcore.quant.awq import awq_search
from labcore.quant.evaluate import Interval
from labcore.quant.gptq import gptq
from labcore.quant.llm_int8 import llm_int8, quantize_rows
from labcore.quant.rtn import choose_grid, quantize_weight
from labcore.quant.spec import QuantSpec


def scale_and_zero(w, bits):
    """Scale and integer zero, [...] each, of groups w [..., group]; 0 is on the grid."""
    return choose_grid(w, QuantSpec(bits))


def round_to_nearest(w, bits, group):
    """(ŵ [out, in], bits a weight with an fp16 scale and a packed zero for each group)."""
    bits_per_weight = formula["kv.quant_effective_bits"](bits=bits, b_scale=16, b_zero=bits, G=group)
    return quantize_weight(w, QuantSpec(bits, group)).dequantize(), bits_per_weight


def obs_step(w, inverse, q, rounded):
    """(the row after w[q] became `rounded` and the others made up for it, what that cost)."""
    error = w[q] - rounded
    return w - error / inverse[q, q] * inverse[q], float(error**2 / (2 * inverse[q, q]))


def gptq_columns(w, h, bits):
    """(ŵ [out, in], loss) of GPTQ with one grid a row; h is damped already."""
    result = gptq(w, h, QuantSpec(bits), damp=0.0)
    return result.weight.dequantize(), result.loss


def gptq_blocked(w, h, bits, block):
    """The same in blocks of columns."""
    result = gptq(w, h, QuantSpec(bits), damp=0.0, block=block)
    return result.weight.dequantize(), result.loss


def broken_gptq_blocked(w, h, bits, block):
    found, u, loss = w.clone(), upper_factor(h), 0.0
    scale, zero = row_grid(w, bits)
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        live, errors = found[:, start:end].clone(), torch.zeros_like(w[:, start:end])
        for i in range(end - start):
            found[:, start + i] = nearest(live[:, i], scale, zero, bits)
            errors[:, i] = (live[:, i] - found[:, start + i]) / u[i, i]
            live[:, i:] -= errors[:, i, None] * u[start + i, start + i : end]
        found[:, end:] -= errors @ u[start:end, end:]
        loss += float(errors.square().sum() / 2)
    return found, loss


def search_scale(w, x, bits, group, grid):
    """(α, scale [in]) with the smallest output error on x."""
    found = awq_search([w], x.abs().mean(0), x, QuantSpec(bits, group), grid)
    return found.alpha, found.scale


def int8_linear(x, w, threshold):
    """x Wᵀ with 8-bit rows of x and W; columns of x that reach the threshold stay in float."""
    return llm_int8(x, quantize_rows(w), threshold)


def nf4_block(x, levels):
    """(bytes of two codes each, the earlier in the high half; absmax) of one block."""
    stored = nf4.quantize(x, block=len(x))
    return stored.packed, float(stored.absmax[0])


def decide(exact, quantized, most):
    """(ratio of the perplexities, low, high, whether all of the 95 % interval is at most `most`)."""
    ratio = Interval.of(quantized - exact).exp()
    return ratio.value, ratio.low, ratio.high, ratio.high <= most
