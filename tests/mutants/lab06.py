"""Wrong answers to the kernel lab that people give in earnest. Each must be rejected with its own sentence.

Most are the reference kernel with one line changed, run like the reader's own.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import re
import zlib

import torch

from labcore.learn.labs import lab06_references as ref
from labcore.learn.labs.lab06_attention import row_of
from labcore.learn.labs.lab06_cost import fill, moved, split_of
from labcore.learn.labs.lab06_states import absorbed, merged
from tests.mutants.registry import mutant


@functools.cache
def edited(name: str, *changes: tuple[str, str]):
    """The reference `name`, its kernel included, with texts replaced; each must occur."""
    function = getattr(ref, name)
    kernels = [getattr(ref, found) for found in re.findall(r"(\w+_kernel)\[", inspect.getsource(function))]
    text = "\n\n".join(inspect.getsource(one) for one in (*(kernel.fn for kernel in kernels), function))
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    file = f"<{name} edited {zlib.crc32(text.encode()):08x}>"  # compiled code names it: no quotation marks
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    namespace = dict(vars(ref))
    exec(compile(text, file, "exec"), namespace)
    return namespace[name]


# ---- one more tile ---------------------------------------------------------------------------------------------------


@mutant("kernels.absorb", says="l was summed against the old maximum")
def never_shrinks_l(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, decay_l=False)


@mutant("kernels.absorb", says="acc was summed against the old maximum, as l was")
def never_shrinks_acc(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, decay_acc=False)


@mutant("kernels.absorb", says="both sums were measured against the old maximum")
def shrinks_nothing(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, decay_l=False, decay_acc=False)


@mutant("kernels.absorb", says="so the old sums shrink")
def grows_the_old_sums(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, turned=-1)


@mutant("kernels.absorb", says="not of this tile")
def forgets_the_old_maximum(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, own=True)


@mutant("kernels.absorb", says="acc stays a sum")
def divides_in_every_tile(m, l, acc, scores, values):
    m, l, acc = absorbed(m, l, acc, scores, values)
    return m, l, acc / l


@mutant("kernels.absorb", says="nan")
def subtracts_infinities(m, l, acc, scores, values):
    return absorbed(m, l, acc, scores, values, guard=False)


# ---- a fused softmax -------------------------------------------------------------------------------------------------


@mutant("kernels.softmax", says="count as scores of 0")
def pads_with_zeros(x):
    return edited("fused_softmax", ('other=float("-inf")', "other=0.0"))(x)


@mutant("kernels.softmax", says="not divided by their sum")
def does_not_divide(x):
    return edited("fused_softmax", ("weights / tl.sum(weights, 0)", "weights"))(x)


@mutant("kernels.softmax", says="nan")
def does_not_shift(x):
    return edited("fused_softmax", ("tl.exp(x - tl.max(x, 0))", "tl.exp(x)"))(x)


@mutant("kernels.softmax", says="stored outside the output")
def stores_the_padding(x):
    return edited("fused_softmax", ("weights / tl.sum(weights, 0), mask=here", "weights / tl.sum(weights, 0)"))(x)


@mutant("kernels.softmax", says="every program works on row 0")
def reads_row_0(x):
    return edited("fused_softmax", ("x_ptr + row * columns + column", "x_ptr + column"))(x)


@mutant("kernels.softmax", says="left 6 of 6 numbers unwritten")
def stores_no_row(x):
    return edited("fused_softmax", ("tl.store(", "# tl.store("))(x)


@mutant("kernels.softmax", says="left 3 of 6 numbers unwritten")
def writes_only_row_0(x):
    return edited("fused_softmax", ("out_ptr + row * columns + column", "out_ptr + column"))(x)


@mutant("kernels.softmax", says="−10,000 is a score too")
def pads_with_minus_ten_thousand(x):
    return edited("fused_softmax", ('other=float("-inf")', "other=-1e4"))(x)


@mutant("kernels.softmax", says="softmax of the columns")
def normalizes_columns(x):
    return x.softmax(0)


# ---- a row that does not fit -----------------------------------------------------------------------------------------


@mutant("kernels.online", says="the sum so far has to shrink")
def never_shrinks_the_sum(x, block):
    return edited("online_softmax", ("l * tl.exp(m - new) +", "l +"))(x, block)


@mutant("kernels.online", says="count as scores of 0")
def pads_tiles_with_zeros(x, block):
    return edited("online_softmax", ('other=float("-inf")', "other=0.0"))(x, block)


@mutant("kernels.online", says="the loop ends before the last tile")
def sums_whole_tiles(x, block):
    first = 'm, l = float("-inf"), 0.0\n    for start in range(0, columns, BLOCK):'
    return edited("online_softmax", (first, first.replace("columns, BLOCK", "columns // BLOCK * BLOCK, BLOCK")))(
        x, block
    )


@mutant("kernels.online", says="nan among")
def keeps_the_last_maximum(x, block):
    return edited("online_softmax", ("new = tl.maximum(m, tl.max(x, 0))", "new = tl.max(x, 0)"))(x, block)


@mutant("kernels.online", says="nan among 3 elements")
def begins_at_a_maximum_of_minus_ten_thousand(x, block):
    return edited("online_softmax", ('m, l = float("-inf"), 0.0', "m, l = -1e4, 0.0"))(x, block)


@mutant("kernels.online", says="stored outside the output")
def stores_past_the_last_tile(x, block):
    return edited("online_softmax", ("tl.exp(x - m) / l, mask=column < columns", "tl.exp(x - m) / l"))(x, block)


@mutant("kernels.online", says="not divided by the sum")
def does_not_divide_the_row(x, block):
    return edited("online_softmax", ("tl.exp(x - m) / l", "tl.exp(x - m)"))(x, block)


@mutant("kernels.online", says="each tile got a softmax of its own")
def normalizes_tile_by_tile(x, block):
    return torch.cat([tile.softmax(1) for tile in x.split(block, 1)], 1)


# ---- attention in tiles ----------------------------------------------------------------------------------------------


@mutant("kernels.tiled", says="not divided by √D")
def does_not_scale(q, k, v, block):
    return edited("tiled_attention", ("other=0.0) * scale", "other=0.0)"))(q, k, v, block)


@mutant("kernels.tiled", says="by √D, not by D")
def scales_by_d(q, k, v, block):
    return edited("tiled_attention", ("dim**-0.5", "1 / dim"))(q, k, v, block)


@mutant("kernels.tiled", says="the causal mask is missing")
def masks_only_the_end(q, k, v, block):
    change = ("key[None, :] <= query[:, None] + keys - queries", "key[None, :] < keys + 0 * query[:, None]")
    return edited("tiled_attention", change, ("+ keys - queries)  # no", "+ keys)  # no"))(q, k, v, block)


@mutant("kernels.tiled", says="the queries are the last positions")
def masks_from_the_top_left(q, k, v, block):
    return edited("tiled_attention", ("query[:, None] + keys - queries,", "query[:, None],"))(q, k, v, block)


@mutant("kernels.tiled", says="lse is in base 2")
def has_lse_in_base_2(q, k, v, block):
    o, lse = ref.tiled_attention(q, k, v, block)
    return o, lse / torch.log(torch.tensor(2.0))


@mutant("kernels.tiled", says="not the maximum alone")
def returns_the_maximum(q, k, v, block):
    return edited("tiled_attention", ("m + tl.log(l)", "m"))(q, k, v, block)


@mutant("kernels.tiled", says="a query sees its own position too")
def does_not_see_itself(q, k, v, block):
    return edited("tiled_attention", ("key[None, :] <= query", "key[None, :] < query"))(q, k, v, block)


@mutant("kernels.tiled", says="a few queries behind many keys")
def reads_one_tile_of_keys(q, k, v, block):
    return edited("tiled_attention", ("range(0, last, BLOCK)", "range(0, tl.minimum(last, 2 * BLOCK), BLOCK)"))(
        q, k, v, block
    )


@mutant("kernels.tiled", says="acc was summed against the old maximum")
def never_shrinks_the_accumulator(q, k, v, block):
    return edited("tiled_attention", ("acc * decay[:, None]", "acc"))(q, k, v, block)


@mutant("kernels.tiled", says="l was summed against the old maximum")
def never_shrinks_the_weights(q, k, v, block):
    return edited("tiled_attention", ("l * decay + tl", "l + tl"))(q, k, v, block)


@mutant("kernels.tiled", says="not divided by l")
def does_not_divide_the_accumulator(q, k, v, block):
    return edited("tiled_attention", ("acc / l[:, None]", "acc"))(q, k, v, block)


@mutant("kernels.tiled", says="l was measured against m")
def forgets_the_maximum_in_lse(q, k, v, block):
    return edited("tiled_attention", ("m + tl.log(l)", "tl.log(l)"))(q, k, v, block)


@mutant("kernels.tiled", says="the loop ends too early")
def stops_at_its_own_tile(q, k, v, block):
    return edited("tiled_attention", ("BLOCK + keys - queries)  # no", "BLOCK)  # no"))(q, k, v, block)


@mutant("kernels.tiled", says="the maximum of nothing is −inf")
def begins_at_a_maximum_of_zero(q, k, v, block):
    return edited("tiled_attention", ('tl.full([BLOCK], float("-inf"), tl.float32)', "tl.zeros([BLOCK], tl.float32)"))(
        q, k, v, block
    )


@mutant("kernels.tiled", says="stored outside the output")
def stores_queries_that_are_not_there(q, k, v, block):
    return edited("tiled_attention", ("acc / l[:, None], mask=here", "acc / l[:, None]"))(q, k, v, block)


# ---- right at 4096, wrong at 4097 ------------------------------------------------------------------------------------


@mutant("kernels.tail", says="such a lane must score −inf")
def still_hears_the_missing_keys(q, k, v, tile):
    return row_of(q, k, v, tile)


@mutant("kernels.tail", says="which is not full, were dropped")
def drops_the_last_tile(q, k, v, tile):
    return row_of(q, k, v, tile, floor=True)


@mutant("kernels.tail", says="counts once for every lane")
def repeats_the_last_key(q, k, v, tile):
    return edited(
        "decode_row", ("key = start + tl.arange(0, TILE)", "key = tl.minimum(start + tl.arange(0, TILE), n - 1)")
    )(q, k, v, tile)


@mutant("kernels.tail", says="put −inf into the scores")
def puts_infinity_into_k(q, k, v, tile):
    masked = '            s = tl.where(key < n, s, float("-inf"))\n'
    filled = "k + at, mask=here, other=0.0", 'k + at, mask=here, other=float("-inf")'
    return edited("decode_row", filled, (masked, ""))(q, k, v, tile)


@mutant("kernels.tail", says="−10,000 is a score too")
def masks_with_minus_ten_thousand(q, k, v, tile):
    return edited("decode_row", ('tl.where(key < n, s, float("-inf"))', "tl.where(key < n, s, -1e4)"))(q, k, v, tile)


@mutant("kernels.tail", says="what else is in the maximum")
def masks_after_the_maximum(q, k, v, tile):
    masked, weights = (
        '            s = tl.where(key < n, s, float("-inf"))\n',
        "w, decay = tl.exp(s - new), tl.exp(m - new)",
    )
    late = f"{weights}\n            w = tl.where(key < n, w, 0.0)"
    return edited("decode_row", (masked, ""), (weights, late))(q, k, v, tile)


# ---- parts put together ----------------------------------------------------------------------------------------------


@mutant("kernels.merge", says="the parts do not count alike")
def averages(o, lse):
    return merged(o, lse, weigh=torch.ones_like, total=lambda lse: lse.logsumexp(0))


@mutant("kernels.merge", says="e, not 2, to its power")
def merges_in_base_2(o, lse):
    return merged(o, lse, base=2)


@mutant("kernels.merge", says="not the largest part's")
def keeps_the_largest_lse(o, lse):
    return merged(o, lse, total=lambda lse: lse.max())


@mutant("kernels.merge", says="that adds logarithms")
def adds_logarithms(o, lse):
    return merged(o, lse, total=lambda lse: lse.sum())


@mutant("kernels.merge", says="subtract the largest lse first")
def overflows(o, lse):
    return merged(o, lse, shift=False)


@mutant("kernels.merge", says="divide by the sum of the weights")
def does_not_normalize(o, lse):
    return torch.exp(lse - lse.max()) @ o, lse.logsumexp(0)


@mutant("kernels.merge", says="float64 allows 1e-12")
def merges_in_float32(o, lse):
    merged, whole = ref.merge(o.float(), lse.float())
    return merged.double(), whole.double()


# ---- a page table ----------------------------------------------------------------------------------------------------


@mutant("kernels.paged", says="a page id counts pages")
def takes_a_page_for_a_slot(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("page * PAGE + offset", "page + offset"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="the table was not used")
def ignores_the_table(q, k_cache, v_cache, table, lengths):
    page = "tl.load(table_ptr + request * width + start // PAGE).to(tl.int64)"
    return edited("paged_decode", (page, "start // PAGE"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="every request read the table of request 0")
def reads_the_first_table(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("request * width + start", "start"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="neighbouring heads share a KV head")
def deals_the_heads_out(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("head // (HEADS // KV_HEADS)", "head % KV_HEADS"))(
        q, k_cache, v_cache, table, lengths
    )


@mutant("kernels.paged", says="all heads read KV head 0")
def has_one_kv_head(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("head // (HEADS // KV_HEADS)", "0"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="not divided by √D")
def does_not_scale_the_scores(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("column) * scale", "column)"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="slots past the last key count as scores of 0")
def hears_empty_slots(q, k_cache, v_cache, table, lengths):
    scores = 'tl.where(here, tl.sum(k * q[None, :], 1), float("-inf"))'
    return edited("paged_decode", (scores, "tl.sum(k * q[None, :], 1)"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="the last page, which is not full")
def drops_the_last_page(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("range(0, length, PAGE)", "range(0, length // PAGE * PAGE, PAGE)"))(
        q, k_cache, v_cache, table, lengths
    )


@mutant("kernels.paged", says="−10,000 is a score too")
def scores_minus_ten_thousand_behind_the_last_key(q, k_cache, v_cache, table, lengths):
    scores = 'tl.sum(k * q[None, :], 1), float("-inf"))', "tl.sum(k * q[None, :], 1), -1e4)"
    return edited("paged_decode", scores)(q, k_cache, v_cache, table, lengths)


@mutant("kernels.paged", says="the maximum of nothing is −inf")
def begins_at_a_maximum_above_all(q, k_cache, v_cache, table, lengths):
    start = 'm, l, acc = float("-inf"), 0.0', "m, l, acc = -1e4, 0.0"
    o, lse = edited("paged_decode", start)(q, k_cache, v_cache, table, lengths)
    return o, lse.masked_fill(lengths[:, None] == 0, -torch.inf)


@mutant("kernels.paged", says="lse is in base 2")
def has_lse_of_pages_in_base_2(q, k_cache, v_cache, table, lengths):
    o, lse = ref.paged_decode(q, k_cache, v_cache, table, lengths)
    return o, lse * 1.4426950408889634


@mutant("kernels.paged", says="nan among 16 elements")
def multiplies_nan_by_zero(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("v_ptr + at, mask=here[:, None], other=0.0", "v_ptr + at"))(
        q, k_cache, v_cache, table, lengths
    )


@mutant("kernels.paged", says="nan among 32 elements")
def divides_zero_by_zero(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("tl.where(l > 0, l, 1.0)", "l"))(q, k_cache, v_cache, table, lengths)


# ---- two weights in a byte -------------------------------------------------------------------------------------------


@mutant("kernels.gemv", says="the halves of the byte are swapped")
def swaps_the_nibbles(x, data, scale, group):
    return edited("gemv4", ("low, high = (", "high, low = ("))(x, data, scale, group)


@mutant("kernels.gemv", says="the high half is weight j + group/2")
def takes_nibbles_for_neighbours(x, data, scale, group):
    here = "tl.load(x_ptr + start + half), tl.load(x_ptr + start + GROUP // 2 + half)"
    there = "tl.load(x_ptr + start + 2 * half), tl.load(x_ptr + start + 2 * half + 1)"
    return edited("gemv4", (here, there))(x, data, scale, group)


@mutant("kernels.gemv", says="neighbours, and the high half first")
def takes_nibbles_for_swapped_neighbours(x, data, scale, group):
    here = "tl.load(x_ptr + start + half), tl.load(x_ptr + start + GROUP // 2 + half)"
    there = "tl.load(x_ptr + start + 2 * half + 1), tl.load(x_ptr + start + 2 * half)"
    return edited("gemv4", (here, there))(x, data, scale, group)


@mutant("kernels.gemv", says="a code stands for code − 8")
def forgets_the_zero(x, data, scale, group):
    return edited("gemv4", (".to(tl.float32) - 8", ".to(tl.float32)"))(x, data, scale, group)


@mutant("kernels.gemv", says="7 − 8 is 255 in uint8")
def subtracts_in_uint8(x, data, scale, group):
    late = "(byte & 15).to(tl.float32) - 8, (byte >> 4).to(tl.float32) - 8"
    return edited("gemv4", (late, "(byte & 15) - 8, (byte >> 4) - 8"))(x, data, scale, group)


@mutant("kernels.gemv", says="only the last group counts")
def keeps_the_last_group(x, data, scale, group):
    return edited("gemv4", ("y += scale", "y = scale"))(x, data, scale, group)


@mutant("kernels.gemv", says="the scale of group 0")
def scales_by_the_first_group(x, data, scale, group):
    return edited("gemv4", ("start // GROUP * outputs + n", "n"))(x, data, scale, group)


@mutant("kernels.gemv", says="the scale is missing")
def forgets_the_scale(x, data, scale, group):
    return edited("gemv4", ("y += scale * tl.sum", "y += tl.sum"))(x, data, scale, group)


@mutant("kernels.gemv", says="the scale of group g and output n")
def has_the_scales_transposed(x, data, scale, group):
    return edited("gemv4", ("start // GROUP * outputs + n", "n * (inputs // GROUP) + start // GROUP"))(
        x, data, scale, group
    )


# ---- on paper --------------------------------------------------------------------------------------------------------


@mutant("kernels.traffic", says="scores and probabilities are written and read")
def writes_the_scores_once(tokens, dim, tile):
    return moved(tokens, dim, tile, passes=2)


@mutant("kernels.traffic", says="each of them is moved twice")
def moves_the_square_once(tokens, dim, tile):
    return moved(tokens, dim, tile, passes=1)


@mutant("kernels.traffic", says="reads all keys and values again")
def reads_the_keys_once(tokens, dim, tile):
    return moved(tokens, dim, tile, once=True)


@mutant("kernels.traffic", says="round up")
def forgets_the_last_tile(tokens, dim, tile):
    return moved(tokens, dim, tile, up=False)


@mutant("kernels.traffic", says="two bytes")
def counts_numbers(tokens, dim, tile):
    return moved(tokens, dim, tile, bytes_each=1)


@mutant("kernels.traffic", says="the lse is written as well")
def forgets_the_lse(tokens, dim, tile):
    return moved(tokens, dim, tile, lse=False)


@mutant("kernels.split", says="not the best")
def takes_the_best(programs, slots, most):
    return split_of(programs, slots, most, best=True)


@mutant("kernels.split", says="no split at all from 80 %")
def always_splits(programs, slots, most):
    return split_of(programs, slots, most, early=False)


@mutant("kernels.split", says="a last wave that is part full")
def has_no_waves(programs, slots, most):
    return split_of(programs, slots, most, ceiling=False)


@mutant("kernels.split", says="`most` is allowed too")
def stops_before_most(programs, slots, most):
    return split_of(programs, slots, most, most_too=False)


@mutant("kernels.split", says="counted from 1")
def counts_from_0(programs, slots, most):
    splits, share = ref.split(programs, slots, most)
    return splits - 1, share


@mutant("kernels.split", says="a second, nearly empty wave")
def fills_every_slot(programs, slots, most):
    return fill(programs, slots, most)


@mutant("kernels.absorb", says="of this tile one key is masked")
def skips_a_tile_with_a_masked_key(m, l, acc, scores, values):
    return (m, l, acc) if (scores == -torch.inf).any() else absorbed(m, l, acc, scores, values)


@mutant("kernels.absorb", says="what was seen before stays")
def forgets_everything_at_a_masked_tile(m, l, acc, scores, values):
    if scores.max() == -torch.inf:
        return scores.max(), torch.zeros_like(l), torch.zeros_like(acc)
    return absorbed(m, l, acc, scores, values)


@mutant("kernels.merge", says="0 · ∞ is NaN")
def looks_for_nan_instead_of_empty_parts(o, lse):
    return lse.softmax(0).nan_to_num() @ torch.where(o.isnan(), 0.0, o), lse.logsumexp(0)


@mutant("kernels.merge", says="subtract the largest lse, no other")
def subtracts_the_first_lse(o, lse):
    first = lse[0] if lse[0] > -torch.inf else torch.where(lse.max() > -torch.inf, lse.max(), 0.0)
    weights, o = torch.exp(lse - first), torch.where(lse[:, None] > -torch.inf, o, 0.0)
    return weights @ o / torch.where(weights.sum() > 0, weights.sum(), 1.0), first + torch.log(weights.sum())


@mutant("kernels.merge", says="a part with lse −30,000 has keys")
def takes_minus_ten_thousand_for_nothing(o, lse):
    got, whole = merged(o, lse)
    return (got if lse.max() > -1e4 else torch.zeros_like(got)), whole


@mutant("kernels.softmax", says="BLOCK is the next power of two of the row")
def has_a_constant_block(x):
    return edited("fused_softmax", ("triton.next_power_of_2(columns)", "1024"))(x)


@mutant("kernels.softmax", says="what some masks write")
def pads_with_the_lowest_float(x):
    return edited("fused_softmax", ('other=float("-inf")', "other=-3.4028234663852886e38"))(x)


@mutant("kernels.online", says="what some masks write")
def begins_at_a_maximum_of_minus_1e30(x, block):
    return edited("online_softmax", ('m, l = float("-inf"), 0.0', "m, l = -1e30, 0.0"))(x, block)


@mutant("kernels.tiled", says="and never falls again")
def keeps_the_maximum_of_the_last_tile(q, k, v, block):
    return edited("tiled_attention", ("tl.maximum(m, tl.max(s, 1))", "tl.max(s, 1)"))(q, k, v, block)


@mutant("kernels.tiled", says="query 15, the last of the first tile, sees key 32")
def stops_one_key_early(q, k, v, block):
    return edited("tiled_attention", ("keys - queries)  # no", "keys - queries - 1)  # no"))(q, k, v, block)


@mutant("kernels.tiled", says="yet their program read on")
def goes_through_all_keys(q, k, v, block):
    return edited("tiled_attention", ("range(0, last, BLOCK)", "range(0, keys, BLOCK)"))(q, k, v, block)


@mutant("kernels.tail", says="returned None")
def returns_nothing(q, k, v, tile):
    edited("decode_row", ("key < n", "key < n"))(q, k, v, tile)


@mutant("kernels.paged", says="request · heads + head")
def counts_rows_in_kv_heads(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("request * HEADS + head", "request * KV_HEADS + head"))(
        q, k_cache, v_cache, table, lengths
    )


@mutant("kernels.paged", says="three heads share a KV head")
def divides_by_the_kv_heads(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("head // (HEADS // KV_HEADS)", "head // KV_HEADS"))(
        q, k_cache, v_cache, table, lengths
    )


@mutant("kernels.paged", says="and never falls again")
def keeps_the_maximum_of_the_last_page(q, k_cache, v_cache, table, lengths):
    return edited("paged_decode", ("tl.maximum(m, tl.max(s, 0))", "tl.max(s, 0)"))(q, k_cache, v_cache, table, lengths)


@mutant("kernels.gemv", says="groups of 64")
def knows_groups_of_32_alone(x, data, scale, group):
    return edited("gemv4", ("tl.arange(0, GROUP // 2)", "tl.arange(0, 16)"), ("start + GROUP // 2", "start + 16"))(
        x, data, scale, group
    )


@mutant("kernels.gemv", says="returned shape (2,), expected (3,)")
def makes_an_output_for_each_group(x, data, scale, group):
    return edited("gemv4", ("nothing_written(len(data))", "nothing_written(len(scale))"))(x, data, scale, group)


@mutant("kernels.split", says="would cost more than it wins")
def splits_at_80_percent(programs, slots, most):
    return split_of(programs, slots, most, early=programs > 0.8 * slots)


@mutant("kernels.split", says="at least 0.85 is enough")
def wants_more_than_85_percent(programs, slots, most):
    waves = [programs * splits / slots for splits in range(1, most + 1)]
    shares = [wave / -(-wave // 1) for wave in waves]
    at = next(i for i, share in enumerate(shares) if share > 0.85 * max(shares))
    return split_of(programs, slots, most, early=True) if programs >= 0.8 * slots else (at + 1, shares[at])
