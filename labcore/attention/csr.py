"""Paged decoding on a CPU without copying a key or a value: the block table is the pattern of a sparse matrix.

Row r of the score matrix Q Kᵀ is one query head, column c one slot of the cache, and a query sees the few columns that
its block table names. So the scores are a product sampled at these places (SDDMM), and the output is a weighted sum of
the rows of V at the same places (an embedding bag). Both read the cache where it lies. Every row is computed alone and
in the order of its positions: a request's output has the same bits whatever else is in the batch.
"""

import warnings

import torch
from torch import Tensor

from labcore.attention.sdpa import SDPAAttention


class CSRAttention(SDPAAttention):
    """A backend (see `metadata`) for float32 caches on the CPU; long chunks go through SDPA."""

    def _prepare(self, slots: Tensor, seen: Tensor) -> tuple:
        """The places of a group's scores, and where each query head's begin, int32 [rows · n_heads].

        Places: a CSR matrix [rows · n_heads, cache slots · n_kv_heads], 0 where a query sees the key, -inf at padding.
        """
        shape, (rows, keys) = self.shape, slots.shape
        heads = torch.arange(shape.n_heads) * shape.n_kv_heads // shape.n_heads
        columns = (slots[:, None] * shape.n_kv_heads + heads[:, None]).int()  # [rows, n_heads, keys]
        mask = torch.zeros(columns.shape).masked_fill_(~seen[:, None], -torch.inf)
        begins = torch.arange(0, columns.numel() + 1, keys, dtype=torch.int32)
        size = rows * shape.n_heads, shape.num_blocks * shape.block_size * shape.n_kv_heads
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            flat = columns.flatten(), mask.flatten()
            return torch.sparse_csr_tensor(begins, *flat, size, check_invariants=False), begins[:-1]

    def _attend_rows(self, q: Tensor, key_cache: Tensor, value_cache: Tensor, places: Tensor, begins: Tensor) -> Tensor:
        keys, values = (cache.view(-1, self.shape.head_dim) for cache in (key_cache, value_cache))  # a row a head
        scores = torch.sparse.sampled_addmm(places, q.flatten(0, 1), keys.t(), alpha=self.shape.scale)
        weights = scores.values().view(len(begins), -1).softmax(-1).flatten()
        return torch.embedding_bag(values, places.col_indices(), begins, False, 0, False, weights)[0].view(q.shape)
