"""Sliding windows: a layer that sees the newest W tokens needs to keep no more.

A window's tokens live in a ring: token t lies at index t mod W, where the token that just left the window lay. Layers
may differ, which makes hybrids of local and global layers. Sources: Mistral 7B, arXiv:2310.06825, section 2 (rolling
buffer cache); Gemma 3, arXiv:2503.19786, section 2 (5 local layers to 1 global).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span, causal_attention
from labcore.kv.lossy import LossyKVCache, masked_attention


def local_global(n_layers: int, window: int, n_local: int) -> list[int | None]:
    """One window per layer: `n_local` layers that see `window` tokens, then one that sees all (None), and again.

    n_layers=7, window=64, n_local=5 gives [64, 64, 64, 64, 64, None, 64].
    """
    return [None if layer % (n_local + 1) == n_local else window for layer in range(n_layers)]


class SlidingWindowKVCache(LossyKVCache):
    """Keys and values of the newest `windows[layer]` tokens of each layer; None keeps all `capacity` of them.

    keys[layer], values[layer]: [slots, n_kv_heads, room, head_dim] with room = min(window, capacity).
    """

    def __init__(
        self,
        windows: Sequence[int | None],
        n_kv_heads: int,
        head_dim: int,
        *,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(slots=slots, capacity=capacity, device=device)
        if bad := [window for window in windows if window is not None and window < 1]:
            raise InputError(f"a window of {bad[0]} tokens; it holds at least the newest one, and None means all")
        self.windows = [capacity if window is None else min(window, capacity) for window in windows]
        self.keys, self.values = (
            [torch.empty(slots, n_kv_heads, room, head_dim, dtype=dtype, device=device) for room in self.windows]
            for _ in range(2)
        )

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not."""
        return sum(one.nbytes for one in (*self.keys, *self.values))

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Token t of the sequence sees tokens t - W + 1 to t."""
        window, new = self.windows[layer], span.end - span.begin
        rings = self.keys[layer][span.slot], self.values[layer][span.slot]
        if new == 1:  # the order of keys means nothing to one query that sees them all
            for ring, one in zip(rings, (k, v), strict=True):
                ring[:, span.past % window] = one[0]
            held = min(span.total, window)
            return causal_attention(q, *(ring[:, :held] for ring in rings))
        before = torch.arange(max(0, span.past - window + 1), span.past, device=self.device)
        keys, values = (
            torch.cat((ring[:, before % window], one.transpose(0, 1)), dim=1)
            for ring, one in zip(rings, (k, v), strict=True)
        )
        positions = torch.arange(span.past, span.total, device=self.device)
        age = positions[:, None] - torch.cat((before, positions))[None]
        out = masked_attention(q, keys, values, (age >= 0) & (age < window))
        kept = positions[-window:]
        for ring, one in zip(rings, (keys, values), strict=True):
            ring[:, kept % window] = one[:, -len(kept) :]
        return out

    def can_truncate(self, slot: int, length: int) -> bool:
        """A ring holds the tokens from seen - W on; the next query will want those from length - W + 1 on."""
        seen = self.lengths[slot]
        return all(max(0, length - window + 1) >= seen - window for window in self.windows)
