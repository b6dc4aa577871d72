"""Token eviction: a budget of tokens a head, and a rule that says which go when it is spent.

H2O (arXiv:2306.14048) keeps the recent tokens and the heavy hitters, those that received the most attention in sum.
Scissorhands (arXiv:2305.17118) keeps the recent tokens and those that were seldom below average for a while.
Both choose for each layer and key/value head by itself, and both must see attention probabilities, which fused kernels
never write to memory. Keys keep the positions that they had in the text.
"""

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span
from labcore.kv.lossy import LossyKVCache


class EvictingKVCache(LossyKVCache):
    """At most `budget` tokens a head: the newest `recent`, and of the others those that the rule prefers.

    keys, values: [n_layers, slots, n_kv_heads, budget, head_dim]. Beside each of them lie, [n_layers, slots,
    n_kv_heads, budget]: born (int32), its token of the text, and record (float32), what the rule remembers of it.
    held[layer][slot]: tokens that a head holds. A subclass writes `make_room` and `observe`.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        budget: int,
        recent: int,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(slots=slots, capacity=capacity, device=device)
        if not 1 <= recent <= budget:
            raise InputError(
                f"budget={budget}, recent={recent}: the budget holds the recent tokens, at least 1 of them"
            )
        self.budget, self.recent = budget, recent
        places = n_layers, slots, n_kv_heads, budget
        self.keys, self.values = (torch.empty(*places, head_dim, dtype=dtype, device=device) for _ in range(2))
        self.born = torch.empty(places, dtype=torch.int32, device=device)
        self.record = torch.empty(places, dtype=torch.float32, device=device)
        self.held = [[0] * slots for _ in range(n_layers)]
        self.heads = torch.arange(n_kv_heads, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not, with what the rule needs."""
        return sum(one.nbytes for one in (self.keys, self.values, self.born, self.record))

    def make_room(self, layer: int, slot: int, token: int) -> Tensor:
        """The budget is spent and `token` arrives: give up one token a head or more; the free places, [n_kv_heads]."""
        raise NotImplementedError

    def observe(self, layer: int, slot: int, attention: Tensor) -> None:
        """Learn from the attention [n_kv_heads, held] that the newest token paid, mean over the queries of a head."""
        raise NotImplementedError

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token after the other: make room for it, store it, attend to the tokens held, learn from that."""
        out = torch.empty_like(q)
        for i in range(span.end - span.begin):
            self._store(layer, span.slot, span.past + i, k[i], v[i])
            held = self.held[layer][span.slot]
            keys, values = (one[layer, span.slot, :, :held] for one in (self.keys, self.values))
            queries = q[i].reshape(keys.shape[0], -1, q.shape[2])  # [kv heads, queries that share one, head_dim]
            scores = queries @ keys.transpose(1, 2) / q.shape[2] ** 0.5
            probabilities = scores.float().softmax(-1)
            out[i] = (probabilities.to(values.dtype) @ values).reshape(q.shape[1:])
            self.observe(layer, span.slot, probabilities.mean(1))
        return out

    def _store(self, layer: int, slot: int, token: int, k: Tensor, v: Tensor) -> None:
        if self.held[layer][slot] == self.budget:
            place = self.make_room(layer, slot, token)
        else:
            place = torch.full_like(self.heads, self.held[layer][slot])
        self.held[layer][slot] = min(self.budget, self.held[layer][slot] + 1)
        self.keys[layer, slot, self.heads, place], self.values[layer, slot, self.heads, place] = k, v
        self.born[layer, slot, self.heads, place] = token
        self.record[layer, slot, self.heads, place] = 0

    def protected(self, layer: int, slot: int, token: int) -> Tensor:
        """bool [n_kv_heads, budget]: places of tokens that are among the newest `recent` once `token` has come."""
        return self.born[layer, slot] > token - self.recent

    def truncate(self, slot: int, length: int) -> None:
        super().truncate(slot, length)
        if length == 0:
            for held in self.held:
                held[slot] = 0


class H2OKVCache(EvictingKVCache):
    """Heavy-hitter oracle. Source: arXiv:2306.14048, algorithm 1, with the victim chosen before the newest query."""

    def make_room(self, layer: int, slot: int, token: int) -> Tensor:
        """The place of the token with the least attention, summed over all queries since it came."""
        scores = self.record[layer, slot].masked_fill(self.protected(layer, slot, token), torch.inf)
        return scores.argmin(-1)

    def observe(self, layer: int, slot: int, attention: Tensor) -> None:
        self.record[layer, slot, :, : attention.shape[1]] += attention


class ScissorhandsKVCache(EvictingKVCache):
    """Persistence of importance: a token that was important stays so, and one that was not may go.

    When the budget is spent, `drop` tokens a head go at once: those that paid attention fell below its average, 1/held,
    for the most often during the last `history` queries. Source: arXiv:2305.17118, algorithms 1 and 2.
    """

    def __init__(self, *shape: int, budget: int, recent: int, history: int, drop: int, **size):
        super().__init__(*shape, budget=budget, recent=recent, **size)
        if not 1 <= history <= drop <= budget - recent:
            raise InputError(
                f"history={history}, drop={drop}: need 1 <= history <= drop <= {budget - recent}, which is the budget "
                "without the recent tokens"
            )
        self.history, self.drop = history, drop

    def make_room(self, layer: int, slot: int, token: int) -> Tensor:
        """Move the tokens that stay to the front, oldest first, and count anew."""
        below = self.record[layer, slot].masked_fill(self.protected(layer, slot, token), -1)
        kept = below.argsort(dim=-1, stable=True)[:, : self.budget - self.drop].sort(dim=-1).values
        for one in (self.keys, self.values, self.born):
            held = one[layer, slot]
            held[:, : kept.shape[1]] = held[self.heads[:, None], kept]
        self.record[layer, slot] = 0
        self.held[layer][slot] = kept.shape[1]
        return torch.full_like(self.heads, kept.shape[1])

    def observe(self, layer: int, slot: int, attention: Tensor) -> None:
        held = attention.shape[1]
        if held > self.budget - self.history:
            self.record[layer, slot, :, :held] += attention < 1 / held
