"""The tensors of the paged KV cache. Who holds which block is the block pool's business; here are only bytes.

The one way in is `write` with a slot mapping, so that a model's pass needs no idea of requests and tables;
the one way from block to block is `move`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, AttentionShape
from labcore.attention.sdpa import FEW_QUERIES
from labcore.core.step_plan import BlockMove, Move
from labcore.kernels.cpu.attention import DecodePass, supports

Read = Callable[[int], tuple[Tensor, Tensor]]


class KVStorage:
    """keys, values: [n_layers, num_blocks, block_size, n_kv_heads, head_dim]; the host's copies have its own blocks.

    Block 0 holds zeros for ever. The rest is not touched before it is written, so that an operating system that hands
    out memory lazily charges for what is used.
    """

    def __init__(
        self,
        n_layers: int,
        shape: AttentionShape,
        *,
        num_host_blocks: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.shape, self.dtype = shape, dtype
        block = shape.block_size, shape.n_kv_heads, shape.head_dim
        self.keys, self.values = (
            torch.empty(n_layers, shape.num_blocks, *block, dtype=dtype, device=device) for _ in range(2)
        )
        self.host_keys, self.host_values = (torch.empty(n_layers, num_host_blocks, *block, dtype=dtype) for _ in "kv")
        for cache in (self.keys, self.values):
            cache[:, 0] = 0

    @property
    def arrays(self) -> list[tuple[Tensor, Tensor]]:
        """Everything that a block consists of, on the device and on the host: [n_layers, blocks, ...] each."""
        return [(self.keys, self.host_keys), (self.values, self.host_values)]

    @property
    def joint_dtype(self) -> torch.dtype | None:
        """The type in which a kernel may store keys and values itself; None if they are not stored as numbers."""
        return self.dtype

    @property
    def nbytes_per_block(self) -> int:
        """Bytes of one block, all layers, keys and values."""
        return sum(array.nbytes for array, _ in self.arrays) // self.shape.num_blocks

    def write(self, layer: int, slot_mapping: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k and v [tokens, n_kv_heads, head_dim], each token in its slot of `slot_mapping` (int64 [tokens])."""
        for cache, new in ((self.keys, k), (self.values, v)):
            cache[layer].flatten(0, 1).index_copy_(0, slot_mapping, new.to(cache.dtype))

    def view(self, metadata: AttentionMetadata) -> tuple[AttentionMetadata, AttentionShape, Read]:
        """What attention reads in a step: read(layer) gives the key and the value cache [num_blocks, block_size,
        n_kv_heads, head_dim] that the returned metadata and shape are about. Here that is everything, and no copy."""
        return metadata, self.shape, lambda layer: (self.keys[layer], self.values[layer])

    def decode_pass(self, metadata: AttentionMetadata) -> DecodePass | None:
        """The compiled kernel that stores and attends in a step with few new tokens per request; None if it cannot."""
        if metadata.max_query_len > FEW_QUERIES or metadata.branches:
            return None
        if self.shape.window is not None or not supports(self.keys):
            return None
        caches = (cache.transpose(2, 3) for cache in (self.keys, self.values))
        tables, lengths = metadata.block_table.long(), metadata.seq_lens.long()
        if metadata.max_query_len > 1:  # a row for each token, over the table of its request
            ends = metadata.query_start_loc[1:].long()
            requests = torch.arange(len(ends)).repeat_interleave(metadata.query_start_loc.diff())
            tables, lengths = tables[requests], (lengths - ends + 1)[requests] + torch.arange(len(requests))
        return DecodePass(*caches, tables, lengths)

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy tokens from slot to slot, all layers, keys and values. All are read before any is written."""
        for array, _ in self.arrays:
            slots = array.flatten(1, 2)
            slots[:, targets] = slots[:, sources]

    def move(self, moves: Iterable[BlockMove]) -> None:
        """Carry out whole-block copies, one after the other: a later one may overwrite what an earlier one read."""
        for kind, source, target in moves:
            for device, host in self.arrays:
                reads, writes = (host if kind is Move.SWAP_IN else device), (host if kind is Move.SWAP_OUT else device)
                writes[:, target].copy_(reads[:, source])
