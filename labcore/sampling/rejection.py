"""Speculative sampling: tokens drawn from a draft's law q that come out with the target's law p.

A token x drawn from q is kept with probability min(1, p(x)/q(x)). If it is not, the token drawn in its place comes
from what q left undone, max(0, p - q) normalised. Then x appears with probability

    min(p(x), q(x))  +  (1 - sum of min(p, q)) · residual(x)  =  min(p(x), q(x)) + max(0, p(x) - q(x))  =  p(x).

p and q are rows of probabilities after temperature and truncation (`sampler.law`), of one floating-point type. The
random numbers are arguments, so every function here is deterministic. Sources: Leviathan et al., arXiv:2211.17192,
section 2.3 and appendix A.1; Chen et al., arXiv:2302.01318, algorithm 2; several candidates, SpecInfer,
arXiv:2305.09781, algorithm 2; what typical acceptance does instead: labcore.sampling.typical.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.sampling.sampler import pick


def acceptance_rate(p: Tensor, q: Tensor) -> Tensor:
    """alpha [...]: the probability that a token drawn from q is kept, from p and q [..., vocab].

    The sum of min(p, q), which is 1 minus the total variation distance of the two.
    """
    return torch.minimum(p, q).sum(-1)


def accepts(p: Tensor, q: Tensor, token_id: int, uniform: float) -> bool:
    """Whether the token is kept: uniform < p(x)/q(x), for a number from [0, 1). A token with p(x) = 0 never is."""
    return uniform * float(q[token_id]) < float(p[token_id])


def residual(p: Tensor, q: Tensor) -> Tensor:
    """The law of the token in place of a rejected one: max(0, p - q) [vocab], normalised.

    Where rounding leaves nothing, because p and q are equal to within it, p itself.
    """
    left = (p - q).clamp(min=0)
    total = left.sum()
    return left / total if total > 0 else p


def accept_chain(p: Tensor, q: Tensor, token_ids: Sequence[int], uniforms: Sequence[float] | Tensor) -> tuple[int, int]:
    """How many of K drafted tokens are kept, and the token after them.

    p [K+1, vocab]: the target's laws at the places of the draft and behind it; q [K, vocab]: the laws that token_ids
    [K] were drawn from, one after the other; uniforms [K+1]: numbers from [0, 1), one for every decision and the last
    for the token that follows: a draw from the residual after a rejection, from p[K] if the whole draft was kept.
    """
    numbers = _numbers(p, q, token_ids, uniforms, rows=len(q) + 1)
    for i, (token, number) in enumerate(zip(token_ids, numbers[:-1], strict=True)):
        if not accepts(p[i], q[i], int(token), number):
            return i, _pick(residual(p[i], q[i]), numbers[-1])
    return len(q), _pick(p[-1], numbers[-1])


def accept_candidates(
    p: Tensor, qs: Tensor, token_ids: Sequence[int], uniforms: Sequence[float] | Tensor
) -> tuple[int | None, int]:
    """Which of n candidates for one place is kept (None: none of them), and the token at that place.

    p [vocab]; token_ids [n]: drawn from the rows of qs [n, vocab], where a row may depend on the candidates before
    it, see `without_replacement`; uniforms [n+1]. A rejected candidate leaves its residual as the law that the next
    one has to meet, so the token has the law p whatever the qs are.
    """
    numbers = _numbers(p[None], qs, token_ids, uniforms, rows=1)
    left = p
    for i, (token, number) in enumerate(zip(token_ids, numbers[:-1], strict=True)):
        if accepts(left, qs[i], int(token), number):
            return i, int(token)
        left = residual(left, qs[i])
    return None, _pick(left, numbers[-1])


def without_replacement(q: Tensor, token_ids: Sequence[int]) -> Tensor:
    """The laws [n, vocab] of n tokens drawn from q [vocab] one after the other, none of them twice.

    Raises InputError for a token that its law cannot draw: a second time, or with q(x) = 0.
    """
    laws = []
    for token in token_ids:
        if not q[token] > 0:
            raise InputError(f"token {int(token)} cannot be drawn here: it was drawn before, or its probability is 0")
        laws.append(q / q.sum())
        q = q.index_fill(0, torch.tensor([int(token)], device=q.device), 0.0)
    return torch.stack(laws) if laws else q.new_zeros(0, len(q))


def _pick(weights: Tensor, uniform: float) -> int:
    return int(pick(weights[None], torch.tensor([uniform], dtype=torch.float64, device=weights.device)))


def _numbers(p: Tensor, q: Tensor, token_ids: Sequence[int], uniforms: Sequence[float] | Tensor, rows: int) -> list:
    """`uniforms` as floats. Raises InputError unless there are `rows` laws p, one q a token, and a number more."""
    numbers = uniforms.tolist() if isinstance(uniforms, Tensor) else list(uniforms)
    if len(p) != rows or p.shape[1:] != q.shape[1:] or len(token_ids) != len(q) or len(numbers) != len(q) + 1:
        raise InputError(
            f"p {list(p.shape)}, q {list(q.shape)}, {len(token_ids)} tokens and {len(numbers)} random numbers do not "
            f"fit: for {len(q)} tokens p has {rows} rows of the same vocabulary, and there are {len(q) + 1} numbers"
        )
    return numbers
