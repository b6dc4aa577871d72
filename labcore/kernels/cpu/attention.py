"""Attention of one new token per sequence over cached keys and values, fp32, in compiled code.

`specification` says in plain torch what is computed; `DecodePass` computes it (attention.h) for any cache whose tokens
lie in blocks: a paged cache, or a contiguous one, whose single block per sequence is its slot. It is made once a pass
and run by every layer, like the plan of FlashInfer's wrappers.
"""

import math

import torch
from torch import Tensor

from labcore.kernels.cpu.library import DecodePassLayout, library, why_unavailable


def specification(q: Tensor, keys: Tensor, values: Tensor, block_tables: Tensor, lengths: Tensor) -> Tensor:
    """softmax(q Kᵀ / sqrt(head_dim)) V of every sequence; query head h reads key head h // (n_heads / n_kv_heads).

    q: [sequences, n_heads, head_dim]; keys, values: [blocks, n_kv_heads, block_size, head_dim]; block_tables: int64
    [sequences, max_blocks]; lengths: int64 [sequences], tokens to attend to, at least 1. Returns a tensor like q.
    """
    out = torch.empty_like(q)
    for i, (table, length) in enumerate(zip(block_tables, lengths.tolist(), strict=True)):
        used = table[: -(-length // keys.shape[2])]
        k, v = (cache[used].transpose(0, 1).flatten(1, 2)[:, :length] for cache in (keys, values))
        group = q.shape[1] // keys.shape[1]
        k, v = (part.repeat_interleave(group, dim=0) for part in (k, v))  # [n_heads, length, head_dim]
        scores = torch.einsum("hd,htd->ht", q[i], k) / math.sqrt(q.shape[2])
        out[i] = torch.einsum("ht,htd->hd", scores.softmax(-1), v)
    return out


def supports(cache: Tensor) -> bool:
    """Whether this machine can run a pass over keys like `cache`: fp32 on the CPU, head_dim a multiple of 16."""
    fits = cache.dtype == torch.float32 and cache.device.type == "cpu" and cache.shape[-1] % 16 == 0
    return fits and why_unavailable() is None


class DecodePass:
    """One new token for each of some sequences whose keys and values lie in blocks.

    keys, values: fp32 [n_layers, blocks, n_kv_heads, block_size, head_dim], views of equal strides, 1 in head_dim (see
    `supports`); block_tables: int64 [sequences, max_blocks]; lengths: int64 [sequences], the new token included. Tables
    and lengths are trusted: the kernel uses them as addresses. Sequences may share blocks; what is new in any of them
    is stored before any of them attends.
    """

    def __init__(self, keys: Tensor, values: Tensor, block_tables: Tensor, lengths: Tensor):
        self._run, self.threads = library().decode_attention, torch.get_num_threads()
        tables, lengths = block_tables.contiguous(), lengths.contiguous()
        self._alive = keys, values, tables, lengths
        _, _, n_kv_heads, block_size, size = keys.shape
        layer_stride, block_stride, head_stride, token_stride, _ = keys.stride()
        self.struct = DecodePassLayout(
            keys.data_ptr(), values.data_ptr(), tables.data_ptr(), lengths.data_ptr(),
            len(tables), tables.shape[1], int(lengths.max()), n_kv_heads, 0, size,
            block_size, layer_stride, block_stride, token_stride, head_stride, size**-0.5,
        )  # fmt: skip

    def serve(self, n_heads: int) -> DecodePassLayout:
        """The kernel's argument, for queries of n_heads heads."""
        self.struct.group = n_heads // self.struct.kv_heads
        return self.struct

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v as the newest tokens of `layer`, then attend with q; the `attend` of `model.llama`.

        q: [sequences, n_heads, head_dim]; k, v: [sequences, n_kv_heads, head_dim]; returns a tensor like q.
        """
        q, k, v = (part if part.stride()[1:] == (part.shape[2], 1) else part.contiguous() for part in (q, k, v))
        if k.stride(0) != v.stride(0):
            k, v = k.contiguous(), v.contiguous()
        out = torch.empty(q.shape)
        layout, strides = self.serve(q.shape[1]), (q.stride(0), k.stride(0))
        self._run(layout, layer, q.data_ptr(), k.data_ptr(), v.data_ptr(), *strides, out.data_ptr(), self.threads)
        return out
