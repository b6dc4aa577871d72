"""Merging the states of attention over disjoint sets of keys: exact, in any order, and of any number of them.

A state is the output o over some keys and the log-sum-exp of their scores. The states of two sets merge into that of
their union, so a sequence may be split over programs, a prefix shared by requests, or a cache spread over GPUs.

Sources: Flash-Decoding, pytorch.org/blog/flash-decoding; FlashInfer, merge_states.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, early_launch, has_early
from labcore.kernels._compile import Variant, early_instructions, half
from labcore.kernels._config import pick, rules

State = tuple[Tensor, Tensor]  # o [..., head_dim], lse [...]


# [book: merge-states]
def merge_states_reference(o: Tensor, lse: Tensor) -> State:
    """The specification. o [n, ..., D], lse [n, ...] -> o [..., D], lse [...]: each o weighs exp(lse)."""
    total = lse.logsumexp(0)
    weights = (lse - total.clamp(min=torch.finfo(lse.dtype).min)).exp()  # of nothing but empty states: zeros
    return (weights[..., None] * o).sum(0), total


# [/book]


# [book: merge-kernel]
@triton.jit
def merged(o_ptr, lse_ptr, first, step, n, width, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """o [BLOCK_D] and lse [1] of the n states in rows first, first + step, ... An empty one has any o.

    They are taken BLOCK_N at a time, whatever n is: empty states add exact zeros, and the sums keep their order.
    """
    d = tl.arange(0, BLOCK_D)
    best, total = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_D], tl.float32)
    for begin in range(0, n, BLOCK_N):
        state = begin + tl.arange(0, BLOCK_N)
        row = first + state * step
        lse = tl.load(lse_ptr + row, mask=state < n, other=float("-inf"), cache_modifier=".cg")
        new_best = tl.maximum(best, tl.max(lse, 0))
        shift = tl.where(new_best == float("-inf"), 0.0, new_best)
        weights, decay = tl.exp(lse - shift), tl.exp(best - shift)  # exp(0) is 1: a state alone keeps its bits
        here = (state < n)[:, None] & (d < width)[None, :]  # not "weights > 0": that would have to wait for lse
        o = tl.load(o_ptr + row[:, None] * width + d[None, :], mask=here, other=0.0, cache_modifier=".cg")
        o = tl.where((weights > 0)[:, None], o.to(tl.float32), 0.0)  # nobody may have written the o of an empty state
        acc = acc * decay + tl.sum(weights[:, None] * o, 0)
        total = total * decay + tl.sum(weights, 0)
        best = new_best
    total = tl.where(total > 0, total, 1.0)
    return acc / total, best + tl.log(total)


@triton.jit(do_not_specialize=("n", "step"))
def _merge_kernel(
    o_ptr, lse_ptr, out_ptr, out_lse_ptr, n, step, width,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Program `row` merges the states of one row.

    EARLY: it is launched before the shares' kernel has ended, and waits for that; what follows is launched at once, and
    fetches weights meanwhile if it is such a kernel (`kernels.gemv`).
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    row, d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_D)
    o, lse = merged(o_ptr, lse_ptr, row // step * step * n + row % step, step, n, width, BLOCK_N, BLOCK_D)
    tl.store(out_ptr + row * width + d, o.to(out_ptr.dtype.element_ty), mask=d < width)
    tl.store(out_lse_ptr + row + tl.arange(0, 1), lse)


# [/book]


def merge_states(o: Tensor, lse: Tensor, *, backend: str = "auto") -> State:
    """The state over n disjoint sets of keys together, from the state over each.

    o [n, ..., D], lse fp32 [n, ...] (natural logarithm) -> o [..., D] in the same dtype, lse [...]. The order of the n
    changes no more than roundings. An empty state has lse -inf, and its o may be anything. Raises InputError for other
    shapes, another dtype of lse, or no state at all.
    """
    if not o.shape[:-1] == lse.shape or lse.dtype != torch.float32 or not len(lse):
        raise InputError(f"o {tuple(o.shape)}, lse {lse.dtype} {tuple(lse.shape)}: pass [n, ..., D] and fp32 [n, ...]")
    if choose(backend, o, what="merge_states") == "torch":
        whole, total = merge_states_reference(o.float().where(lse[..., None] > -torch.inf, 0.0), lse)
        return whole.to(o.dtype), total
    return merge(o.contiguous(), lse.contiguous(), o.new_empty(o.shape[1:]), lse[0].numel())


def merge(o: Tensor, lse: Tensor, out: Tensor, step: int) -> State:
    """`merge_states` into `out` [rows, ..., D]; row r has its states at r // step · step · n + r % step + i · step.

    So `step` tells the two layouts apart: all rows for states [n, rows], the heads for states [tokens, n, heads].
    """
    out_lse = torch.empty(out.shape[:-1], dtype=torch.float32, device=out.device)
    rows, width = out_lse.numel(), out.shape[-1]
    if rows:
        launch = pick("merge", cc := capability(out.device)) | early_launch(cc)
        states = lse.numel() // rows
        _merge_kernel[(rows,)](
            o, lse, out, out_lse, states, step, width, BLOCK_D=triton.next_power_of_2(width), **launch
        )
    return out, out_lse


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc: float32 states into a model's dtype, head_dim 128 first."""
    model_type = f"*{half(cc)}"
    for _, launch in rules("merge", cc):
        types = {"o_ptr": "*fp32", "lse_ptr": "*fp32", "out_ptr": model_type, "out_lse_ptr": "*fp32"}
        types |= {"n": "i32", "step": "i32", "width": "i32:16"}
        for size in (128, 64, 256):
            sizes = {"BLOCK_D": size, "EARLY": has_early(cc)}
            yield Variant.of(f"merge, head_dim {size}", _merge_kernel, types, launch, early_instructions(cc), **sizes)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for "merge"."""
    for block, warps in ((32, 4), (16, 2), (32, 2), (64, 4), (64, 8)):
        yield {"BLOCK_N": block, "num_warps": warps, "num_stages": 1}
