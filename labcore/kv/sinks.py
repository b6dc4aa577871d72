"""StreamingLLM: a window of recent tokens, and the first few tokens of the text for ever.

A softmax must put its weight somewhere, and trained models park what they do not need on the first tokens. A window
that drops these attention sinks takes away that place. Source: arXiv:2309.17453, section 3.2.
"""

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span, causal_attention
from labcore.kv.lossy import LossyKVCache, Rotate


class AttentionSinkKVCache(LossyKVCache):
    """The first `sinks` tokens and the newest `recent` of the rest, at positions counted inside the cache.

    Keys are kept before rotation and turned, on every read, by their place among the tokens held: what counts is the
    distance in the cache, not in the text. So no distance ever exceeds sinks + recent, and a text may go on for longer
    than the model's context. keys, values: [n_layers, slots, n_kv_heads, sinks + recent, head_dim]; token t lies at
    index t if it is a sink, else in a ring behind the sinks.
    """

    raw = True

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        sinks: int,
        recent: int,
        rotate: Rotate,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(slots=slots, capacity=capacity, device=device)
        if sinks < 0 or recent < 1:
            raise InputError(f"sinks={sinks}, recent={recent}: need 0 or more sinks, and 1 or more recent tokens")
        shape = n_layers, slots, n_kv_heads, sinks + recent, head_dim
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.sinks, self.recent, self.rotate = sinks, recent, rotate

    def held(self, seen: int) -> Tensor:
        """int64: the tokens of the text that a slot holds once it has seen `seen` of them, oldest first."""
        oldest = max(min(self.sinks, seen), seen - self.recent)
        return torch.cat((torch.arange(min(self.sinks, seen)), torch.arange(oldest, seen))).to(self.device)

    def index(self, tokens: Tensor) -> Tensor:
        """Where in the slot each token of the text lies."""
        return torch.where(tokens < self.sinks, tokens, self.sinks + (tokens - self.sinks) % self.recent)

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token after the other: each may push one out, and that moves all others closer to the sinks."""
        keys, values = self.keys[layer, span.slot], self.values[layer, span.slot]
        out = torch.empty_like(q)
        for i in range(span.end - span.begin):
            tokens = self.held(span.past + i + 1)
            place = self.index(tokens)
            keys[:, place[-1]], values[:, place[-1]] = k[i], v[i]
            positions = torch.arange(len(tokens), device=self.device)
            turned = self.rotate(keys[:, place].transpose(0, 1), positions).transpose(0, 1)
            out[i] = causal_attention(self.rotate(q[i : i + 1], positions[-1:]), turned, values[:, place])[0]
        return out

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether every token it would hold at `length`, but the one the next token pushes out, is still there."""
        here = set(self.held(self.lengths[slot]).tolist())
        return set(self.held(length + 1)[:-1].tolist()) <= here
