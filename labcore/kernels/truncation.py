"""top-k and top-p without sorting: a search for the smallest logit that is kept, in one read of the row or a few.

Both keep the likeliest tokens down to some logit t, and whether enough are kept falls monotonically with t: count(t),
the tokens at or above t, must reach k; mass(t), their probability, must reach p of the mass that top-k leaves. So t is
bracketed. One read gives each lane of the program its three largest logits; the k-th largest of the lanes' maxima is a
lower bound, and a tight one. Where no lane has three at or above it, as is usual for a small k, all that can be kept is
in registers by then, and nothing is read again. Else every round reads the row. A round measures three thresholds
inside the bracket, until one token, or a group of equals, is left in it. Of equals at the boundary those with the
smaller index are kept, as a stable sort would, so what is kept is one (threshold, last index) per row.

A search instead of a sort is what production samplers do as well: FlashInfer by rejection, Qrita (arXiv:2602.01518) by
pivots. The sort it replaces moves each row some ten times. top-p: Holtzman et al., arXiv:1904.09751.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.kernels._compat import capability, choose
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.online_softmax import TO_BASE_2
from labcore.kernels.softmax import check_logits, per_row

STAGES = tl.constexpr(8)  # tiles on their way from memory while one is counted: a row is read by one program alone

LARGEST = tl.constexpr(3.3895314e38)  # of bf16's finite numbers

ZERO_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}  # at the end of such a number as float32


def kept_reference(logits: Tensor, top_k: Tensor, top_p: Tensor, temperature: Tensor) -> Tensor:
    """The specification, by sorting: bool [rows, vocab]. A token is kept if fewer than k, and less than p of the
    probability that top-k leaves, come before it in a stable descending sort."""
    vocab = logits.shape[1]
    finite = logits.double().masked_fill(logits.isnan(), -torch.inf).clamp(max=LARGEST.value)  # inf - inf is NaN
    scaled = finite / temperature.where(temperature > 0, 1)[:, None]
    ordered, order = scaled.sort(stable=True, dim=-1, descending=True)
    limit = top_k.where((top_k > 0) & (top_k < vocab), vocab)[:, None]
    mass = (ordered - ordered[:, :1]).exp().masked_fill(torch.arange(vocab, device=logits.device) >= limit, 0)
    before = mass.cumsum(-1) - mass
    keep = (torch.arange(vocab, device=logits.device) < limit) & (
        (before < top_p.double()[:, None] * mass.sum(-1, keepdim=True)) | (top_p >= 1)[:, None]
    )
    return torch.zeros_like(keep).scatter_(1, order, keep)


# [book: kept]
@triton.jit
def kept(x, token, threshold, last):
    """Whether top-k and top-p keep logits x of the tokens `token`: above the threshold, or at it and early enough."""
    return (x > threshold) | ((x == threshold) & (token <= last))


@triton.jit
def without_nan(x):
    """fp32 logits x with NaN as -inf, and +inf as LARGEST, since inf - inf would be NaN again."""
    return tl.minimum(tl.where(x == x, x, float("-inf")), LARGEST)


@triton.jit
def _key(x, LOW: tl.constexpr):
    """An int32 that orders as the fp32 numbers x do. LOW: last bits of x, 0 because it was bf16 (16) or fp16 (13)."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)  # -0 + 0 = 0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> LOW


@triton.jit
def _number(key, LOW: tl.constexpr):
    """The fp32 number whose `_key` is key (int64)."""
    bits = (key << LOW).to(tl.int32)
    return tl.where(bits < 0, (bits | ((1 << LOW) - 1)) ^ 0x7FFFFFFF, bits).to(tl.float32, bitcast=True)


@triton.jit
def _load(row_ptr, start, vocab, LOW: tl.constexpr, BLOCK: tl.constexpr):
    """fp32 logits of the next BLOCK tokens (`without_nan`), their keys, their indices.

    Past the vocabulary the logit is -inf and the key below all others.
    """
    token = start + tl.arange(0, BLOCK)
    x = tl.load(row_ptr + token, mask=token < vocab, other=float("-inf")).to(tl.float32)
    x = without_nan(x)
    return x, tl.where(token < vocab, _key(x, LOW), -2147483648), token


# [/book]


# [book: bracket]
@triton.jit
def _measure(row_ptr, vocab, peak, scale, p0, p1, p2, LOW: tl.constexpr, BLOCK: tl.constexpr):
    """How many tokens have a key of at least p0, p1, p2, and their weight exp((x - peak) / temperature)."""
    n0, n1, n2 = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
    w0, w1, w2 = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
        x, key, _ = _load(row_ptr, start, vocab, LOW, BLOCK)
        weight = tl.exp2((x - peak) * scale)
        n0, w0 = n0 + (key >= p0), w0 + tl.where(key >= p0, weight, 0.0)
        n1, w1 = n1 + (key >= p1), w1 + tl.where(key >= p1, weight, 0.0)
        n2, w2 = n2 + (key >= p2), w2 + tl.where(key >= p2, weight, 0.0)
    return tl.sum(n0, 0), tl.sum(n1, 0), tl.sum(n2, 0), tl.sum(w0, 0), tl.sum(w1, 0), tl.sum(w2, 0)


@triton.jit
def _measure_lanes(first, second, peak, scale, p0, p1, p2, LOW: tl.constexpr):
    """The same of keys that are in registers, two a lane."""
    w, v = tl.exp2((_number(first, LOW) - peak) * scale), tl.exp2((_number(second, LOW) - peak) * scale)
    n0 = tl.sum((first >= p0).to(tl.int32) + (second >= p0).to(tl.int32), 0)
    n1 = tl.sum((first >= p1).to(tl.int32) + (second >= p1).to(tl.int32), 0)
    n2 = tl.sum((first >= p2).to(tl.int32) + (second >= p2).to(tl.int32), 0)
    w0 = tl.sum(tl.where(first >= p0, w, 0.0) + tl.where(second >= p0, v, 0.0), 0)
    w1 = tl.sum(tl.where(first >= p1, w, 0.0) + tl.where(second >= p1, v, 0.0), 0)
    w2 = tl.sum(tl.where(first >= p2, w, 0.0) + tl.where(second >= p2, v, 0.0), 0)
    return n0, n1, n2, w0, w1, w2


@triton.jit
def _narrow(bracket, pivot, n, w, count, mass):
    """The bracket (low, what it keeps, high, what it keeps) after one measurement, of n tokens with weight w at pivot.

    Enough is kept at low, too little at high: between them lies the threshold.
    """
    low, n_low, w_low, high, n_high, w_high = bracket
    enough = (n >= count) & (w >= mass)
    up, down = enough & (pivot > low), (enough == 0) & (pivot < high)
    low, n_low, w_low = tl.where(up, pivot, low), tl.where(up, n, n_low), tl.where(up, w, w_low)
    high, n_high, w_high = tl.where(down, pivot, high), tl.where(down, n, n_high), tl.where(down, w, w_high)
    return low, n_low, w_low, high, n_high, w_high


@triton.jit
def _search(
    bracket, row_ptr, vocab, first, second, held, peak, scale, count, mass, LOW: tl.constexpr, BLOCK: tl.constexpr
):
    """Narrow the bracket to the largest key that keeps at least `count` tokens and weight `mass`: until it holds one
    token, or one key, or low keeps exactly `count`.

    The first pivot halves the range of keys, so there are at most 32 rounds; the others cut the range of values into
    thirds, so there are seldom more than a few.
    """
    low, n_low, w_low, high, n_high, w_high = bracket
    while (high - low > 1) & (n_low - n_high > 1) & (n_low > count):
        bottom, top = tl.maximum(_number(low, LOW), -LARGEST), _number(high - 1, LOW)
        a = (low + high) >> 1
        b = tl.minimum(tl.maximum(_key(bottom * 0.6666667 + top * 0.3333333, LOW).to(tl.int64), low + 1), high - 1)
        c = tl.minimum(tl.maximum(_key(bottom * 0.3333333 + top * 0.6666667, LOW).to(tl.int64), low + 1), high - 1)
        if held:
            na, nb, nc, wa, wb, wc = _measure_lanes(first, second, peak, scale, a, b, c, LOW)
        else:
            na, nb, nc, wa, wb, wc = _measure(row_ptr, vocab, peak, scale, a, b, c, LOW, BLOCK)
        bracket = _narrow((low, n_low, w_low, high, n_high, w_high), a, na, wa, count, mass)
        bracket = _narrow(bracket, b, nb, wb, count, mass)
        low, n_low, w_low, high, n_high, w_high = _narrow(bracket, c, nc, wc, count, mass)
    return low, n_low, w_low, high, n_high, w_high


@triton.jit
def _taken(count, mass, n_low, w_low, n_high, w_high):
    """How many of the n_low - n_high tokens in a final bracket, equals if there are several, are kept; their weight."""
    there = n_low - n_high
    each = (w_low - w_high) / there
    by_mass = tl.ceil(tl.maximum(mass - w_high, 0.0) / tl.maximum(each, 1e-30))
    taken = tl.minimum(tl.maximum(tl.minimum(by_mass, there).to(tl.int32), tl.maximum(count - n_high, 1)), there)
    return taken, tl.where(taken == there, w_low - w_high, taken * each)


# [/book]


@triton.jit
def _kth_largest(keys, k):
    """The largest number that at least k of `keys` reach; k is at most their number."""
    low, high = tl.min(keys, 0).to(tl.int64), tl.max(keys, 0).to(tl.int64) + 1
    while high - low > 1:
        middle = (low + high) >> 1
        enough = tl.sum((keys >= middle).to(tl.int32), 0) >= k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low


@triton.jit
def _place(row_ptr, vocab, low, high, n, LOW: tl.constexpr, BLOCK: tl.constexpr):
    """The index of the n-th token, in order of the vocabulary, whose key is in [low, high)."""
    place, seen = vocab, 0
    for start in range(0, vocab, BLOCK):
        _, key, token = _load(row_ptr, start, vocab, LOW, BLOCK)
        inside = ((key >= low) & (key < high)).to(tl.int32)
        order = seen + tl.cumsum(inside, 0)
        place = tl.minimum(place, tl.min(tl.where((inside == 1) & (order == n), token, vocab), 0))
        seen += tl.sum(inside, 0)
    return place


@triton.jit
def _threshold_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, threshold_ptr, last_ptr, vocab, stride,
    LOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program `row`: top-k's threshold, then top-p's within what top-k keeps."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * stride
    k, p, temperature = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(temperature_ptr + row)
    temperature = tl.where(temperature > 0, temperature, 1.0)
    scale = TO_BASE_2 / temperature
    limited = (k > 0) & (k < vocab)
    threshold, last = float("-inf"), vocab
    if limited | (p < 1.0):
        first = tl.full([BLOCK], -2147483648, tl.int32)  # the three largest keys of every lane
        second, third = first, first
        for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
            _, key, _ = _load(row_ptr, start, vocab, LOW, BLOCK)
            first, key = tl.maximum(first, key), tl.minimum(first, key)
            second, key = tl.maximum(second, key), tl.minimum(second, key)
            third = tl.maximum(third, key)
        best = tl.max(first, 0).to(tl.int64)
        peak = _number(best, LOW)
        peak = tl.where(peak == float("-inf"), 0.0, peak)
        # A key that surely keeps enough: all below it have too little weight together, or k lanes reach it.
        floor = _key(peak * 0 + float("-inf"), LOW).to(tl.int64)
        bound = _key(peak - temperature * tl.log(vocab / tl.maximum(1.0 - p, 1e-7)), LOW).to(tl.int64)
        held = limited & (k <= BLOCK)
        if limited:
            bound = floor
            if k <= BLOCK:
                bound = tl.maximum(_kth_largest(first, k), floor)
                held = tl.max(third, 0) < bound  # then all that can be kept is in first and second
        if held:
            n_all, n, _, w_all, w, _ = _measure_lanes(first, second, peak, scale, bound, bound, bound, LOW)
            floor = bound
        else:
            n_all, n, _, w_all, w, _ = _measure(row_ptr, vocab, peak, scale, floor, bound, bound, LOW, BLOCK)
        count, mass = tl.where(limited, k, 0), tl.where(limited, -1.0, p * w_all)
        bracket = floor, n_all, w_all, best + 1, n_all * 0, w_all * 0
        bracket = _narrow(bracket, bound, n, w, count, mass)
        low, n_low, w_low, high, n_high, w_high = _search(
            bracket, row_ptr, vocab, first, second, held, peak, scale, count, mass, LOW, BLOCK
        )
        taken, weight = _taken(count, mass, n_low, w_low, n_high, w_high)
        split = taken < n_low - n_high  # of equals at the threshold, only the first are kept
        if limited & (p < 1.0):
            mass = p * (w_high + weight)
            bracket = low, n_high + taken, w_high + weight, best + 1, n_all * 0, w_all * 0
            low_p, n_low, w_low, high, n_high, w_high = _search(
                bracket, row_ptr, vocab, first, second, held, peak, scale, 0, mass, LOW, BLOCK
            )
            taken, weight = _taken(0, mass, n_low, w_low, n_high, w_high)
            split = (split & (low_p == low)) | (taken < n_low - n_high)
            low = low_p
        threshold = _number(low, LOW)
        if split:
            last = _place(row_ptr, vocab, low, high, taken, LOW, BLOCK)
    tl.store(threshold_ptr + row, threshold)
    tl.store(last_ptr + row, last)


@triton.jit
def _mask_kernel(logits_ptr, threshold_ptr, last_ptr, out_ptr, vocab, stride, BLOCK: tl.constexpr):
    """Program (row, block): -inf for what is cut off."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * stride + token, mask=token < vocab, other=0.0)
    keep = kept(x.to(tl.float32), token, tl.load(threshold_ptr + row), tl.load(last_ptr + row))
    tl.store(out_ptr + row * vocab + token, tl.where(keep, x, float("-inf")), mask=token < vocab)


Parameter = Tensor | float | int | None


def mask_top_k_top_p(
    logits: Tensor, top_k: Parameter, top_p: Parameter, temperature: Tensor | float = 1.0, *, backend: str = "auto"
) -> Tensor:
    """A copy of logits [rows, vocab] with -inf for what top-k and top-p cut off.

    Per row, a number for all or a tensor [rows]: top_k int32, 0 for no limit; top_p float32 in (0, 1], 1 for no limit,
    of the probability that top-k leaves; temperature float32 for top-p's probabilities, 0 standing for 1. Of equal
    logits the first are kept. Top-p sums float32, so a token within rounding of p may fall either way.
    """
    check_logits(logits)
    if choose(backend, logits, what="mask_top_k_top_p") == "torch":
        return logits.masked_fill(~kept_reference(logits, *_parameters(logits, top_k, top_p, temperature)), -torch.inf)
    threshold, last = thresholds(logits, temperature, top_k, top_p)
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if len(logits):
        launch = pick("mask", capability(logits.device))
        grid = (len(logits), triton.cdiv(logits.shape[1], launch["BLOCK"]))
        _mask_kernel[grid](logits, threshold, last, out, logits.shape[1], logits.stride(0), **launch)
    return out


def thresholds(
    logits: Tensor, temperature: Tensor | float, top_k: Parameter, top_p: Parameter
) -> tuple[Tensor, Tensor]:
    """What `kept` needs of every row, by Triton: the smallest logit kept, float32, and the last index kept of its
    equals, int32."""
    top_k, top_p, temperature = _parameters(logits, top_k, top_p, temperature)
    threshold = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    last = torch.empty(len(logits), dtype=torch.int32, device=logits.device)
    if len(logits):
        launch = pick("threshold", capability(logits.device))
        _threshold_kernel[len(logits),](
            logits, temperature, top_k, top_p, threshold, last, logits.shape[1], logits.stride(0),
            LOW=ZERO_BITS[logits.dtype], **launch,
        )  # fmt: skip
    return threshold, last


def _parameters(logits: Tensor, top_k: Parameter, top_p: Parameter, temperature: Tensor | float):
    return (
        per_row("top_k", 0 if top_k is None else top_k, logits, torch.int32),
        per_row("top_p", 1.0 if top_p is None else top_p, logits, torch.float32),
        per_row("temperature", temperature, logits, torch.float32),
    )


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    found = {"threshold_ptr": "*fp32", "last_ptr": "*i32", "vocab": "i32:16", "stride": "i32:16"}
    parameters = {"temperature_ptr": "*fp32", "top_k_ptr": "*i32", "top_p_ptr": "*fp32"}
    for kind, low in (("fp32", 0), ("fp16", 13) if cc < (8, 0) else ("bf16", 16)):
        types = found | {"logits_ptr": f"*{kind}"}
        for _, launch in rules("threshold", cc):
            yield Variant.of(f"threshold, {kind}", _threshold_kernel, types | parameters, launch, LOW=low)
        for _, launch in rules("mask", cc):
            yield Variant.of(f"mask, {kind}", _mask_kernel, types | {"out_ptr": f"*{kind}"}, launch)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for "threshold"."""
    for block, warps in ((1024, 8), (1024, 16), (2048, 8), (2048, 16)):
        yield {"BLOCK": block, "num_warps": warps, "num_stages": 1}
