"""Cross-layer sharing: several layers attend to the keys and values of one of them.

A model must be trained for it: its sharing layers then have no key and value projections at all. Sources: Cross-Layer
Attention, arXiv:2405.12981 (neighbours share); YOCO, arXiv:2405.05254 (the upper half shares one cache).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span, causal_attention
from labcore.kv.lossy import LossyKVCache


def cla_owners(n_layers: int, n_share: int) -> list[int]:
    """Each layer's owner when `n_share` consecutive layers share the first one's cache: 5, 2 gives [0, 0, 2, 2, 4]."""
    return [layer - layer % n_share for layer in range(n_layers)]


class SharedKVCache(LossyKVCache):
    """Layer l attends to what layer owners[l] has stored; what it brings itself is not kept unless l owns it.

    keys, values: [owning layers, slots, n_kv_heads, capacity, head_dim].
    """

    def __init__(
        self,
        owners: Sequence[int],
        n_kv_heads: int,
        head_dim: int,
        *,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(slots=slots, capacity=capacity, device=device)
        for layer, owner in enumerate(owners):
            if not 0 <= owner <= layer or owners[owner] != owner:
                raise InputError(
                    f"layer {layer} shares with {owner}; name an earlier layer, or itself, that owns a cache"
                )
        self.owners = list(owners)
        self.index = {owner: i for i, owner in enumerate(sorted(set(owners)))}
        shape = len(self.index), slots, n_kv_heads, capacity, head_dim
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        owner = self.owners[layer]
        keys, values = (one[self.index[owner], span.slot] for one in (self.keys, self.values))
        if layer == owner:
            keys[:, span.past : span.total] = k.transpose(0, 1)
            values[:, span.past : span.total] = v.transpose(0, 1)
        return causal_attention(q, keys[:, : span.total], values[:, : span.total])

    def can_truncate(self, slot: int, length: int) -> bool:
        """Nothing is ever dropped."""
        return True
