"""Paged attention written out: one query, one head at a time. The oracle of every other backend."""

import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, AttentionShape


class ReferenceAttention:
    """softmax(q·K / √d)·V over the keys and values that the block table leads to."""

    def __init__(self, metadata: AttentionMetadata, shape: AttentionShape):
        self.metadata, self.shape = metadata, shape

    def __call__(self, q: Tensor, key_cache: Tensor, value_cache: Tensor) -> Tensor:
        out = torch.empty_like(q)
        start = self.metadata.query_start_loc.tolist()
        for request, length in enumerate(self.metadata.seq_lens.tolist()):
            for token in range(start[request], start[request + 1]):
                place = length - (start[request + 1] - token)
                branch = self.metadata.branches.get(token)
                position, place_of = (place, int) if branch is None else (branch.position, branch.place)
                places = [place_of(p) for p in range(self.shape.first_visible(position), position + 1)]
                out[token] = self._one_query(q[token], request, places, key_cache, value_cache)
        return out

    def _one_query(self, q: Tensor, request: int, places: list[int], key_cache: Tensor, value_cache: Tensor) -> Tensor:
        """Output [n_heads, head_dim] of a token of `request` that attends to these places."""
        shape, table = self.shape, self.metadata.block_table[request].tolist()
        slots = [(table[place // shape.block_size], place % shape.block_size) for place in places]
        keys = torch.stack([key_cache[block, offset] for block, offset in slots])  # [places, n_kv_heads, head_dim]
        values = torch.stack([value_cache[block, offset] for block, offset in slots])
        out = torch.empty_like(q)
        for head in range(shape.n_heads):
            kv_head = head * shape.n_kv_heads // shape.n_heads
            scores = keys[:, kv_head] @ q[head].to(keys.dtype) * shape.scale
            out[head] = scores.softmax(0) @ values[:, kv_head]
        return out
