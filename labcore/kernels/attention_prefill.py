"""Attention of many queries per sequence, sequences packed one after the other: FlashAttention's forward pass.

The scores of n tokens are n² numbers per head, and writing them to memory costs more time than computing them. Here
they never leave the chip: a program takes BLOCK_M queries of one head, goes through the keys and values BLOCK_N at a
time, and carries no more along than a running maximum, a running sum and the output so far (`online_softmax`). What
makes it fast besides:

- Blocks of keys that every query of the program sees go through a loop without a mask; only the blocks at the edges
  (diagonal, window, last tokens) pay for one.
- On Hopper the copy engine (TMA) may fetch a block, which needs a descriptor of the tensor and no registers. With 128
  registers a thread two programs fit on a multiprocessor: one multiplies while the other exponentiates. Where three
  stages of pointers and one program were faster in a sweep, `_config` says so.
- Programs start with the longest rows, so that none is left alone at the end; those that share keys start together, so
  that a key comes from memory once and then from the L2 cache.

Sources: FlashAttention-2, arXiv:2307.08691, algorithm 1; Triton's tutorial 06; FlashAttention-3, hopper/ (order of
work). Queries and keys are aligned at the end, as everywhere in this book: the last query sees the last key.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._checks import describable, descriptor_memory
from labcore.kernels._compat import capability, choose, has_mma
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick, rules
from labcore.kernels.attention_prefill_ws import TILE as SPECIALIZED
from labcore.kernels.attention_prefill_ws import launch_specialized
from labcore.kernels.online_softmax import LOG2_E, finish_softmax, online_softmax_step
from labcore.kernels.paging import NO_WINDOW, UNBOUNDED, check_heads, output_like, scale_of


# [book: prefill-reference]
def attention_varlen_reference(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *, causal=True, window=None, scale=None
) -> tuple[Tensor, Tensor]:
    """The specification, in float32: output [Tq, Hq, D] and lse [Hq, Tq]; arguments as of `attention_varlen`."""
    out, lse = torch.zeros_like(q, dtype=torch.float32), q.new_zeros(q.shape[1], len(q), dtype=torch.float32)
    for queries, keys in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
        q_len, kv_len = queries[1] - queries[0], keys[1] - keys[0]
        key = torch.arange(kv_len, device=q.device)
        position = torch.arange(kv_len - q_len, kv_len, device=q.device)[:, None]  # of each query, among the keys
        visible = key <= position if causal else (key >= 0).expand(q_len, -1)
        if window is not None:
            visible = visible & (key > position - window)
        for head in range(q.shape[1]):
            kv_head = head * k.shape[1] // q.shape[1]
            scores = q[slice(*queries), head].float() @ k[slice(*keys), kv_head].float().T
            scores = (scores * (scale or q.shape[2] ** -0.5)).masked_fill(~visible, -torch.inf)
            lse[head, slice(*queries)] = total = scores.logsumexp(1)
            weights = torch.where(visible, (scores - total[:, None]).exp(), 0.0)  # a row that sees nothing: zeros
            out[slice(*queries), head] = weights @ v[slice(*keys), kv_head].float()
    return out, lse


# [/book]


# [book: prefill-helpers]
@triton.jit
def sequence_of_tile(cu_q_ptr, tile, num_seqs, BLOCK_M: tl.constexpr):
    """Which sequence a tile of queries belongs to, by bisection: sequence i's first tile is cu_q[i] // BLOCK_M + i.

    So every sequence has room for one tile more than cu_q // BLOCK_M grants it, and the number of tiles is bounded by
    numbers the host knows; a tile past its sequence's end has nothing to do.
    """
    low, high = 0, num_seqs - 1
    while low < high:
        middle = (low + high + 1) // 2
        if tl.load(cu_q_ptr + middle) // BLOCK_M + middle <= tile:
            low = middle
        else:
            high = middle - 1
    return low


@triton.jit
def load_block(source, row, rows_left, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EDGE: tl.constexpr,
               TMA: tl.constexpr):  # fmt: skip
    """ROWS × COLUMNS elements of a matrix, from `row` on; at an EDGE only `rows_left` rows are there."""
    if TMA:
        block = source.load([row, 0])  # zeros past the edge
    else:
        i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
        at = source + tl.cast(row, tl.int64) * stride + (i * stride + j)  # 2³¹ elements are only 4 GB
        if EDGE:
            block = tl.load(at, mask=i < rows_left, other=0.0)
        else:
            block = tl.load(at)
    return block


# [/book]


# [book: prefill-loop]
@triton.jit
def attend_blocks(
    state, q, keys, values, begin, end, positions, kv_len, kv_stride, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_N: tl.constexpr, WINDOW: tl.constexpr, EDGE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys [begin, end) of a sequence: in an EDGE block some are not visible to some query."""
    row_max, row_sum, acc = state
    for start in range(begin, end, BLOCK_N):
        left = kv_len - start
        k = load_block(keys, start, left, kv_stride, BLOCK_N, HEAD_DIM, EDGE, TMA)
        scores = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
        if EDGE:
            key = start + tl.arange(0, BLOCK_N)[None, :]
            if WINDOW is None:
                visible = key < kv_len
            else:
                visible = key <= positions[:, None]
                if WINDOW < UNBOUNDED:
                    visible &= key > positions[:, None] - WINDOW
            scores = tl.where(visible, scores, float("-inf"))
        weights, decay, row_max, row_sum = online_softmax_step(scores, scale_log2, row_max, row_sum)
        v = load_block(values, start, left, kv_stride, BLOCK_N, HEAD_DIM, EDGE, TMA)
        acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
    return row_max, row_sum, acc


# [/book]


# [book: prefill-kernel]
@triton.jit(do_not_specialize=["num_seqs"])
def _varlen_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, num_seqs, q_stride, kv_stride, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WINDOW: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Program (member of the group, tile from the last on, KV head): BLOCK_M queries of one head.

    WINDOW: None (not causal), UNBOUNDED, or how many keys a query sees. TMA: fetch keys and values by descriptors; they
    are of this sequence and head alone, so past its end they read zeros, not what follows.
    """
    kv_head = tl.program_id(2)
    head, n_heads = kv_head * tl.num_programs(0) + tl.program_id(0), tl.num_programs(2) * tl.num_programs(0)
    tile = tl.num_programs(1) - 1 - tl.program_id(1)  # the last queries see most keys: longest first
    seq = sequence_of_tile(cu_q_ptr, tile, num_seqs, BLOCK_M)
    q_start, k_start = tl.load(cu_q_ptr + seq), tl.load(cu_k_ptr + seq)
    q_len, kv_len = tl.load(cu_q_ptr + seq + 1) - q_start, tl.load(cu_k_ptr + seq + 1) - k_start
    first = (tile - q_start // BLOCK_M - seq) * BLOCK_M
    if first >= q_len:
        return

    q_ptr += q_start.to(tl.int64) * q_stride + head * HEAD_DIM
    q = load_block(q_ptr, first, q_len - first, q_stride, BLOCK_M, HEAD_DIM, True, False)
    position = kv_len - q_len + first  # of the first query, among the keys
    positions = position + tl.arange(0, BLOCK_M)
    begin, end = 0, kv_len  # keys that any query of the tile sees
    full_begin, full_end = 0, kv_len // BLOCK_N * BLOCK_N  # whole blocks, of keys that all of them see
    if WINDOW is not None:
        end = tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0)
        full_end = tl.maximum(tl.minimum(kv_len, position + 1), 0) // BLOCK_N * BLOCK_N
        if WINDOW < UNBOUNDED:
            begin = tl.maximum(position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
            full_end = tl.maximum(full_end, begin)
            full_begin = tl.minimum(tl.cdiv(tl.maximum(position + BLOCK_M - WINDOW, 0), BLOCK_N) * BLOCK_N, full_end)

    row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    state = row_max, row_sum, tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    k_ptr += k_start.to(tl.int64) * kv_stride + kv_head * HEAD_DIM
    v_ptr += k_start.to(tl.int64) * kv_stride + kv_head * HEAD_DIM
    keys, values = k_ptr, v_ptr
    if TMA:
        keys = tl.make_tensor_descriptor(k_ptr, [kv_len, HEAD_DIM], [kv_stride, 1], [BLOCK_N, HEAD_DIM])
        values = tl.make_tensor_descriptor(v_ptr, [kv_len, HEAD_DIM], [kv_stride, 1], [BLOCK_N, HEAD_DIM])
    if WINDOW is not None and WINDOW < UNBOUNDED:
        state = attend_blocks(state, q, keys, values, begin, full_begin, positions, kv_len, kv_stride,
                              scale_log2, HEAD_DIM, BLOCK_N, WINDOW, True, TMA)  # fmt: skip
    state = attend_blocks(state, q, keys, values, full_begin, full_end, positions, kv_len, kv_stride,
                          scale_log2, HEAD_DIM, BLOCK_N, WINDOW, False, TMA)  # fmt: skip
    state = attend_blocks(state, q, keys, values, full_end, end, positions, kv_len, kv_stride,
                          scale_log2, HEAD_DIM, BLOCK_N, WINDOW, True, TMA)  # fmt: skip
    out, lse = finish_softmax(state[2], state[0], state[1])

    row = tl.arange(0, BLOCK_M)
    real = positions < kv_len  # the last query's is kv_len - 1
    out_ptr += (q_start + first).to(tl.int64) * n_heads * HEAD_DIM + head * HEAD_DIM
    at = row[:, None] * (n_heads * HEAD_DIM) + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    if lse_ptr is not None:
        tokens = tl.load(cu_q_ptr + num_seqs).to(tl.int64)
        tl.store(lse_ptr + head * tokens + q_start + first + row, lse, mask=real)


# [/book]


def attention_varlen(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
    causal: bool = True, window: int | None = None, scale: float | None = None, out: Tensor | None = None,
    return_lse: bool = False, backend: str = "auto", config: dict[str, int] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """softmax(q Kᵀ · scale) V of packed sequences; query head h reads KV head h // (Hq / Hkv).

    q: [Tq, Hq, D]; k, v: [Tk, Hkv, D]; fp16, bf16 or fp32; D a power of two, 16 to 256. Heads and D must be contiguous,
    so that slices of a fused QKV projection will do. cu_q, cu_k: int32 [sequences + 1] on q's device; sequence i has
    queries cu_q[i] : cu_q[i + 1] and keys cu_k[i] : cu_k[i + 1]; they begin at 0 and end at Tq and Tk.
    max_q, max_k: the longest sequence, or more. causal: query i of q_len sees the keys up to kv_len - q_len + i.
    window: of those the newest `window`. scale: 1 / sqrt(D) by default. config: launch choices instead of the table's.

    Returns `out`, [Tq, Hq, D] like q and contiguous; with return_lse also the log-sum-exp of the scaled scores, natural
    logarithm, fp32 [Hq, Tq]. A query that sees no key gives 0 and -inf. Raises InputError for anything else.
    """
    check_varlen(q, k, v, cu_q, cu_k, causal, window)
    scale, out = scale_of(q, scale), output_like(q, out)
    if choose(backend, q, mma=True, what="attention_varlen") == "torch":
        result, lse = attention_varlen_reference(q, k, v, cu_q, cu_k, causal=causal, window=window, scale=scale)
        out.copy_(result)
    else:
        lse = q.new_empty(q.shape[1], len(q), dtype=torch.float32) if return_lse else None
        look_back = None if not causal else NO_WINDOW if window is None or window >= max_k else window
        if q.numel():
            config = config or launch_choices(q, k, v, max_q, look_back)
            launch = launch_specialized if config.get("WS") else _launch
            launch(q, k, v, out, lse, cu_q, cu_k, max_q, look_back, scale, config)
    return (out, lse) if return_lse else out


def check_varlen(q, k, v, cu_q, cu_k, causal, window) -> None:
    """Raise InputError, with the value and the fix, for arguments that the kernels would misread."""
    if q.dim() != 3 or k.dim() != 3 or k.shape != v.shape or q.shape[2] != k.shape[2] or q.shape[1] % k.shape[1]:
        shapes = " and ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise InputError(f"q, k, v are {shapes}: pass [Tq, Hq, D] and twice [Tk, Hkv, D], Hq a multiple of Hkv")
    size = q.shape[2]
    check_heads(size, q.dtype, k.dtype, v.dtype)
    for name, x in {"q": q, "k": k, "v": v}.items():
        if x.stride(2) != 1 or (x.shape[1] > 1 and x.stride(1) != size) or x.device != q.device:
            raise InputError(
                f"{name} has strides {x.stride()} on {x.device}: heads and D contiguous, all on {q.device}"
            )
    for name, cu, tokens in ("cu_q", cu_q, len(q)), ("cu_k", cu_k, len(k)):
        if cu.dtype != torch.int32 or cu.device != q.device or cu.shape != cu_q.shape or cu.dim() != 1 or len(cu) < 2:
            raise InputError(f"{name} is {cu.dtype} {tuple(cu.shape)}: pass int32 [sequences + 1] on {q.device}")
        if cu.device.type == "cpu" and (cu[0] != 0 or cu[-1] != tokens or (cu.diff() < 0).any()):  # no sync on a GPU
            raise InputError(f"{name}={cu.tolist()}: must rise from 0 to the number of tokens, {tokens}")
    if window is not None and not (causal and window >= 1):
        raise InputError(f"window={window}, causal={causal}: a window is 1 or more keys, and of causal attention only")


# [book: prefill-launch]
def launch_choices(q: Tensor, k: Tensor, v: Tensor, max_q: int, look_back: int | None) -> dict[str, int]:
    """What `_config` chooses for these tensors: descriptors where Hopper's copy engine can read k and v.

    look_back: the kernel's WINDOW, NO_WINDOW if all earlier keys are seen, None if the later ones too.
    """
    cc = capability(q.device)
    tma = cc is not None and cc >= (9, 0) and describable(k, v) and len(k) > 0
    shape = {"head_dim": q.shape[2], "float32": q.dtype == torch.float32, "few": max_q <= 64}
    return pick("prefill", cc, **shape, window=look_back not in (None, NO_WINDOW), tma=tma)


def _launch(q, k, v, out, lse, cu_q, cu_k, max_q, look_back, scale, config) -> None:
    tiles = len(q) // config["BLOCK_M"] + len(cu_q) - 1
    if tiles >= 1 << 16:
        raise InputError(f"{len(q)} queries in {len(cu_q) - 1} sequences: pass fewer than {config['BLOCK_M']} · 2^16")
    k, v = (k, v) if k.stride(0) == v.stride(0) else (k.contiguous(), v.contiguous())
    if config["TMA"]:  # where the kernel keeps its descriptors
        descriptor_memory(q.device)
    grid = q.shape[1] // k.shape[1], tiles, k.shape[1]
    _varlen_kernel[grid](
        q, k, v, out, lse, cu_q, cu_k, len(cu_q) - 1, q.stride(0), k.stride(0), scale * LOG2_E,
        HEAD_DIM=q.shape[2], WINDOW=look_back, **config,
    )  # fmt: skip


# [/book]


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for `cc`: the table's entries in bf16 and fp32, causal, within a window, and not causal."""
    if not has_mma(cc):
        return  # without tensor cores torch is faster: see `choose`
    for where, launch in rules("prefill", cc):
        dtype = "fp32" if where["float32"] else "bf16"
        for head_dim in sorted(size for size in where["head_dim"] if size >= 64):
            for mask, look_back in ("causal", NO_WINDOW), ("window", 4096), ("all", None):
                if where.get("window") in (None, mask == "window"):
                    yield variant(f"{mask}, {dtype}, D={head_dim}", head_dim, dtype, look_back, launch, cc)


def variant(name, head_dim, dtype, look_back, launch, cc) -> Variant:
    """One way to compile the kernel; its name ends with the tile."""
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), f"*{dtype}") | {
        "lse_ptr": "*fp32",
        "cu_q_ptr": "*i32", "cu_k_ptr": "*i32", "num_seqs": "i32", "q_stride": "i32:16", "kv_stride": "i32:16",
        "scale_log2": "fp32",
    }  # fmt: skip
    expects = {"wgmma"} if cc >= (9, 0) and dtype != "fp32" and launch["BLOCK_M"] >= 64 else set()
    expects |= {"tma" if launch["TMA"] else "cp.async"}
    name = f"{name}, {launch['BLOCK_M']}x{launch['BLOCK_N']}{', TMA' if launch['TMA'] else ''}"
    return Variant.of(name, _varlen_kernel, signature, launch, expects, HEAD_DIM=head_dim, WINDOW=look_back)


def candidates(kind: str, cc: tuple[int, int]) -> list[dict[str, int]]:
    """Launch choices that `labcore.kernels.tune` measures beside the table's, head_dim 128 on Hopper, as `config`."""
    if kind != "prefill" or cc < (9, 0):
        return []
    names = "BLOCK_M", "BLOCK_N", "TMA", "num_warps", "num_stages", "maxnreg"
    tiles = [
        (128, 64, 1, 8, 2, 128),  # two programs on a multiprocessor
        (128, 128, 1, 8, 3, None),
        (128, 128, 0, 8, 3, None),
        (128, 32, 1, 8, 3, None),
        (64, 64, 1, 4, 2, None),
    ]
    plain = [{name: value for name, value in zip(names, tile, strict=True) if value is not None} for tile in tiles]
    return [*plain, SPECIALIZED]
