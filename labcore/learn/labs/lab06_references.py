"""Reference answers of lab 6: kernels as short as they can be and right everywhere.

Those of `labcore.kernels` compute the same faster; `tests/learn/test_lab06.py` holds one against the other.
"""

from __future__ import annotations

import numpy as np

# The tools choose Triton's interpreter, so they come before whatever imports Triton.
# isort: off
import torch
from labcore.learn.labs.lab06_tools import launch_row, nothing_written
from labcore.formulas import formula
import triton
import triton.language as tl

# isort: on


def absorb(m, l, acc, scores, values):
    """The state (m, l, acc [D]) of a row after one more tile: scores [keys], values [keys, D]."""
    new = torch.maximum(m, scores.max())
    if new == -torch.inf:
        return m, l, acc
    decay, weights = torch.exp(m - new), torch.exp(scores - new)
    return new, decay * l + weights.sum(), decay * acc + weights @ values


@triton.jit
def softmax_kernel(x_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    here = column < columns
    x = tl.load(x_ptr + row * columns + column, mask=here, other=float("-inf"))
    weights = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + row * columns + column, weights / tl.sum(weights, 0), mask=here)


def fused_softmax(x):
    """softmax of the rows of x [rows, columns], one program a row."""
    rows, columns = x.shape
    out = nothing_written(rows, columns)
    softmax_kernel[(rows,)](x, out, columns, BLOCK=triton.next_power_of_2(columns))
    return out


@triton.jit
def online_kernel(x_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0) * columns
    m, l = float("-inf"), 0.0
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row + column, mask=column < columns, other=float("-inf"))
        new = tl.maximum(m, tl.max(x, 0))
        l = l * tl.exp(m - new) + tl.sum(tl.exp(x - new), 0)
        m = new
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row + column, mask=column < columns, other=0.0)
        tl.store(out_ptr + row + column, tl.exp(x - m) / l, mask=column < columns)


def online_softmax(x, block):
    """The same, `block` columns at a time."""
    out = nothing_written(*x.shape)
    online_kernel[(len(x),)](x, out, x.shape[1], BLOCK=block)
    return out


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, queries, keys, scale, D: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    query, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    at, here = query[:, None] * D + column[None, :], (query < queries)[:, None]
    q = tl.load(q_ptr + at, mask=here, other=0.0) * scale
    m, l = tl.full([BLOCK], float("-inf"), tl.float32), tl.zeros([BLOCK], tl.float32)
    acc = tl.zeros([BLOCK, D], tl.float32)
    last = tl.minimum(keys, (tl.program_id(0) + 1) * BLOCK + keys - queries)  # no query of the tile sees more
    for start in range(0, last, BLOCK):
        key = start + tl.arange(0, BLOCK)
        from_k = key[:, None] * D + column[None, :]
        k = tl.load(k_ptr + from_k, mask=(key < keys)[:, None], other=0.0)
        v = tl.load(v_ptr + from_k, mask=(key < keys)[:, None], other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where(key[None, :] <= query[:, None] + keys - queries, s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        decay, p = tl.exp(m - new), tl.exp(s - new[:, None])
        m, l = new, l * decay + tl.sum(p, 1)
        acc = acc * decay[:, None] + tl.dot(p, v, input_precision="ieee")
    tl.store(o_ptr + at, acc / l[:, None], mask=here)
    tl.store(lse_ptr + query, m + tl.log(l), mask=query < queries)


def tiled_attention(q, k, v, block):
    """(o [queries, D], lse [queries]) of causal attention of one head; q are the last of the keys' positions."""
    queries, dim = q.shape
    o, lse = nothing_written(queries, dim), nothing_written(queries)
    tiles = triton.cdiv(queries, block)
    attention_kernel[(tiles,)](q, k, v, o, lse, queries, len(k), dim**-0.5, D=dim, BLOCK=block)
    return o, lse


def decode_row(q, k, v, tile):
    """softmax(k q / √D) v of one query, in tiles, and right where a tile is not full."""

    @triton.jit
    def kernel(q, k, v, out, n, scale, D: tl.constexpr, TILE: tl.constexpr):
        m, l, acc, column = float("-inf"), 0.0, tl.zeros([D], tl.float32), tl.arange(0, D)
        query = tl.load(q + column) * scale
        for start in range(0, n, TILE):
            key = start + tl.arange(0, TILE)
            at, here = key[:, None] * D + column[None, :], (key < n)[:, None]
            s = tl.sum(tl.load(k + at, mask=here, other=0.0) * query[None, :], 1)
            s = tl.where(key < n, s, float("-inf"))
            new = tl.maximum(m, tl.max(s, 0))
            w, decay = tl.exp(s - new), tl.exp(m - new)
            values = tl.sum(tl.load(v + at, mask=here, other=0.0) * w[:, None], 0)
            m, l, acc = new, l * decay + tl.sum(w, 0), acc * decay + values
        tl.store(out + column, acc / l)

    return launch_row(kernel, q, k, v, tile)


def broken_decode_row(q, k, v, tile):
    @triton.jit
    def kernel(q, k, v, out, n, scale, D: tl.constexpr, TILE: tl.constexpr):
        m, l, acc, column = float("-inf"), 0.0, tl.zeros([D], tl.float32), tl.arange(0, D)
        query = tl.load(q + column) * scale
        for start in range(0, n, TILE):
            key = start + tl.arange(0, TILE)
            at, here = key[:, None] * D + column[None, :], (key < n)[:, None]
            s = tl.sum(tl.load(k + at, mask=here, other=0.0) * query[None, :], 1)
            new = tl.maximum(m, tl.max(s, 0))
            w, decay = tl.exp(s - new), tl.exp(m - new)
            values = tl.sum(tl.load(v + at, mask=here, other=0.0) * w[:, None], 0)
            m, l, acc = new, l * decay + tl.sum(w, 0), acc * decay + values
        tl.store(out + column, acc / l)

    return launch_row(kernel, q, k, v, tile)


def merge(o, lse):
    """(o [D], lse) of attention over n sets of keys together, from o [n, D] and lse [n] of each, float64."""
    whole = lse.logsumexp(0)
    weights = torch.exp(lse - whole) if whole > -torch.inf else torch.zeros_like(lse)
    return weights @ torch.where(lse[:, None] > -torch.inf, o, 0.0), whole


@triton.jit
def paged_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, length_ptr, o_ptr, lse_ptr, width, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    request, head = tl.program_id(0), tl.program_id(1)
    kv_head, length = head // (HEADS // KV_HEADS), tl.load(length_ptr + request)
    column, offset = tl.arange(0, D), tl.arange(0, PAGE)
    row = request * HEADS + head
    q = tl.load(q_ptr + row * D + column) * scale
    m, l, acc = float("-inf"), 0.0, tl.zeros([D], tl.float32)
    for start in range(0, length, PAGE):
        page = tl.load(table_ptr + request * width + start // PAGE).to(tl.int64)
        at = ((page * PAGE + offset[:, None]) * KV_HEADS + kv_head) * D + column[None, :]
        here = start + offset < length
        k = tl.load(k_ptr + at, mask=here[:, None], other=0.0)
        v = tl.load(v_ptr + at, mask=here[:, None], other=0.0)
        s = tl.where(here, tl.sum(k * q[None, :], 1), float("-inf"))
        new = tl.maximum(m, tl.max(s, 0))
        p, decay = tl.exp(s - new), tl.exp(m - new)
        m, l, acc = new, l * decay + tl.sum(p, 0), acc * decay + tl.sum(p[:, None] * v, 0)
    l = tl.where(l > 0, l, 1.0)  # without keys m is still -inf, and so is lse
    tl.store(o_ptr + row * D + column, acc / l)
    tl.store(lse_ptr + row, m + tl.log(l))


def paged_decode(q, k_cache, v_cache, table, lengths):
    """(o [B, heads, D], lse [B, heads]) of the newest token of each request over its pages."""
    requests, heads, dim = q.shape
    o, lse = nothing_written(*q.shape), nothing_written(requests, heads)
    paged_kernel[(requests, heads)](
        q, k_cache, v_cache, table, lengths, o, lse, table.shape[1], dim**-0.5,
        HEADS=heads, KV_HEADS=k_cache.shape[2], PAGE=k_cache.shape[1], D=dim,
    )  # fmt: skip
    return o, lse


@triton.jit
def gemv_kernel(x_ptr, data_ptr, scale_ptr, y_ptr, outputs, inputs, GROUP: tl.constexpr):
    n, half = tl.program_id(0), tl.arange(0, GROUP // 2)
    y = 0.0
    for start in range(0, inputs, GROUP):
        byte = tl.load(data_ptr + n * (inputs // 2) + start // 2 + half)
        low, high = (byte & 15).to(tl.float32) - 8, (byte >> 4).to(tl.float32) - 8
        x_low, x_high = tl.load(x_ptr + start + half), tl.load(x_ptr + start + GROUP // 2 + half)
        scale = tl.load(scale_ptr + start // GROUP * outputs + n)
        y += scale * tl.sum(low * x_low + high * x_high, 0)
    tl.store(y_ptr + n, y)


def gemv4(x, data, scale, group):
    """y [outputs] = W x for x [inputs] and a 4-bit W: data uint8 [outputs, inputs/2], scale [inputs/group, outputs]."""
    y = nothing_written(len(data))
    gemv_kernel[(len(data),)](x, data, scale, y, len(data), len(x), GROUP=group)
    return y


def traffic(tokens, dim, tile):
    """HBM bytes of one head in fp16, unmasked: (with the scores written, in tiles of `tile` queries)."""
    shared = {"T": tokens, "L": tokens, "d_h": dim, "b_act": 2}
    standard = formula["attention.standard_io"](**shared)
    return int(standard), int(formula["attention.tiled_io"](**shared, B_r=tile, b_acc=4))


def split(programs, slots, most):
    """(splits, share of the slots that work until the last wave ends) by FlashAttention-3's rule."""
    waves = [programs * splits / slots for splits in range(1, most + 1)]
    # the share of the slots that work, for the last wave may be nearly empty
    working = [float(wave / np.ceil(wave)) for wave in waves]
    if programs >= 0.8 * slots:
        return 1, working[0]
    enough = next(place for place, share in enumerate(working) if share >= 0.85 * max(working))
    return enough + 1, working[enough]
