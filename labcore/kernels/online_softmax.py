"""The three lines all attention kernels here share: softmax over a row that arrives in tiles.

A row keeps its running maximum m and running sum l; a tile of scores s moves both and says by how much what was
accumulated before shrinks:

    m' = max(m, max(s)),   p = exp(s - m'),   decay = exp(m - m'),   l' = decay · l + Σ p,   acc' = decay · acc + p · v

Inside, everything is in base 2 (the chip has an instruction for 2^x, none for e^x), so scores are multiplied by
`scale_log2` = scale · log2(e), in the same fused multiply-add that subtracts the maximum. A row that has seen no key
has m = -inf and l = 0; nothing here turns that into a NaN. Source: Milakov and Gimelshein, arXiv:1805.02867, algorithm
3; FlashAttention-2, arXiv:2307.08691, algorithm 1.
"""

import math

import triton
import triton.language as tl

LOG2_E = math.log2(math.e)
TO_BASE_2 = tl.constexpr(LOG2_E)  # the same for kernels


# [book: online-softmax]
@triton.jit
def online_softmax_step(scores, scale_log2, row_max, row_sum):
    """One tile of scores, fp32 [rows, keys], raw (not yet scaled; scale_log2 > 0), -inf where a key is not visible.

    row_max (base 2), row_sum: fp32 [rows]. Returns (weights [rows, keys], decay [rows], new row_max, new row_sum);
    the caller multiplies its accumulator by decay and adds weights · values.
    """
    new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
    shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # no key so far: -inf - (-inf) would be NaN
    weights = tl.exp2(scores * scale_log2 - shift[:, None])
    decay = tl.exp2(row_max - shift)
    return weights, decay, new_max, row_sum * decay + tl.sum(weights, 1)


@triton.jit
def finish_softmax(acc, row_max, row_sum):
    """Output fp32 [rows, D] and natural-log lse fp32 [rows]; a row that saw no key gives 0 and -inf."""
    row_sum = tl.where(row_sum > 0, row_sum, 1.0)
    return acc / row_sum[:, None], (row_max + tl.log2(row_sum)) * 0.6931471805599453  # · ln 2: from base 2 to e


# [/book]
