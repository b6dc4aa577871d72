"""Paged attention through torch's scaled_dot_product_attention, on any device and in any floating-point type.

SDPA wants rectangles, a step is ragged. Tokens of requests that have a few new tokens become rows of a batch, gathered
with rows of similar length; a request with many is a batch of its own, its queries one side of a triangular mask. So
is one with a draft tree, whose mask is the triangle for what is known and the tree's branches behind it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.attention.metadata import AttentionMetadata, AttentionShape
from labcore.attention.tree import node_mask

FEW_QUERIES = 8  # a request with at most so many new tokens is attended to row by row
PADDING = 128  # tokens of padding that a group of rows may hold before another group is worth its launches
VECTOR = 16  # floats; a softmax over whole vectors has the same bits however many are padding


@dataclass(slots=True)
class Chunk:
    """Many queries of one request: tokens begin:end of the pass see the cache slots [keys], as far as `mask` [queries,
    keys] is True; None where that is the plain triangle."""

    begin: int
    end: int
    slots: Tensor
    mask: Tensor | None


class SDPAAttention:
    """A backend (see `metadata`). The cache's type is the type that attention computes in."""

    def __init__(self, metadata: AttentionMetadata, shape: AttentionShape):
        self.metadata, self.shape = metadata, shape
        rows, self.chunks = [], []
        starts, device = metadata.query_start_loc.tolist(), metadata.block_table.device
        for request, length in enumerate(metadata.seq_lens.tolist()):
            begin, end = starts[request], starts[request + 1]
            if end - begin > FEW_QUERIES or end - 1 in metadata.branches:
                self.chunks.append(self._chunk(request, begin, end, length))
            else:
                rows += [(length - end + 1 + token, request, token) for token in range(begin, end)]
        self.groups = [self._group(*torch.tensor(group, device=device).unbind(1)) for group in self._grouped(rows)]

    def _grouped(self, rows: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
        """Rows (keys up to the query's own, request, place in the pass) in groups that are attended to at once."""
        return similar(rows, self.shape)

    def _group(self, lengths: Tensor, requests: Tensor, tokens: Tensor) -> tuple:
        """The places in the pass of a group of rows, and what `_attend_rows` needs to know about it.

        lengths: keys up to each query's own; requests: whose query it is; tokens: its place. All int64 [rows].
        """
        window, most = self.shape.window, self.shape.num_blocks * self.shape.block_size
        counts = lengths if window is None else lengths.clamp(max=window)
        width = min(-(-int(counts.max()) // VECTOR) * VECTOR, most)
        offsets = torch.arange(width, device=counts.device)
        seen = offsets < counts[:, None]
        slots = self._slots(requests[:, None], (lengths - counts)[:, None] + offsets)
        return tokens, *self._prepare(slots.masked_fill_(~seen, 0), seen)

    def _chunk(self, request: int, begin: int, end: int, length: int) -> Chunk:
        past, device = length - (end - begin), self.metadata.block_table.device
        first = self.shape.first_visible(past)
        keys, queries = torch.arange(first, length, device=device), torch.arange(past, length, device=device)[:, None]
        slots = self._slots(request, keys)
        nodes = [self.metadata.branches[token] for token in range(begin, end) if token in self.metadata.branches]
        if past == 0 and self.shape.window is None and not nodes:
            return Chunk(begin, end, slots, None)
        mask = keys <= queries
        if self.shape.window is not None:
            mask &= keys > queries - self.shape.window
        if nodes:
            mask[-len(nodes) :] = node_mask(nodes, first, length, self.shape).to(device)
        return Chunk(begin, end, slots, mask)

    def _slots(self, requests: Tensor | int, positions: Tensor) -> Tensor:
        """int64, shaped like `positions`. A position behind the table gets some slot of the table's last block."""
        table, size = self.metadata.block_table, self.shape.block_size
        blocks = table[requests, (positions // size).clamp(max=table.shape[1] - 1)].long()
        return blocks * size + positions % size

    def __call__(self, q: Tensor, key_cache: Tensor, value_cache: Tensor) -> Tensor:
        out, wide = torch.empty_like(q), q.to(key_cache.dtype)
        for tokens, *prepared in self.groups:
            out[tokens] = self._attend_rows(wide[tokens], key_cache, value_cache, *prepared).to(out.dtype)
        keys, values = key_cache.flatten(0, 1), value_cache.flatten(0, 1)  # [slots, n_kv_heads, head_dim]
        for chunk in self.chunks:
            attended = F.scaled_dot_product_attention(
                wide[chunk.begin : chunk.end].transpose(0, 1)[None],
                keys[chunk.slots].transpose(0, 1)[None],
                values[chunk.slots].transpose(0, 1)[None],
                attn_mask=chunk.mask,
                is_causal=chunk.mask is None,
                enable_gqa=self.shape.n_heads != self.shape.n_kv_heads,
            )
            out[chunk.begin : chunk.end] = attended[0].transpose(0, 1)
        return out

    def _prepare(self, slots: Tensor, seen: Tensor) -> tuple:
        """What `_attend_rows` gets, from the slots [rows, keys] of a group: slot 0 where `seen` is False."""
        return slots, seen[:, None, None]

    def _attend_rows(self, q: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """Output of the queries q [rows, n_heads, head_dim]; heads that share a key head are rows of one product."""
        keys, values = (cache.flatten(0, 1)[slots].transpose(1, 2) for cache in (key_cache, value_cache))
        shared = q.unflatten(1, (self.shape.n_kv_heads, -1))
        return F.scaled_dot_product_attention(shared, keys, values, attn_mask=mask).flatten(1, 2)


def similar(rows: Iterable[tuple[int, ...]], shape: AttentionShape) -> list[list[tuple[int, ...]]]:
    """Rows, which begin with their lengths, in groups of similar length: together at most PADDING tokens are missing
    to the longest of a group."""
    window = shape.window or shape.num_blocks * shape.block_size
    groups: list[list[tuple[int, ...]]] = []
    missing = PADDING + 1
    for row in sorted(rows, reverse=True):
        length = min(row[0], window)
        if groups:
            missing += min(groups[-1][0][0], window) - length
        if missing > PADDING:
            groups.append([])
            missing = 0
        groups[-1].append(row)
    return groups
