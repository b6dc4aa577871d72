"""Annex: split-KV decode in one launch. The last share of a request to finish merges all of them.

A second kernel costs a few microseconds, which shows when a step takes ten. Here each share draws a number when its
state is in memory, by an atomic addition, and whoever draws the last one knows that the others have stored theirs.
Whether it pays is for the measurement to say (row gpu.b4.one_launch): a launch is saved, but now one program merges the
rows of all its query heads, one after the other, where the second kernel has a program for each.

What may go wrong is order: the state has to be visible before the number is drawn, and must not be read before it. An
addition with acquire and release semantics promises both; the barrier before it makes the promise hold for all threads
of a program. The interpreter runs programs one after the other and can prove none of this, only the arithmetic, so the
book ships the two kernels of `attention_decode`; this one has to agree with them.

Source of the scheme: the semaphores of split-K products and of stream-K (CUTLASS); FlashInfer's and TensorRT-LLM's
multi-block attention merge in the same way.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, has_mma, multiprocessors
from labcore.kernels._compile import Variant
from labcore.kernels._config import pick
from labcore.kernels.attention_decode import FEW_KEYS, TINY, attend_share, paged_decode, pick_decode
from labcore.kernels.merge_states import merged
from labcore.kernels.online_softmax import LOG2_E
from labcore.kernels.paging import (
    check_cache,
    check_one_token_each,
    check_options,
    check_requests,
    output_like,
    scale_of,
)
from labcore.kernels.splits import choose_splits, room_for_states


# [book: one-launch]
@triton.jit(do_not_specialize=("table_stride", "least"))
def _one_launch_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, o_ptr, lse_ptr, tickets_ptr, out_ptr,
    q_stride, table_stride, least, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (kv_head, request, split) of `_decode_kernel`, and for the last split of each pair `_merge_kernel`."""
    kv_head, request = tl.program_id(0), tl.program_id(1)
    n_kv_heads, num_splits = tl.num_programs(0), tl.num_programs(2)
    o, lse, row, stored, real = attend_share(
        q_ptr, k_ptr, v_ptr, table_ptr, seq_lens_ptr, q_stride, table_stride, least, 2**30, scale_log2,
        GROUP, HEAD_DIM, PAGE, BLOCK_T,
    )  # fmt: skip
    d = tl.arange(0, HEAD_DIM)
    tl.store(o_ptr + row[:, None] * HEAD_DIM + d[None, :], o, mask=stored[:, None])
    tl.store(lse_ptr + row, lse, mask=real)

    tl.debug_barrier()  # now every thread of this program has stored
    drawn = tl.atomic_add(tickets_ptr + request * n_kv_heads + kv_head, 1, sem="acq_rel")
    if drawn == num_splits - 1:
        tl.store(tickets_ptr + request * n_kv_heads + kv_head, 0)  # for the next call
        n_heads = n_kv_heads * GROUP
        for member in range(GROUP):
            head = kv_head * GROUP + member
            first = request.to(tl.int64) * num_splits * n_heads + head
            whole, _ = merged(o_ptr, lse_ptr, first, n_heads, num_splits, HEAD_DIM, BLOCK_N, HEAD_DIM)
            at = (request.to(tl.int64) * n_heads + head) * HEAD_DIM
            tl.store(out_ptr + at + d, whole.to(out_ptr.dtype.element_ty))


# [/book]


def paged_decode_one_launch(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    tickets: Tensor,
    *,
    scale: float | None = None,
    num_splits: int | None = None,
    max_seq_len: int | None = None,
    workspace: Tensor | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """`paged_decode` on tensor cores, by one kernel, without lse, window and chunk; there are no other differences.

    tickets: int32 [requests · n_kv_heads] or more, zeros before the first call; every call leaves zeros behind. Two
    calls that run at the same time need their own.
    """
    check_cache(q, k_cache, v_cache)
    check_one_token_each(q, block_table, seq_lens)
    check_requests(q, block_table, tickets=tickets)
    check_options(num_splits=num_splits, max_seq_len=max_seq_len)
    scale = scale_of(q, scale)
    chosen = choose(backend, q, mma=True, what="paged_decode_one_launch")
    requests, n_heads, size = q.shape
    page, n_kv_heads = k_cache.shape[1:3]
    group = n_heads // n_kv_heads
    if len(tickets) < requests * n_kv_heads:
        raise InputError(f"{len(tickets)} tickets: pass {requests * n_kv_heads}, one per request and KV head")
    out, cc = output_like(q, out), capability(q.device)
    rule, longest = pick("splits", cc), max_seq_len or block_table.shape[1] * page
    least = rule["least"] if num_splits is None else 1
    if num_splits is None:
        num_splits = choose_splits(requests * n_kv_heads, longest, multiprocessors(q.device), **rule)
    if num_splits == 1 or chosen == "torch":  # nothing to merge, or nothing to launch
        where = k_cache, v_cache, block_table, seq_lens
        return paged_decode(q, *where, scale=scale, num_splits=1, out=out, backend=chosen)
    q = q if q.stride()[1:] == (size, 1) else q.contiguous()
    o, lse = room_for_states(workspace, out, num_splits)
    if requests:
        _one_launch_kernel[n_kv_heads, requests, num_splits](
            q, k_cache, v_cache, block_table, seq_lens, o, lse, tickets, out, q.stride(0), block_table.stride(0),
            least, scale * LOG2_E,
            GROUP=group, HEAD_DIM=size, PAGE=page, BLOCK_N=pick("merge", cc)["BLOCK_N"],
            **pick_decode("decode", cc, size, group, share=-(-longest // num_splits)),
        )  # fmt: skip
    return out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    if not has_mma(cc):
        return
    types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16")
    types |= {"table_ptr": "*i32", "seq_lens_ptr": "*i32", "o_ptr": "*fp32", "lse_ptr": "*fp32", "tickets_ptr": "*i32"}
    types |= {"q_stride": "i32:16", "table_stride": "i32", "least": "i32", "scale_log2": "fp32"}
    for name, share in (("long", FEW_KEYS + 1), ("short", FEW_KEYS), ("tiny", TINY)):
        launch = pick_decode("decode", cc, 128, 4, share) | {"BLOCK_N": pick("merge", cc)["BLOCK_N"]}
        name = f"one launch, {name} shares"
        yield Variant.of(name, _one_launch_kernel, types, launch, ["cp.async"], GROUP=4, HEAD_DIM=128, PAGE=16)
