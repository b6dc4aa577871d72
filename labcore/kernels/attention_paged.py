"""Attention of a mixed batch over a paged cache: chunks of prompts, single new tokens, and verified drafts in one call.

Each request brings its newest tokens, one or thousands, whose keys and values are in the cache already, and a token
attends to all keys up to its own. A tile of scores has BLOCK_M rows: GROUP query heads, which read the same keys, of
BLOCK_M // GROUP tokens. Which request a tile belongs to is found by the program itself, by bisection in cu_q; so the
grid is bounded by numbers that the host has, and nothing is read back.

The choice that decides speed is BLOCK_M. Sixteen rows are all that a single new token can use, and more only cost; but
on Hopper the fast instruction (wgmma) begins at 64 rows, and each key is read once per tile, so a chunk wants many.

Sources: vLLM, v1/attention/ops/triton_unified_attention.py (IBM), arXiv:2511.11581.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose, has_mma, multiprocessors
from labcore.kernels._compile import Variant, half
from labcore.kernels._config import pick
from labcore.kernels.attention_prefill import attention_varlen_reference, sequence_of_tile
from labcore.kernels.merge_states import State, merge
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import (
    NO_WINDOW,
    check_cache,
    check_options,
    check_requests,
    gather,
    output_like,
    scale_of,
    slots_of,
)
from labcore.kernels.splits import choose_splits, room_for_states, share_of


def paged_attention_reference(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cu_q: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> State:
    """The specification, in float32: a block table says where keys and values lie, and changes nothing else."""
    if not len(seq_lens):  # nothing but padding, whose output is undefined
        return torch.zeros_like(q, dtype=torch.float32), q.new_zeros(q.shape[:2], dtype=torch.float32)
    lengths = seq_lens.tolist()
    k, v = (
        torch.cat([gather(cache, table, length) for table, length in zip(block_table, lengths, strict=True)])
        for cache in (k_cache, v_cache)
    )
    cu_k = torch.tensor([0, *lengths]).cumsum(0)
    o, lse = attention_varlen_reference(q, k, v, cu_q, cu_k, window=window, scale=scale)
    return o, lse.T


# [book: paged-kernel]
@triton.jit
def attend_tile(
    q, state, start, end, oldest, newest, k_ptr, v_ptr, table, token_stride, scale_log2,
    PAGE: tl.constexpr, BLOCK_T: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """The keys from `start` on; row r of q sees positions oldest[r] to newest[r]. EDGE: not every row sees them all."""
    acc, row_max, row_sum = state
    position, d = start + tl.arange(0, BLOCK_T), tl.arange(0, q.shape[1])
    # past the end the last key is read again: slots that no request owns may hold NaN, and 0 · NaN is NaN
    at = slots_of(table, tl.minimum(position, end - 1), PAGE)[:, None] * token_stride + d[None, :]
    scores = tl.dot(q, tl.trans(tl.load(k_ptr + at)), input_precision="ieee")  # [BLOCK_M, BLOCK_T]
    if EDGE:
        seen = (position[None, :] >= oldest[:, None]) & (position[None, :] <= newest[:, None])
        scores = tl.where(seen, scores, float("-inf"))
    weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)
    v = tl.load(v_ptr + at)
    acc = acc * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return acc, row_max, row_sum


@triton.jit(do_not_specialize=("table_stride", "requests", "window"))  # one binary, whatever the batch
def _paged_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, cu_q_ptr, seq_lens_ptr, o_ptr, lse_ptr,
    q_stride, table_stride, requests, window, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Program (kv_head, q_block, split): BLOCK_M // GROUP tokens of one request, over one share of their keys."""
    # all heads of a block side by side, a prompt's last tokens first: who sees most begins, who sees little fills gaps
    kv_head, split = tl.program_id(0), tl.program_id(2)
    q_block = tl.num_programs(1) - 1 - tl.program_id(1)
    n_kv_heads, num_splits = tl.num_programs(0), tl.num_programs(2)
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    request = sequence_of_tile(cu_q_ptr, q_block, requests, BLOCK_Q)
    q_begin = tl.load(cu_q_ptr + request)
    q_len = tl.load(cu_q_ptr + request + 1) - q_begin
    first_q = (q_block - q_begin // BLOCK_Q - request) * BLOCK_Q  # of this block, within the request
    if first_q >= q_len:
        return

    row, d = tl.arange(0, BLOCK_M), tl.arange(0, HEAD_DIM)
    token, member = row // GROUP, row % GROUP  # row r: query head r % GROUP of the block's token r // GROUP
    real = (token < q_len - first_q) & (row < BLOCK_Q * GROUP)
    first_token = (q_begin + first_q).to(tl.int64)
    q_ptr += first_token * q_stride + kv_head * GROUP * HEAD_DIM
    q = tl.load(q_ptr + (token * q_stride + member * HEAD_DIM)[:, None] + d[None, :], mask=real[:, None], other=0.0)

    first = tl.load(seq_lens_ptr + request) - q_len + first_q  # position of the block's first token, and of its last
    last = first + tl.minimum(BLOCK_Q, q_len - first_q) - 1
    newest = first + token
    oldest = newest - window + 1
    begin, end = share_of(split, num_splits, tl.maximum(first - window + 1, 0), last + 1, BLOCK_T, BLOCK_T)
    tiles = tl.cdiv(tl.maximum(end - begin, 0), BLOCK_T)
    low = tl.minimum(tl.cdiv(tl.maximum(last - window + 1 - begin, 0), BLOCK_T), tiles)
    high = tl.maximum(tl.maximum(tl.minimum(first + 1, end) - begin, 0) // BLOCK_T, low)  # in [low, high) all see all

    state = (
        tl.zeros([BLOCK_M, HEAD_DIM], tl.float32),
        tl.full([BLOCK_M], float("-inf"), tl.float32),
        tl.zeros([BLOCK_M], tl.float32),
    )
    k_ptr, v_ptr, table = k_ptr + kv_head * HEAD_DIM, v_ptr + kv_head * HEAD_DIM, table_ptr + request * table_stride
    for tile in range(low, high):  # full tiles: no mask
        state = attend_tile(
            q, state, begin + tile * BLOCK_T, end, oldest, newest, k_ptr, v_ptr, table, n_kv_heads * HEAD_DIM,
            scale_log2, PAGE, BLOCK_T, EDGE=False,
        )  # fmt: skip
    for edge in range(tiles - high + low):  # edge tiles: the window's, then the diagonal's
        tile = tl.where(edge < low, edge, edge + high - low)
        state = attend_tile(
            q, state, begin + tile * BLOCK_T, end, oldest, newest, k_ptr, v_ptr, table, n_kv_heads * HEAD_DIM,
            scale_log2, PAGE, BLOCK_T, EDGE=True,
        )  # fmt: skip

    acc, row_max, row_sum = state
    o, lse = finish_softmax(acc, row_max, row_sum)  # no key: 0 and -inf, which change nothing in a merge
    n_heads = n_kv_heads * GROUP
    lse_ptr += (first_token * num_splits + split) * n_heads + kv_head * GROUP
    o_ptr += ((first_token * num_splits + split) * n_heads + kv_head * GROUP) * HEAD_DIM
    at = token * num_splits * n_heads + member
    stored = real & ((begin < end) | (split == 0))  # the merge does not read the output of an empty share
    tl.store(o_ptr + at[:, None] * HEAD_DIM + d[None, :], o.to(o_ptr.dtype.element_ty), mask=stored[:, None])
    tl.store(lse_ptr + at, lse, mask=real)


# [/book]


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cu_q: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    max_q: int,
    *,
    window: int | None = None,
    scale: float | None = None,
    num_splits: int | None = None,
    max_seq_len: int | None = None,
    workspace: Tensor | None = None,
    out: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
    launch: dict | None = None,
) -> Tensor | State:
    """Causal attention of the newest tokens of each request, whose keys and values are in the cache already.

    q [tokens, n_heads, head_dim], rows evenly spaced: request i's tokens are cu_q[i] : cu_q[i + 1] (int32
    [requests + 1]), the newest of its seq_lens[i] (int32 [requests]), none for a row of padding; caches [pages, page,
    n_kv_heads, head_dim]; block_table int32 [requests, most pages]. max_q: tokens of the request with most, a bound.
    Returns o like q and, with return_lse, the natural log-sum-exp fp32 [tokens, n_heads]; a token that sees no key
    (more new tokens than seq_lens) gets 0 and -inf. Past cu_q[-1] lies padding, and of that the output is undefined.

    num_splits, max_seq_len, workspace, launch: as in `paged_decode`; nothing is read back, and a CUDA graph can record
    the call.
    """
    check_cache(q, k_cache, v_cache)
    check_requests(q, block_table, seq_lens=seq_lens, cu_q=cu_q)
    if not len(cu_q) - 1 == len(block_table) == len(seq_lens):
        raise InputError(f"cu_q {len(cu_q)}, tables {len(block_table)}, lengths {len(seq_lens)}: pass n + 1, n and n")
    check_options(max_q=max_q, window=window, num_splits=num_splits, max_seq_len=max_seq_len)
    requests, (tokens, n_heads, size) = len(seq_lens), q.shape
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, mma=True, what="paged_attention") == "torch":
        o, lse = paged_attention_reference(q, k_cache, v_cache, cu_q, seq_lens, block_table, window=window, scale=scale)
        return (out.copy_(o), lse) if return_lse else out.copy_(o)

    page, n_kv_heads = k_cache.shape[1:3]
    group = n_heads // n_kv_heads
    if launch is None:
        exact = q.dtype == torch.float32
        launch = pick("paged", capability(q.device), exact=exact, head_dim=size, rows=max_q * group)
    if group > launch["BLOCK_M"]:
        raise InputError(f"{group} query heads to a KV head: a tile has {launch['BLOCK_M']} rows; pass backend='torch'")
    q_blocks = tokens // (launch["BLOCK_M"] // group) + requests
    if num_splits is None:
        longest = min(max_seq_len or block_table.shape[1] * page, (window or NO_WINDOW) + max_q)
        few_rows = launch["BLOCK_M"] == 16
        num_splits = choose_splits(
            q_blocks * n_kv_heads, longest, multiprocessors(q.device),
            per_multiprocessor=4 if few_rows else 2, most=8192 if few_rows else longest,
        )  # fmt: skip
    q = q if q.stride()[1:] == (size, 1) else q.contiguous()
    o, lse = room_for_states(workspace, out, num_splits)
    if tokens and requests:
        _paged_kernel[n_kv_heads, q_blocks, num_splits](
            q, k_cache, v_cache, block_table, cu_q, seq_lens, o, lse, q.stride(0), block_table.stride(0),
            requests, window or NO_WINDOW, scale * LOG2_E,
            GROUP=group, HEAD_DIM=size, PAGE=page, **launch,
        )  # fmt: skip
    if num_splits > 1:
        out, lse = merge(o, lse, out, n_heads)
    return (out, lse) if return_lse else out


def write_kv_reference(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """The specification: the slots of a cache are its tokens, pages one after the other."""
    stored = slots >= 0
    for new, cache in ((k, k_cache), (v, v_cache)):
        cache.view(-1, *cache.shape[2:])[slots[stored]] = new[stored].to(cache.dtype)


ELEMENTS = 4096  # of k that a program copies, and as many of v: 32 a thread, in loads of 16 bytes


# [book: write-kv]
@triton.jit(do_not_specialize=("tokens",))
def _write_kv_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slots_ptr, tokens, k_stride, v_stride,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program copies ROWS tokens, all heads: a token's WIDTH numbers are contiguous on both sides."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)  # int64
    column = tl.arange(0, BLOCK)
    here = (slot >= 0)[:, None] & (column < WIDTH)[None, :]
    to = slot[:, None] * WIDTH + column[None, :]
    k = tl.load(k_ptr + token.to(tl.int64)[:, None] * k_stride + column[None, :], mask=here, other=0.0)
    tl.store(k_cache_ptr + to, k.to(k_cache_ptr.dtype.element_ty), mask=here)
    v = tl.load(v_ptr + token.to(tl.int64)[:, None] * v_stride + column[None, :], mask=here, other=0.0)
    tl.store(v_cache_ptr + to, v.to(v_cache_ptr.dtype.element_ty), mask=here)


# [/book]


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, *, backend: str = "auto") -> None:
    """Store k and v [tokens, n_kv_heads, head_dim], rows evenly spaced, each token in its slot; -1: nowhere.

    caches [pages, page, n_kv_heads, head_dim], contiguous; slots int64 [tokens], page · page_size + offset. Two tokens
    with one slot are a mistake of the caller, and either may win.
    """
    heads = tuple(k_cache.shape[2:])
    if tuple(k.shape[1:]) != heads or k.shape != v.shape or v_cache.shape != k_cache.shape:
        raise InputError(
            f"k {tuple(k.shape)}, v {tuple(v.shape)}, cache {tuple(k_cache.shape)}: heads must be the same"
        )
    check_tensor("slots", slots, torch.int64, k.shape[:1])
    if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise InputError(f"the cache has strides {k_cache.stride()}: it must be contiguous, to be written in place")
    if choose(backend, k, what="write_kv") == "torch":
        return write_kv_reference(k, v, k_cache, v_cache, slots)
    k, v = (new if new.stride()[1:] == (heads[1], 1) else new.contiguous() for new in (k, v))
    width = heads[0] * heads[1]
    block = triton.next_power_of_2(width)
    rows = max(1, ELEMENTS // block)
    if len(k):
        _write_kv_kernel[(triton.cdiv(len(k), rows),)](
            k, v, k_cache, v_cache, slots, len(k), k.stride(0), v.stride(0),
            WIDTH=width, ROWS=rows, BLOCK=block, **pick("write_kv", capability(k.device)),
        )  # fmt: skip
    return None


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc: Llama 3's shapes first, a chunk, then single tokens."""
    model_type = f"*{half(cc)}"
    tensors = ("q_ptr", "k_ptr", "v_ptr", "o_ptr")
    indices = {"table_ptr": "*i32", "cu_q_ptr": "*i32", "seq_lens_ptr": "*i32", "lse_ptr": "*fp32"}
    numbers = {"q_stride": "i32:16", "table_stride": "i32", "requests": "i32", "window": "i32", "scale_log2": "fp32"}
    shapes = [(128, 16, 4, 2048), (128, 16, 4, 1), (128, 128, 4, 2048), (128, 16, 1, 2048), (128, 16, 7, 8)]
    shapes += [(64, 16, 3, 2048), (64, 16, 3, 1), (256, 16, 4, 2048), (256, 16, 4, 1), (32, 16, 4, 2048)]
    for dtype in (model_type, "*fp32") if has_mma(cc) else ():
        for size, page, group, max_q in shapes:
            launch = pick("paged", cc, exact=dtype == "*fp32", head_dim=size, rows=max_q * group)
            expects = [] if dtype == "*fp32" else ["cp.async", *["wgmma"] * (cc >= (9, 0) and launch["BLOCK_M"] >= 64)]
            yield Variant.of(
                f"paged {dtype[1:]}, head_dim {size}, page {page}, group {group}, max_q {max_q}",
                _paged_kernel, dict.fromkeys(tensors, dtype) | indices | numbers, launch, expects,
                GROUP=group, HEAD_DIM=size, PAGE=page,
            )  # fmt: skip
    types = dict.fromkeys(("k_ptr", "v_ptr", "k_cache_ptr", "v_cache_ptr"), model_type)
    types |= {"slots_ptr": "*i64", "tokens": "i32", "k_stride": "i32:16", "v_stride": "i32:16"}
    for width in (1024, 512, 192):
        block = triton.next_power_of_2(width)
        values = {"WIDTH": width, "ROWS": ELEMENTS // block, "BLOCK": block}
        yield Variant.of(f"write_kv, width {width}", _write_kv_kernel, types, pick("write_kv", cc), **values)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for "paged" at head_dim 128: for single tokens (16 rows), then for chunks."""
    for block, warps, stages in ((64, 4, 3), (64, 4, 2), (64, 4, 5), (64, 2, 3), (32, 2, 3), (128, 8, 3), (128, 4, 3)):
        yield {"BLOCK_M": 16, "BLOCK_T": block, "num_warps": warps, "num_stages": stages}
    for rows, block, warps, stages in (
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (128, 64, 8, 3),
        (128, 128, 8, 3),
        (128, 128, 8, 2),
    ):
        yield {"BLOCK_M": rows, "BLOCK_T": block, "num_warps": warps, "num_stages": stages}
    yield {"BLOCK_M": 128, "BLOCK_T": 64, "num_warps": 8, "num_stages": 3, "maxnreg": 128}
