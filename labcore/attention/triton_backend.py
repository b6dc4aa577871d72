"""Paged attention by the package's own Triton kernels, on a GPU (or anywhere, slowly, in Triton's interpreter).

Nothing in a step depends on a length that only the device knows, so a decoding step can be captured as a CUDA graph.
What a graph freezes beside addresses are the number of rows, the table's width, and max_seq_len, which decides into how
many shares keys are split and so how much room their states take: the key of `cuda_graphs` stands for all three.
"""

from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, AttentionShape
from labcore.attention.sdpa import SDPAAttention
from labcore.kernels.attention_decode import paged_decode
from labcore.kernels.attention_paged import paged_attention


class TritonAttention:
    """A backend (see `metadata`). Steps with draft trees, which need a mask, go through SDPA."""

    def __init__(self, metadata: AttentionMetadata, shape: AttentionShape):
        self.metadata, self.window = metadata, shape.window
        self.with_trees = SDPAAttention(metadata, shape) if metadata.branches else None
        self.starts, self.lengths = metadata.beside_table

    def __call__(self, q: Tensor, key_cache: Tensor, value_cache: Tensor) -> Tensor:
        if self.with_trees is not None:
            return self.with_trees(q, key_cache, value_cache)
        metadata, wide = self.metadata, q.to(key_cache.dtype)
        if metadata.max_query_len == 1:
            out = paged_decode(
                wide, key_cache, value_cache, metadata.block_table, self.lengths,
                window=self.window, max_seq_len=metadata.max_seq_len,
            )  # fmt: skip
        else:
            out = paged_attention(
                wide, key_cache, value_cache, self.starts, self.lengths, metadata.block_table, metadata.max_query_len,
                window=self.window, max_seq_len=metadata.max_seq_len,
            )  # fmt: skip
        return out.to(q.dtype)
