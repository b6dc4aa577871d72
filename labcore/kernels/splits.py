"""Into how many shares the keys of a request are cut, which keys a share has, and where its state waits to be merged.

Source: FlashAttention-3, hopper/heuristics.h (num_splits_heuristic).
"""

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kernels.merge_states import State

# [book: choose-splits]
SHORTEST_SHARE = 256  # keys: 128 KB of bf16 at head_dim 128, against 4 KB of states to write and read back
AT_ONCE = 32  # states that a merge takes in one go (its BLOCK_N)


@functools.lru_cache(maxsize=1024)
def choose_splits(
    programs: int,
    longest: int,
    multiprocessors: int,
    *,
    per_multiprocessor: int = 4,
    least: int = SHORTEST_SHARE,
    most: int = 8192,
) -> int:
    """Into how many shares to divide the keys of each request.

    programs: requests times KV heads, what runs side by side without any split. longest: keys of the longest request.
    FlashAttention-3's rule: no more than `most` asks for if those fill 80 % of the GPU, else the fewest whose last wave
    is nearly (85 % of the best possible) full; here a wave is all the programs that are resident at a time. No share is
    shorter than `least` keys, which a merge would not repay, nor than SHORTEST_SHARE where they are more than AT_ONCE;
    and none is longer than `most`: the lengths of a batch differ, and one long request must not end up alone with a few
    multiprocessors.
    """
    slots = multiprocessors * per_multiprocessor
    fewest = max(1, -(-longest // most))
    if not programs or programs * fewest >= 0.8 * slots:
        return fewest
    candidates = range(fewest, max(fewest, longest // max(least, SHORTEST_SHARE), min(longest // least, AT_ONCE)) + 1)
    waves = [programs * splits / slots for splits in candidates]
    fullness = [wave / math.ceil(wave) for wave in waves]
    return next(splits for splits, full in zip(candidates, fullness, strict=True) if full >= 0.85 * max(fullness))


@triton.jit
def share_of(split, num_splits, first, last, least, BLOCK_T: tl.constexpr):
    """The keys [begin, end) of one split: [first, last) in equal shares of whole tiles, none smaller than `least`.

    If num_splits · least covers all keys, every share has `least`, rounded up to whole tiles: where a request is cut,
    and so every rounding, then depends on its own length alone.
    """
    size = tl.maximum(tl.cdiv(last - first, num_splits), least)
    size = tl.cdiv(size, BLOCK_T) * BLOCK_T
    begin = first + split * size
    return begin, tl.minimum(begin + size, last)


# [/book]


def workspace_size(tokens: int, n_heads: int, head_dim: int, num_splits: int) -> int:
    """float32 elements that hold the states of num_splits shares of each query; without splits none are needed."""
    return num_splits * tokens * n_heads * (head_dim + 1) if num_splits > 1 else 0


def room_for_states(workspace: Tensor | None, out: Tensor, num_splits: int) -> State:
    """Where the shares' states go for an output `out` [tokens, n_heads, head_dim]: o, and float32 lse of its rows.

    Of one share o is `out` itself, lse [tokens, n_heads]. Of more, o is float32 [tokens, num_splits, n_heads, head_dim]
    in `workspace`, or newly allocated, for `merge`. Raises InputError for a workspace that is too small.
    """
    tokens, n_heads, size = out.shape
    if num_splits == 1:
        return out, torch.empty(tokens, n_heads, dtype=torch.float32, device=out.device)
    need, states = workspace_size(tokens, n_heads, size, num_splits), (tokens, num_splits, n_heads)
    if workspace is None:
        workspace = torch.empty(need, dtype=torch.float32, device=out.device)
    if workspace.dtype != torch.float32 or workspace.dim() != 1 or len(workspace) < need:
        raise InputError(
            f"workspace is {workspace.dtype} {tuple(workspace.shape)}: pass {need} float32 (workspace_size)"
        )
    outputs = math.prod(states) * size
    return workspace[:outputs].view(*states, size), workspace[outputs:need].view(states)
