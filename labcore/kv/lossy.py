"""What the caches that keep less than every key and value have in common.

Each takes the place of ContiguousKVCache: the same `extend`, the same `attend`. What a lossy cache keeps of a token
depends on the tokens before it only, so it makes no difference in how many passes a sequence arrives.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kv.contiguous import ContiguousKVCache, Span

# rotate(x [tokens, heads, head_dim], positions int64 [tokens]) -> x turned by its positions, as rotary embeddings do
Rotate = Callable[[Tensor, Tensor], Tensor]


def masked_attention(q: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention in which query i sees the keys j with visible[i, j].

    q: [new, n_heads, head_dim]; keys, values: [n_kv_heads, tokens, head_dim]; visible: bool [new, tokens], at least one
    key a row. Returns [new, n_heads, head_dim].
    """
    grouped = q.shape[1] != keys.shape[0]
    attended = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], attn_mask=visible, enable_gqa=grouped
    )
    return attended[0].transpose(0, 1)


class LossyKVCache(ContiguousKVCache):
    """A subclass allocates what it wants to keep, as `keys` and `values` or otherwise, and writes `attend`.

    `capacity` bounds how long a sequence may become, `lengths` counts what a slot has seen: not what it still holds.
    """

    raw = False  # True: the pass reports position 0 for every token, so that keys and queries arrive before rotation

    def __init__(self, *, slots: int, capacity: int, device: torch.device | str = "cpu"):
        if slots < 1 or capacity < 1:
            raise InputError(f"slots={slots}, capacity={capacity}: a cache needs 1 or more of each")
        self.capacity, self.device = capacity, torch.device(device)
        self.lengths = [0] * slots

    def extend(self, new_tokens: Sequence[tuple[int, int]]) -> "LossyExtension":
        """As ContiguousKVCache.extend."""
        return LossyExtension(self, self.reserve(new_tokens))

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v [new, n_kv_heads, head_dim] of one sequence; return its attention output, shaped like q."""
        raise NotImplementedError

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of `slot`; 0 empties it for another sequence.

        InputError when a token that would be needed again has been dropped.
        """
        if length not in (0, self.lengths[slot]) and not self.can_truncate(slot, length):
            raise InputError(
                f"slot {slot}: the {self.lengths[slot]} tokens it has seen cannot be truncated to {length}, because "
                f"some that would be needed again are gone; truncate it to 0 and decode the sequence again"
            )
        super().truncate(slot, length)

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether the slot still holds what it would hold had it seen `length` tokens only."""
        return False


class LossyExtension:
    """One pass over new tokens of some sequences, each handed to the cache's `attend`."""

    def __init__(self, cache: LossyKVCache, spans: list[Span]):
        self.cache, self.spans = cache, spans

    @property
    def positions(self) -> Tensor:
        """int64 [tokens]: the position by which the decoder turns each token's query and key."""
        own = torch.cat([torch.arange(span.past, span.total) for span in self.spans]).to(self.cache.device)
        return torch.zeros_like(own) if self.cache.raw else own

    @property
    def last(self) -> Tensor:
        """int64 [sequences]: the pass index of each sequence's newest token."""
        return torch.tensor([span.end - 1 for span in self.spans], device=self.cache.device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention output of the pass, shaped like q [tokens, n_heads, head_dim]."""
        out = torch.empty_like(q)
        for span in self.spans:
            new = slice(span.begin, span.end)
            out[new] = self.cache.attend(layer, span, q[new], k[new], v[new])
        return out
