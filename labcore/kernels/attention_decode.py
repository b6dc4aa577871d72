"""Attention of one new token per request over a paged cache, split along the sequence: Flash-Decoding.

One query per request is too little work to fill a GPU by heads alone: 8 KV heads keep 8 of 132 multiprocessors busy.
So the keys of a request are divided into shares that are attended to side by side, and a second, tiny kernel merges
what they found. A share's answer is a state: the output o over its keys and the log-sum-exp of its scores. Two states
merge into the state of both shares together, exactly and in any order, which is all that splitting needs.

All queries of a KV head are served by one program, so each key and value is read once. Only that matters here: with
4 FLOP to a byte the kernel is as fast as its reads are, and what the launch choices have to keep up is bytes in flight.

Source: Flash-Decoding, pytorch.org/blog/flash-decoding. How many shares: `splits`; the merge: `merge_states`.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, early_launch, has_early, has_mma, multiprocessors
from labcore.kernels._compile import Variant, early_instructions, half
from labcore.kernels._config import pick
from labcore.kernels.merge_states import State, merge
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import (
    NO_WINDOW,
    check_cache,
    check_one_token_each,
    check_options,
    gather,
    output_like,
    scale_of,
    slots_of,
)
from labcore.kernels.splits import choose_splits, room_for_states, share_of

FEW_KEYS = 384  # of a share: here the latency of its first tiles counts, and more of them should be under way
TINY = 128  # keys of a share that has a tile or two, and nothing behind them to ask for ahead


def paged_decode_reference(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, block_table: Tensor, seq_lens: Tensor, *, window=None, scale=None
) -> State:
    """The specification, in the dtype of its arguments: softmax(q·K scale) V over the last `window` keys."""
    o, lse = torch.zeros_like(q), q.new_full(q.shape[:2], -torch.inf)
    group = q.shape[1] // k_cache.shape[2]
    for request, length in enumerate(seq_lens.tolist()):
        if length == 0:
            continue  # no key: 0 and -inf
        k, v = (gather(cache, block_table[request], length)[-(window or length) :] for cache in (k_cache, v_cache))
        k, v = (part.repeat_interleave(group, 1) for part in (k, v))  # [keys, n_heads, head_dim]
        scores = torch.einsum("hd,thd->ht", q[request], k) * (scale or q.shape[2] ** -0.5)
        o[request] = torch.einsum("ht,thd->hd", scores.softmax(-1), v)
        lse[request] = scores.logsumexp(-1)
    return o, lse


# [book: decode-kernel]
@triton.jit
def attend_share(
    q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, q_stride, table_stride, least, window, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """What program (kv_head, request, split) does: the GROUP queries of one KV head over one share of the keys.

    Returns (o [ROWS, HEAD_DIM], lse [ROWS], the rows they are stored in, which of o to store, which of lse).
    """
    kv_head, request, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_kv_heads, num_splits = tl.num_programs(0), tl.num_programs(2)
    ROWS: tl.constexpr = max(16, triton.next_power_of_2(GROUP))  # a tensor core multiplies 16 rows at least
    row, d = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM)
    real = row < GROUP
    head = kv_head * GROUP + row
    q = tl.load(q_ptr + request * q_stride + head[:, None] * HEAD_DIM + d[None, :], mask=real[:, None], other=0.0)

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, least, BLOCK_T)
    row_max, row_sum = tl.full([ROWS], float("-inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for start in range(begin, end, BLOCK_T):
        position = start + tl.arange(0, BLOCK_T)
        # past the end the last key is read again: slots that no request owns may hold NaN, and 0 · NaN is NaN
        slot = slots_of(table_ptr + request * table_stride, tl.minimum(position, end - 1), PAGE)
        at = (slot * n_kv_heads + kv_head)[:, None] * HEAD_DIM + d[None, :]  # [BLOCK_T, HEAD_DIM]
        scores = tl.dot(q, tl.trans(tl.load(k_ptr + at)), input_precision="ieee")  # [ROWS, BLOCK_T]
        scores = tl.where((position < end)[None, :], scores, float("-inf"))
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)
        v = tl.load(v_ptr + at)
        acc = acc * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")

    o, lse = finish_softmax(acc, row_max, row_sum)  # no key: 0 and -inf, which change nothing in a merge
    out = (request * num_splits + split).to(tl.int64) * n_kv_heads * GROUP + head
    return o, lse, out, real & ((begin < end) | (split == 0)), real  # a merge ignores o of an empty share


@triton.jit(do_not_specialize=("table_stride", "least", "window"))  # one binary, whatever the batch
def _decode_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, q_stride, table_stride, least, window, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program stores the state of its share; without a split, that is the output.

    EARLY: it is launched before the kernel ahead of it has ended, and waits for that; the merge is launched when every
    program has its state. Any earlier, and a step of Llama 3 8B took longer on an H200: presumably the products that
    a merge launches in turn crowd some multiprocessors.
    """
    if EARLY:
        gdc_wait()
    o, lse, row, stored, real = attend_share(
        q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, q_stride, table_stride, least, window, scale_log2,
        GROUP, HEAD_DIM, PAGE, BLOCK_T,
    )  # fmt: skip
    if EARLY:
        gdc_launch_dependents()
    at = row[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(o_ptr + at, o.to(o_ptr.dtype.element_ty), mask=stored[:, None])
    tl.store(lse_ptr + row, lse, mask=real)


# [/book]


# [book: decode-vector]
@triton.jit(do_not_specialize=("table_stride", "least", "window"))
def _decode_vector_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, q_stride, table_stride, least, window, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The same without tensor cores, for float32 and for a T4: program (head, request, split), one query head each.

    The programs of a KV head run one after the other, so all but the first find its keys and values in the L2 cache.
    """
    head, request, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n_heads, num_splits = tl.num_programs(0), tl.num_programs(2)
    d = tl.arange(0, HEAD_DIM)
    q = tl.load(q_ptr + request * q_stride + head * HEAD_DIM + d).to(tl.float32)

    seq_len = tl.load(seq_lens_ptr + request)
    begin, end = share_of(split, num_splits, tl.maximum(seq_len - window, 0), seq_len, least, BLOCK_T)
    row_max, row_sum = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    acc = tl.zeros([1, HEAD_DIM], tl.float32)
    for start in range(begin, end, BLOCK_T):
        position = start + tl.arange(0, BLOCK_T)
        slot = slots_of(table_ptr + request * table_stride, tl.minimum(position, end - 1), PAGE)
        at = (slot * (n_heads // GROUP) + head // GROUP)[:, None] * HEAD_DIM + d[None, :]  # [BLOCK_T, HEAD_DIM]
        scores = tl.sum(tl.load(k_ptr + at).to(tl.float32) * q[None, :], 1)
        scores = tl.where(position < end, scores, float("-inf"))[None, :]
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)
        v = tl.load(v_ptr + at).to(tl.float32)
        acc = acc * decay[:, None] + tl.sum(tl.trans(weights) * v, 0)[None, :]

    o, lse = finish_softmax(acc, row_max, row_sum)
    out = (request * num_splits + split).to(tl.int64) * n_heads + head + tl.arange(0, 1)
    stored = (begin < end) | (split == 0)
    tl.store(o_ptr + out[:, None] * HEAD_DIM + d[None, :], o.to(o_ptr.dtype.element_ty), mask=stored)
    tl.store(lse_ptr + out, lse)


# [/book]


def pick_decode(kind: str, cc: tuple[int, int] | None, head_dim: int, group: int, share: int) -> dict[str, int]:
    """Launch choices for shares of so many keys. In a chunked mode that is the chunk, whatever the batch."""
    return pick(kind, cc, head_dim=head_dim, few_rows=group <= 16, short=share <= FEW_KEYS, tiny=share <= TINY)


def paged_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    num_splits: int | None = None,
    chunk: int | None = None,
    max_seq_len: int | None = None,
    workspace: Tensor | None = None,
    out: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
    vector: bool | None = None,
    launch: dict | None = None,
) -> Tensor | State:
    """Attention of the newest token of each request, whose key and value are in the cache already.

    q [requests, n_heads, head_dim], rows evenly spaced; caches [pages, page, n_kv_heads, head_dim]; block_table int32
    [requests, most pages]; seq_lens int32 [requests], 0 for a row of padding. Returns o like q and, with return_lse,
    the natural log-sum-exp fp32 [requests, n_heads]. A request without keys gets 0 and -inf.

    The keys are cut into num_splits equal shares, by default as `choose_splits` says; or, with `chunk`, every so many
    keys (rounded up to whole tiles: pass a multiple of 64), and then the result of a request has the same bits whatever
    else is in the batch. Both rest on max_seq_len, a bound that the host knows (default: what the table can hold): too
    large it costs empty programs, too small the invariance under `chunk`, never the right answer.

    No length is read back from the device and no size depends on one, so a CUDA graph can record the call; with
    `workspace` (`workspace_size` float32) and `out` it allocates next to nothing. vector: whether to do without tensor
    cores (default: where there are none for q's dtype). launch: launch choices to use in place of the table's.
    """
    check_cache(q, k_cache, v_cache)
    check_one_token_each(q, block_table, seq_lens)
    check_options(window=window, num_splits=num_splits, chunk=chunk, max_seq_len=max_seq_len)
    if num_splits is not None and chunk is not None:
        raise InputError(
            f"num_splits={num_splits} and chunk={chunk}: choose a number of shares or their size, not both"
        )
    requests, n_heads, size = q.shape
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, what="paged_decode") == "torch":
        wide = (part.float() for part in (q, k_cache, v_cache))
        o, lse = paged_decode_reference(*wide, block_table, seq_lens, window=window, scale=scale)
        return (out.copy_(o), lse) if return_lse else out.copy_(o)

    cc, page, n_kv_heads = capability(q.device), *k_cache.shape[1:3]
    if vector is None:
        vector = cc is not None and not (has_mma(cc) and q.dtype != torch.float32)
    longest = min(max_seq_len or block_table.shape[1] * page, window or NO_WINDOW)
    rule, least = pick("splits", cc), chunk or 1
    if chunk is not None:
        num_splits = max(1, -(-longest // chunk))
    elif num_splits is None:
        least, programs = rule["least"], requests * n_kv_heads
        num_splits = choose_splits(programs, longest, multiprocessors(q.device), **rule)
    if launch is None:
        kind, group = "decode_vector" if vector else "decode", n_heads // n_kv_heads
        launch = pick_decode(kind, cc, size, group, share=chunk or -(-longest // num_splits))
    launch = launch if vector else launch | early_launch(cc)
    q = q if q.stride()[1:] == (size, 1) else q.contiguous()
    o, lse = room_for_states(workspace, out, num_splits)
    if requests:
        kernel = _decode_vector_kernel if vector else _decode_kernel
        kernel[n_heads if vector else n_kv_heads, requests, num_splits](
            q, k_cache, v_cache, block_table, seq_lens, o, lse, q.stride(0), block_table.stride(0),
            least, window or NO_WINDOW, scale * LOG2_E,
            GROUP=n_heads // n_kv_heads, HEAD_DIM=size, PAGE=page, **launch,
        )  # fmt: skip
    if num_splits > 1:
        out, lse = merge(o, lse, out, n_heads)
    return (out, lse) if return_lse else out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc: Llama 3's shapes first."""
    model_type = f"*{half(cc)}"
    numbers = {"q_stride": "i32:16", "table_stride": "i32", "least": "i32", "window": "i32", "scale_log2": "fp32"}
    pointers = {"table_ptr": "*i32", "seq_lens_ptr": "*i32", "o_ptr": "*fp32", "lse_ptr": "*fp32"}

    def variant(kind: str, dtype: str, size: int, group: int = 4, page: int = 16, share: int = 4096) -> Variant:
        kernel, expects, more = _decode_vector_kernel, (), {}
        if kind == "decode":
            kernel, expects, more = _decode_kernel, ("cp.async", *early_instructions(cc)), {"EARLY": has_early(cc)}
        types = numbers | pointers | dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), dtype)
        name = f"{kind} {dtype[1:]}, head_dim {size}, group {group}, page {page}, shares of {share}"
        launch = pick_decode(kind, cc, size, group, share)
        return Variant.of(name, kernel, types, launch, expects, GROUP=group, HEAD_DIM=size, PAGE=page, **more)

    if has_mma(cc):
        for size, group, share in itertools.product((128, 64, 256), (4, 1, 32), (4096, FEW_KEYS, TINY)):
            yield variant("decode", model_type, size, group, share=share)
        yield variant("decode", model_type, 128, page=128)
    for size in (128, 64, 256):
        yield variant("decode_vector", "*fp32" if has_mma(cc) else model_type, size)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for "decode", "decode_vector" or "splits"; none spills at head_dim 128."""
    if kind == "splits":
        for resident in (2, 4, 6, 8, 12, 16):
            for least in (32, 64, 128, 256):
                yield {"per_multiprocessor": resident, "least": least}
        return
    if kind == "decode_vector":
        tried = [(64, 4, 1), (32, 4, 1), (32, 2, 1), (64, 8, 1)]
    else:
        tried = [(64, 4, 3), (64, 4, 2), (64, 4, 5), (64, 2, 3), (64, 2, 5), (32, 2, 3), (32, 1, 3), (32, 4, 5)]
        tried += [(32, 2, 5), (128, 8, 3), (128, 4, 3), (128, 4, 2), (64, 8, 5), (128, 8, 2)]
    for block, warps, stages in tried:
        yield {"BLOCK_T": block, "num_warps": warps, "num_stages": stages}
