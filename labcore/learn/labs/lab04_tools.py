"""What lab 4 gives its reader: samplers that are right and wrong, and places for the reader's own functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labcore.core.draft import Draft
from labcore.sampling.rejection import residual
from labcore.speculative.proposer import Proposer, SpeculationStep, Target


def law(*values: float) -> Tensor:
    """Probabilities, float64 [vocab]."""
    return torch.tensor(values, dtype=torch.float64)


def laws(*rows: tuple[float, ...]) -> Tensor:
    """One law a row, float64 [rows, vocab]."""
    return torch.tensor(rows, dtype=torch.float64)


def drawn_law(seed: int, vocab: int, sharpness: float = 1.0, zeros: bool = False) -> Tensor:
    """A random law, float64 [vocab]; larger `sharpness` is more certain, `zeros` makes about a third impossible."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(vocab, generator=generator, dtype=torch.float64)
    if zeros:
        logits[torch.rand(vocab, generator=generator) < 0.35] = -torch.inf
        logits[seed % vocab] = 0.0
    return logits.softmax(0)


def draws(law: Tensor, count: int, seed: int) -> Tensor:
    """int64 [count], drawn from the law."""
    return torch.multinomial(law, count, replacement=True, generator=torch.Generator().manual_seed(seed))


# What samplers that are nearly right do: the law of the token that comes out, from p and q. Each is a bug somebody
# shipped or a sentence somebody says.
MISTAKES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the rule": lambda p, q: p,
    "resamples from p after a rejection": lambda p, q: torch.minimum(p, q) + (1 - torch.minimum(p, q).sum()) * p,
    "keeps every draft": lambda p, q: q,
    "keeps with min(1, q/p)": lambda p, q: _kept(q, (q / p).clamp(max=1), residual(p, q)),
    "residual |p - q|": lambda p, q: _kept(q, (p / q).clamp(max=1), (p - q).abs() / (p - q).abs().sum()),
}


def _kept(q: Tensor, share: Tensor, instead: Tensor) -> Tensor:
    return q * share + (1 - (q * share).sum()) * instead


def speculate(process: Callable, p: Tensor, q: Tensor, length: int, count: int, seed: int = 0) -> list[int]:
    """Accepted drafts of `count` chains of `length` tokens, all from q against p, checked by `process`."""
    generator = torch.Generator().manual_seed(seed)
    target, draft, kept = p.expand(length + 1, -1), q.expand(length, -1), []
    for _ in range(count):
        tokens = torch.multinomial(q, length, replacement=True, generator=generator).tolist()
        numbers = torch.rand(length + 1, generator=generator, dtype=torch.float64)
        kept.append(process(target, draft, tokens, numbers)[0])
    return kept


def pair_with_acceptance(alpha: float, vocab: int = 6) -> tuple[Tensor, Tensor]:
    """Two laws that overlap by exactly alpha."""
    p = torch.zeros(vocab, dtype=torch.float64)
    q = p.clone()
    p[0], q[-1] = 1 - alpha, 1 - alpha
    p[1:-1] = q[1:-1] = alpha / (vocab - 2)
    return p, q


class LookupDraft(Proposer):
    """Drafts by `find(token_ids, count, min_n, max_n)`, the reader's or ours."""

    def __init__(self, target: Target, find: Callable, num_tokens: int = 3, min_n: int = 2, max_n: int = 4):
        self.find, self.num_tokens, self.lengths = find, num_tokens, (min_n, max_n)

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        found = {row.request_id: self.find(row.token_ids, row.room, *self.lengths) for row in step.rows if row.room}
        return {name: Draft(tokens) for name, tokens in found.items() if tokens}


class Watched(Proposer):
    """Another proposer, and how many of its drafts each verification kept: `kept`, a list by request id."""

    def __init__(self, inner: Proposer):
        self.inner, self.num_tokens = inner, inner.num_tokens
        self.kept: dict[str, list[int]] = {}
        self.before: dict[str, int] = {}

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        for row in step.rows:
            if row.request_id in self.before and len(row.chosen) == 1 + self.num_tokens:
                self.kept.setdefault(row.request_id, []).append(len(row.token_ids) - self.before[row.request_id] - 1)
            self.before[row.request_id] = len(row.token_ids)
        return self.inner.propose(step)
