"""Quest: keep every token, read the pages that may matter to this query.

Each page of keys is described by the least and the greatest value of every channel. A query times the greater of the
two, channel by channel, bounds from above what any key of the page can score; the pages with the greatest bounds are
read. Nothing is lost, and nothing is saved but reads. Source: arXiv:2406.10774, section 3 and algorithm 1.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span, causal_attention
from labcore.kv.lossy import LossyKVCache


class QuestKVCache(LossyKVCache):
    """All tokens of a slot in pages; from layer `dense_layers` on a query reads `pages` of them, the newest included.

    keys, values: [n_layers, slots, n_kv_heads, capacity, head_dim]; least, greatest: the channels' bounds,
    [n_layers, slots, n_kv_heads, pages of capacity, head_dim]. Queries that share a key head choose together, by the
    sum of their bounds.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        page_size: int,
        pages: int,
        dense_layers: int = 2,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(slots=slots, capacity=capacity, device=device)
        if page_size < 1 or pages < 1:
            raise InputError(f"page_size={page_size}, pages={pages}: a query reads 1 or more pages of 1 or more tokens")
        self.page_size, self.pages, self.dense_layers = page_size, pages, dense_layers
        heads = n_layers, slots, n_kv_heads
        self.keys, self.values = (torch.empty(*heads, capacity, head_dim, dtype=dtype, device=device) for _ in range(2))
        bounds = *heads, -(-capacity // page_size), head_dim
        self.least, self.greatest = (torch.empty(bounds, dtype=dtype, device=device) for _ in range(2))

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not."""
        return sum(one.nbytes for one in (self.keys, self.values, self.least, self.greatest))

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token after the other: store it, widen its page's bounds, choose pages, attend to their tokens."""
        out = torch.empty_like(q)
        keys, values = self.keys[layer, span.slot], self.values[layer, span.slot]
        for i, token in enumerate(range(span.past, span.total)):
            keys[:, token], values[:, token] = k[i], v[i]
            self._widen(layer, span.slot, token, k[i])
            out[i] = self._attend_one(layer, span.slot, token + 1, q[i : i + 1], keys, values)
        return out

    def _widen(self, layer: int, slot: int, token: int, key: Tensor) -> None:
        least, greatest = (one[layer, slot, :, token // self.page_size] for one in (self.least, self.greatest))
        first = token % self.page_size == 0
        least.copy_(key if first else torch.minimum(least, key))
        greatest.copy_(key if first else torch.maximum(greatest, key))

    def _attend_one(self, layer: int, slot: int, total: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        n_pages = -(-total // self.page_size)
        if layer < self.dense_layers or n_pages <= self.pages:
            return causal_attention(q, keys[:, :total], values[:, :total])[0]
        pages = self.choose(layer, slot, q, total)
        tokens = (pages[..., None] * self.page_size + torch.arange(self.page_size, device=self.device)).flatten(1)
        tokens = tokens[:, : (self.pages - 1) * self.page_size + total - (n_pages - 1) * self.page_size]
        heads = torch.arange(len(tokens), device=self.device)[:, None]
        return causal_attention(q, keys[heads, tokens], values[heads, tokens])[0]

    def choose(self, layer: int, slot: int, q: Tensor, total: int) -> Tensor:
        """int64 [n_kv_heads, pages]: the pages of `total` tokens that q [1, n_heads, head_dim] reads, in text order.

        The newest page is always among them, and so the last, which is the only one that may be partly filled.
        """
        n_pages = -(-total // self.page_size)
        least, greatest = (one[layer, slot, :, :n_pages].transpose(1, 2) for one in (self.least, self.greatest))
        queries = q.reshape(least.shape[0], -1, q.shape[2])
        bounds = queries.clamp(min=0) @ greatest + queries.clamp(max=0) @ least  # the sum of max(q·least, q·greatest)
        return self._largest(bounds.sum(1))

    def _largest(self, scores: Tensor) -> Tensor:
        """Of scores [n_kv_heads, n_pages] the largest, and the newest page."""
        scores[:, -1] = torch.inf
        return scores.topk(self.pages).indices.sort(dim=-1).values

    def can_truncate(self, slot: int, length: int) -> bool:
        """At a page boundary: the bounds of a page that is cut in two would stay those of the whole."""
        return length % self.page_size == 0


class ClairvoyantKVCache(QuestKVCache):
    """Quest's pages, chosen by the attention they really get: what a perfect index would read with the same budget.

    It reads every key to choose, so it saves nothing; it tells a budget that is too small from an index that is wrong.
    """

    def choose(self, layer: int, slot: int, q: Tensor, total: int) -> Tensor:
        """The pages with the largest sum of attention weights over the queries that share a key head."""
        keys = self.keys[layer, slot, :, :total]
        queries = q.reshape(len(keys), -1, q.shape[2])
        weights = (queries @ keys.mT / q.shape[2] ** 0.5).softmax(-1).sum(1)
        return self._largest(pad(weights, (0, -total % self.page_size)).unflatten(-1, (-1, self.page_size)).sum(-1))
