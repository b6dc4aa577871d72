"""What lab 6 gives its reader: where kernels run here, inputs with a fence of NaN around them, and random page tables.

Without a GPU for which Triton compiles (compute capability 7.5, a T4, or more) the kernels run in its interpreter. That
is decided before Triton is first imported, here.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor

from labcore.core.errors import InputError

DEVICE = "cuda" if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 5) else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    if "triton" in sys.modules:
        raise InputError("Triton was imported before lab 6 could choose its interpreter: restart and run from the top")
    os.environ["TRITON_INTERPRET"] = "1"

import triton  # noqa: E402

SECONDS = 10.0 if DEVICE == "cpu" else 60.0  # a check may take; on a GPU it compiles first, ten times or more
UNWRITTEN = 0x7FA00000  # bits of a signaling NaN: arithmetic makes quiet ones, so where they stand nothing was stored
FENCE = 4096  # elements before and after each input and output: more than a tile, so a stray access stays inside


def fenced(values: Tensor) -> Tensor:
    """The same numbers on DEVICE, with NaN before and behind (integers: -1): what is read past the end shows."""
    room = torch.full((values.numel() + 2 * FENCE,), torch.nan if values.is_floating_point() else -1).to(values.dtype)
    room[FENCE : FENCE + values.numel()] = values.flatten()
    return room.to(DEVICE)[FENCE : FENCE + values.numel()].view(values.shape)


def fences(inside: Tensor) -> Tensor:
    """What lies before and behind a fenced tensor, [2, FENCE]; nothing, [2, 0], for one that has no fence."""
    first, last = inside.storage_offset() - FENCE, inside.storage_offset() + inside.numel()
    room = inside.untyped_storage().nbytes() // inside.element_size()
    if first < 0 or last + FENCE > room or not inside.is_contiguous():
        return inside.new_empty(2, 0)
    return torch.as_strided(inside, (2, FENCE), (last - first, 1), first)


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers, float32, fenced."""
    return fenced(scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def table_of(*rows: tuple[float, ...]) -> Tensor:
    """float32 [rows, columns], fenced."""
    return fenced(torch.tensor(rows, dtype=torch.float32))


def nothing_written(*shape: int) -> Tensor:
    """An output before the kernel ran: float32, UNWRITTEN, and fenced, so that a stray store hits nothing."""
    return fenced(torch.full(shape, UNWRITTEN, dtype=torch.int32).view(torch.float32))


def unwritten(out: object) -> list[list[int]]:
    """The indices at which an output still is as `nothing_written` made it; none in anything but a float32 tensor."""
    if not isinstance(out, Tensor) or out.dtype != torch.float32:
        return []
    return (out.view(torch.int32) == UNWRITTEN).nonzero().tolist()


def drawn_cache(seed: int, lengths: tuple[int, ...], heads: int, kv_heads: int, page: int, dim: int) -> tuple:
    """(q [B, heads, dim], k_cache, v_cache [pages, page, kv_heads, dim], table int32 [B, pages], lengths int32 [B]).

    Pages lie in random order; what no request has written is NaN, and the table is padded with -1.
    """
    generator = torch.Generator().manual_seed(seed)
    used = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(used) + 2, generator=generator).tolist()
    table = torch.full((len(lengths), max(*used, 1) + 1), -1, dtype=torch.int32)
    caches = torch.full((2, sum(used) + 2, page, kv_heads, dim), torch.nan)
    for request, length in enumerate(lengths):
        pages = [order.pop() for _ in range(used[request])]
        table[request, : used[request]] = torch.tensor(pages, dtype=torch.int32)
        for position in range(length):
            where = pages[position // page], position % page
            caches[(slice(None), *where)] = torch.randn(2, kv_heads, dim, generator=generator)
    q = torch.randn(len(lengths), heads, dim, generator=generator)
    count = torch.tensor(lengths, dtype=torch.int32)
    return fenced(q), fenced(caches[0]), fenced(caches[1]), fenced(table), fenced(count)


def drawn_weight4(seed: int, outputs: int, inputs: int, group: int) -> tuple[Tensor, Tensor]:
    """(data uint8 [outputs, inputs/2], scale float32 [inputs/group, outputs]) of a random 4-bit weight."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(256, (outputs, inputs // 2), generator=generator, dtype=torch.uint8)
    return fenced(data), fenced(0.05 + torch.rand(inputs // group, outputs, generator=generator))


def launch_row(kernel, q: Tensor, k: Tensor, v: Tensor, tile: int) -> Tensor:
    """kernel[(1,)](q, k, v, out, n, scale, D, TILE), one program, for q [D], k and v [n, D]; returns out [D]."""
    out = nothing_written(len(q))
    kernel[(1,)](q, k, v, out, len(k), len(q) ** -0.5, D=len(q), TILE=tile)
    return out


def interpreted() -> bool:
    """Whether kernels run in the interpreter."""
    return triton.knobs.runtime.interpret
