"""Wrong answers to the quantization lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

import torch

from labcore.learn.labs import lab05_references as ref
from labcore.learn.labs.lab05_activations import int8_of, loudest, searched
from labcore.learn.labs.lab05_blocked import blocked_of
from labcore.learn.labs.lab05_grid import grid_of, one_grid, rtn_of, symmetric
from labcore.learn.labs.lab05_obs import columns_of, eliminated, step_of
from labcore.learn.labs.lab05_protocol import around_the_ratio, block_of, decision, ratio_of_means
from labcore.quant.gptq import layer_loss
from labcore.quant.obq import eliminate
from tests.mutants.registry import mutant

# ---- the grid --------------------------------------------------------------------------------------------------------


@mutant("quant.grid", says="16 levels have 15 steps")
def divides_by_the_number_of_levels(w, bits):
    return grid_of(w, bits, levels=lambda bits: 2**bits)


@mutant("quant.grid", says="0 has to be on the grid")
def takes_the_range_as_it_is(w, bits):
    return grid_of(w, bits, zeroed=False)


@mutant("quant.grid", says="so it has to be rounded")
def keeps_a_float_zero(w, bits):
    return grid_of(w, bits, whole=lambda zero: zero)


@mutant("quant.grid", says="not floor")
def floors_the_zero(w, bits):
    return grid_of(w, bits, whole=torch.floor)


@mutant("quant.grid", says="code 0 stands for the minimum")
def has_the_zero_upside_down(w, bits):
    return grid_of(w, bits, sign=1)


@mutant("quant.grid", says="takes a half to the even number")
def rounds_halves_up(w, bits):
    return grid_of(w, bits, whole=lambda zero: torch.floor(zero + 0.5))


@mutant("quant.grid", says="nan")
def divides_zero_by_zero(w, bits):
    return grid_of(w, bits, empty=False)


@mutant("quant.grid", says="that is the symmetric grid")
def is_symmetric(w, bits):
    return symmetric(w, bits)


@mutant("quant.grid", says="nothing is taken off the zero")
def has_signed_codes(w, bits):
    scale, zero = grid_of(w, bits)
    return scale, zero - 2 ** (bits - 1)


@mutant("quant.grid", says="each group has a scale and a zero of its own")
def has_one_grid_for_all_groups(w, bits):
    return one_grid(w, bits)


# ---- round to nearest ------------------------------------------------------------------------------------------------


@mutant("quant.rtn", says="clamp the code to 0")
def does_not_clamp(w, bits, group):
    return rtn_of(w, bits, group, clamp=False)


@mutant("quant.rtn", says="do not cut off")
def truncates(w, bits, group):
    return rtn_of(w, bits, group, to=torch.trunc)


@mutant("quant.rtn", says="the scales and zeros are stored too")
def counts_the_codes_alone(w, bits, group):
    return rtn_of(w, bits, group, cost=lambda bits, group: float(bits))


@mutant("quant.rtn", says="each group stores a zero as well")
def forgets_the_zero(w, bits, group):
    return rtn_of(w, bits, group, cost=lambda bits, group: bits + 16 / group)


@mutant("quant.rtn", says="it is packed into `bits` bits, not 16")
def stores_a_wide_zero(w, bits, group):
    return rtn_of(w, bits, group, cost=lambda bits, group: bits + 32 / group)


@mutant("quant.rtn", says="divide their bits by the group")
def counts_a_scale_for_every_weight(w, bits, group):
    return rtn_of(w, bits, group, cost=lambda bits, group: 2.0 * bits + 16)


@mutant("quant.rtn", says="each group has a scale and a zero of its own")
def shares_one_scale(w, bits, group):
    return rtn_of(w, bits, group, grid=one_grid)


@mutant("quant.rtn", says="take it off before you multiply")
def takes_the_zero_off_too_late(w, bits, group):
    return rtn_of(w, bits, group, back=lambda codes, scale, zero: scale * codes - zero)


# ---- one step --------------------------------------------------------------------------------------------------------


@mutant("quant.obs", says="the row moves by −e")
def moves_the_wrong_way(w, inverse, q, rounded):
    return step_of(w, inverse, q, rounded, sign=1)


@mutant("quant.obs", says="divide the shift by [H⁻¹]_qq")
def does_not_divide_the_shift(w, inverse, q, rounded):
    return step_of(w, inverse, q, rounded, share=False)


@mutant("quant.obs", says="the other weights stayed where they were")
def rounds_and_leaves_the_rest(w, inverse, q, rounded):
    return step_of(w, inverse, q, rounded, moves=False)


@mutant("quant.obs", says="half of e²/[H⁻¹]_qq")
def forgets_the_half(w, inverse, q, rounded):
    return step_of(w, inverse, q, rounded, half=1.0)


@mutant("quant.obs", says="divide the cost by [H⁻¹]_qq")
def counts_the_bare_error(w, inverse, q, rounded):
    return step_of(w, inverse, q, rounded, loss_share=False)


@mutant("quant.obs", says="is divided by it, not multiplied")
def multiplies_the_cost(w, inverse, q, rounded):
    row, _ = step_of(w, inverse, q, rounded)
    return row, float((w[q] - rounded) ** 2 * inverse[q, q] / 2)


@mutant("quant.obs", says="changed its argument w in place")
def works_in_place(w, inverse, q, rounded):
    error = w[q] - rounded
    w -= error / inverse[q, q] * inverse[q]
    return w, float(error**2 / (2 * inverse[q, q]))


# ---- elimination -----------------------------------------------------------------------------------------------------


@mutant("quant.eliminate", says="a part of an inverse is not the inverse of a part")
def only_blanks(inverse, q):
    return eliminated(inverse, q, subtract=False)


@mutant("quant.eliminate", says="divide the outer product")
def does_not_divide(inverse, q):
    return eliminated(inverse, q, divide=False)


@mutant("quant.eliminate", says="less can be made up for")
def adds(inverse, q):
    return eliminated(inverse, q, sign=1)


@mutant("quant.eliminate", says="entry (q, q) becomes 1")
def leaves_a_zero_to_divide_by(inverse, q):
    return eliminated(inverse, q, one=0.0)


@mutant("quant.eliminate", says="returned shape (1, 1)")
def makes_it_smaller(inverse, q):
    keep = torch.arange(len(inverse)) != q
    return eliminate(inverse, q)[keep][:, keep]


# ---- GPTQ ------------------------------------------------------------------------------------------------------------


@mutant("quant.gptq", says="that is round to nearest")
def takes_the_lower_factor(w, h, bits):
    return columns_of(w, h, bits, rows=lambda u, i: 0 * u[i, i:])


@mutant("quant.gptq", says="not of H")
def factors_the_hessian(w, h, bits):
    return columns_of(w, h, bits, factor=lambda h: torch.linalg.cholesky(h, upper=True))


@mutant("quant.gptq", says="already rounded, which cannot move any more")
def never_eliminates(w, h, bits):
    return columns_of(w, h, bits, factor=lambda h: h.inverse(), loss=lambda off, error: (off * error).sum() / 2)


@mutant("quant.gptq", says="before it is spread over U's row")
def spreads_the_bare_error(w, h, bits):
    return columns_of(w, h, bits, divide=False)


@mutant("quant.gptq", says="the objective has a ½")
def has_twice_the_loss(w, h, bits):
    return columns_of(w, h, bits, loss=lambda off, error: error.square().sum())


@mutant("quant.gptq", says="others have made up for a part")
def sums_the_bare_errors(w, h, bits):
    return columns_of(w, h, bits, loss=lambda off, error: off.square().sum() / 2)


@mutant("quant.gptq", says="the grid comes from the weights as they came")
def makes_a_new_grid_for_every_column(w, h, bits):
    return columns_of(w, h, bits, regrid=True)


@mutant("quant.gptq", says="that of the weight as it stands now")
def measures_against_the_original(w, h, bits):
    return columns_of(w, h, bits, moved=False)


@mutant("quant.gptq", says="not their mean")
def averages_the_rows(w, h, bits):
    return columns_of(w, h, bits, loss=lambda off, error: error.square().mean() / 2)


@mutant("quant.gptq", says="has become 0.4 + 0.36")
def adds_the_error(w, h, bits):
    return columns_of(w, h, bits, rows=lambda u, i: -u[i, i:])


# ---- blocks ----------------------------------------------------------------------------------------------------------


@mutant("quant.blocked", says="the divisor of column start + i is not U[i, i]")
def keeps_the_local_divisor(w, h, bits, block):
    return blocked_of(w, h, bits, block, pivot=1)


@mutant("quant.blocked", says="is that of column start + i, not of i")
def mends_the_divisor_and_breaks_the_row(w, h, bits, block):
    return blocked_of(w, h, bits, block, row=1)


@mutant("quant.blocked", says="that is the factor of another block")
def counts_both_from_the_block(w, h, bits, block):
    return blocked_of(w, h, bits, block, pivot=1, row=1)


@mutant("quant.blocked", says="takes rows start to end of U")
def passes_on_the_first_rows(w, h, bits, block):
    return blocked_of(w, h, bits, block, behind=1)


@mutant("quant.blocked", says="never hear of its errors")
def forgets_the_columns_behind(w, h, bits, block):
    return blocked_of(w, h, bits, block, lazy=False)


@mutant("quant.blocked", says="the weights are still the wrong ones")
def mends_the_report(w, h, bits, block):
    return blocked_of(w, h, bits, block, pivot=1, loss=layer_loss)


# ---- AWQ -------------------------------------------------------------------------------------------------------------


@mutant("quant.awq", says="divide by s behind the rounding")
def does_not_fold_back(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, back=False)


@mutant("quant.awq", says="the loss is that of the output")
def compares_the_weights(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, output=False)


@mutant("quant.awq", says="the maximum is SmoothQuant's")
def takes_the_maximum(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, size=loudest)


@mutant("quant.awq", says="divide s by √")
def does_not_centre(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, centred=False)


@mutant("quant.awq", says="i runs to grid − 1")
def tries_alpha_one(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, alphas=lambda grid: [step / grid for step in range(grid + 1)])


@mutant("quant.awq", says="i/(grid − 1) reaches it")
def spreads_alpha_up_to_one(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, alphas=lambda grid: [step / (grid - 1) for step in range(grid)])


@mutant("quant.awq", says="not the root of the mean square")
def takes_the_root_mean_square(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, size=lambda x: x.square().mean(0).sqrt())


@mutant("quant.awq", says="quantization needs finite numbers")
def has_no_floor(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, floor=0.0)


@mutant("quant.awq", says="the other way round")
def shrinks_the_loud_channels(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, sign=-1)


@mutant("quant.awq", says="a strictly smaller error only")
def keeps_the_last_of_several(w, x, bits, group, grid):
    return searched(w, x, bits, group, grid, first=False)


@mutant("quant.awq", says="look at s first")
def divides_the_scale_by_its_mean(w, x, bits, group, grid):
    alpha, scale = ref.search_scale(w, x, bits, group, grid)
    return alpha, scale / scale.mean()


# ---- outliers --------------------------------------------------------------------------------------------------------


@mutant("quant.outliers", says="still sets the step of its token")
def lets_the_outlier_set_the_step(x, w, threshold):
    return int8_of(x, w, threshold, own=False)


@mutant("quant.outliers", says="only 8-bit weights are stored")
def keeps_the_float_weights(x, w, threshold):
    return int8_of(x, w, threshold, float_w=True)


@mutant("quant.outliers", says="have to leave the integer product")
def splits_nothing(x, w, threshold):
    return int8_of(x, w, threshold, split=False)


@mutant("quant.outliers", says="nan")
def divides_by_an_empty_token(x, w, threshold):
    return int8_of(x, w, threshold, guard=False)


@mutant("quant.outliers", says="one step for each token")
def has_one_step_for_all(x, w, threshold):
    return int8_of(x, w, threshold, per_row=False)


@mutant("quant.outliers", says="symmetric codes reach 127")
def reaches_128(x, w, threshold):
    return int8_of(x, w, threshold, grid=128)


@mutant("quant.outliers", says="an integer product has no holes")
def removes_single_numbers(x, w, threshold):
    return int8_of(x, w, threshold, outlier=lambda x, threshold: x.abs() >= threshold)


@mutant("quant.outliers", says="reaching the threshold is enough")
def waits_until_it_is_passed(x, w, threshold):
    return int8_of(x, w, threshold, outlier=lambda x, threshold: (x.abs() > threshold).any(0))


@mutant("quant.outliers", says="|x|")
def looks_for_large_positive_numbers(x, w, threshold):
    return int8_of(x, w, threshold, outlier=lambda x, threshold: (x >= threshold).any(0))


@mutant("quant.outliers", says="do not cut off")
def cuts_the_codes_off(x, w, threshold):
    return int8_of(x, w, threshold, to=torch.trunc)


@mutant("quant.outliers", says="each row of w has a step of its own")
def has_one_step_for_the_weight(x, w, threshold):
    return int8_of(x, w, threshold, w_largest=lambda w, out: w.abs().amax())


@mutant("quant.outliers", says="comes from all columns")
def rounds_the_weight_without_the_outliers(x, w, threshold):
    return int8_of(x, w, threshold, w_largest=lambda w, out: w.masked_fill(out, 0).abs().amax(1, keepdim=True))


# ---- NF4 -------------------------------------------------------------------------------------------------------------


@mutant("quant.nf4", says="the halves are swapped")
def puts_the_earlier_code_low(x, levels):
    return block_of(x, levels, low_first=True)


@mutant("quant.nf4", says="is ggml's order")
def pairs_the_halves(x, levels):
    return block_of(x, levels, order="halves")


@mutant("quant.nf4", says="may be negative")
def takes_the_largest_number(x, levels):
    return block_of(x, levels, signed=True)


@mutant("quant.nf4", says="not the one below")
def takes_the_level_below(x, levels):
    return block_of(x, levels, below=True)


@mutant("quant.nf4", says="not the one above")
def takes_the_level_above(x, levels):
    return block_of(x, levels, above=True)


@mutant("quant.nf4", says="sixteen even steps")
def has_even_steps(x, levels):
    return block_of(x, levels, even=True)


@mutant("quant.nf4", says="a block of zeros must not become nan")
def divides_by_the_magnitude_of_nothing(x, levels):
    packed, largest = ref.nf4_block(x, levels)
    return (packed if largest else torch.zeros_like(packed)), largest


# ---- the verdict -----------------------------------------------------------------------------------------------------


@mutant("quant.decide", says="take the spread of the differences")
def does_not_pair(exact, quantized, most):
    return decision(exact, quantized, most, paired=False)


@mutant("quant.decide", says="√n times better than one window")
def takes_the_spread_of_one_window(exact, quantized, most):
    return decision(exact, quantized, most, root=False)


@mutant("quant.decide", says="divides by n − 1")
def divides_by_n(exact, quantized, most):
    return decision(exact, quantized, most, correct=0)


@mutant("quant.decide", says="is the logarithm of the ratio")
def forgets_the_exponential(exact, quantized, most):
    return decision(exact, quantized, most, exp=False)


@mutant("quant.decide", says="an upper end of exactly `most`")
def wants_less_than_the_bound(exact, quantized, most):
    *ends, _ = decision(exact, quantized, most)
    return *ends, ends[2] < most


@mutant("quant.decide", says="accept by the upper end")
def accepts_by_the_middle(exact, quantized, most):
    return decision(exact, quantized, most, by="value")


@mutant("quant.decide", says="whatever is not proven bad")
def accepts_the_doubtful(exact, quantized, most):
    return decision(exact, quantized, most, by="low")


@mutant("quant.decide", says="ruled by the hardest window")
def averages_perplexities(exact, quantized, most):
    return ratio_of_means(exact, quantized, most)


@mutant("quant.decide", says="its ratio is above 1")
def subtracts_the_wrong_way(exact, quantized, most):
    return decision(quantized, exact, most)


@mutant("quant.decide", says="is not symmetric")
def spreads_around_the_ratio(exact, quantized, most):
    return around_the_ratio(exact, quantized, most)


@mutant("quant.decide", says="within 1.96 standard errors")
def takes_two_standard_errors(exact, quantized, most):
    return decision(exact, quantized, most, z=2)


@mutant("quant.grid", says="returned shape (1, 3), expected (1, 2)")
def takes_axis_one_for_the_group(w, bits):
    low, high = w.amin(1).clamp(max=0), w.amax(1).clamp(min=0)
    nothing = low == high
    scale = (high.masked_fill(nothing, 1) - low.masked_fill(nothing, -1)) / (2**bits - 1)
    return scale, torch.round(-low.masked_fill(nothing, -1) / scale)


@mutant("quant.grid", says="so widen the range to 0")
def takes_equal_weights_for_none(w, bits):
    scale, zero = grid_of(w, bits)
    equal = w.amin(-1) == w.amax(-1)
    return scale.masked_fill(equal, 2 / (2**bits - 1)), zero.masked_fill(equal, 2 ** (bits - 1))


@mutant("quant.grid", says="small weights are no group of zeros")
def puts_a_floor_under_the_scale(w, bits):
    scale, _ = grid_of(w, bits)
    scale = scale.clamp(min=1e-5)
    low = w.amin(-1).clamp(max=0).masked_fill((w == 0).all(-1), -1)
    return scale, torch.round(-low / scale)


@mutant("quant.rtn", says="round(w/scale) comes first")
def rounds_behind_the_zero(w, bits, group):
    grouped = w.unflatten(1, (-1, group))
    scale, zero = (one[..., None] for one in grid_of(grouped, bits))
    codes = torch.round(grouped / scale + zero).clamp(0, 2**bits - 1)
    return (scale * (codes - zero)).flatten(1), bits + (16 + bits) / group


@mutant("quant.rtn", says="which int8 does not hold")
def keeps_codes_in_int8(w, bits, group):
    return rtn_of(w, bits, group, back=lambda codes, scale, zero: scale * (codes.to(torch.int8) - zero))


@mutant("quant.outliers", says="row 0 of w is all zeros")
def guards_the_tokens_alone(x, w, threshold):
    return int8_of(x, w, threshold) + 0 / w.abs().amax(1)


@mutant("quant.outliers", says="a token of small numbers is not empty")
def has_an_epsilon_in_the_step(x, w, threshold):
    rest = x.masked_fill((x.abs() >= threshold).any(0), 0)
    step = rest.abs().amax(1, keepdim=True).clamp(min=1e-5) / 127
    w8 = int8_of(torch.eye(len(w.T)).double(), w, 0.0).T
    return torch.round(rest / step) * step @ w8.T + (x - rest) @ w8.T


@mutant("quant.nf4", says="only a block of zeros is an exception")
def has_an_epsilon_in_the_magnitude(x, levels):
    largest = x.abs().max()
    codes = (x / largest.clamp(min=1e-8))[:, None].sub(levels).abs().argmin(1).to(torch.uint8)
    return codes[::2] << 4 | codes[1::2], float(largest)


@mutant("quant.decide", says="surely worse, by half a percent")
def rejects_whatever_is_surely_worse(exact, quantized, most):
    *ends, accepted = decision(exact, quantized, most)
    return *ends, accepted and not ends[1] > 1


@mutant("quant.decide", says="that the ratio might be below `most`")
def accepts_whatever_is_better_on_average(exact, quantized, most):
    *ends, accepted = decision(exact, quantized, most)
    return *ends, accepted or ends[0] <= 1
