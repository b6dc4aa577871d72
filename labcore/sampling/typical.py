"""Typical acceptance, Medusa's rule: keep what the target finds plausible. Faster than exact rejection, and biased.

A drafted token is kept if the target gives it more than min(epsilon, delta · exp(-entropy)), whatever the draft
thought of it. The more certain the target is, the higher the bar. What is kept then has the draft's frequencies, not
the target's. Where nothing passes this module draws from the target; Medusa takes the argmax, which is further off.

Source: Cai et al., arXiv:2401.10774, section 2.3.1; the strict comparison is that of FasterDecoding/Medusa,
medusa/model/utils.py, evaluate_posterior, and the defaults are what medusa_generate passes to it: 0.09 and its square
root. (The function's own defaults have the two the other way round; epsilon would never bind.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.sampling.sampler import pick

EPSILON, DELTA = 0.09, 0.3


def typical_threshold(p: Tensor, epsilon: float = EPSILON, delta: float = DELTA) -> Tensor:
    """The probability [...] that a token must exceed under p [..., vocab]: min(epsilon, delta · exp(-H(p)))."""
    entropy = torch.special.entr(p).sum(-1)
    return (delta * torch.exp(-entropy)).clamp(max=epsilon)


def typical_accepts(p: Tensor, token_ids: Tensor, epsilon: float = EPSILON, delta: float = DELTA) -> Tensor:
    """bool [...]: whether each token of `token_ids` [...] passes at its place, whose law is p [..., vocab]."""
    chosen = p.gather(-1, token_ids[..., None])[..., 0]
    return chosen > typical_threshold(p, epsilon, delta)


def accept_typical(
    p: Tensor, token_ids: Sequence[int], uniform: float, epsilon: float = EPSILON, delta: float = DELTA
) -> tuple[int, int]:
    """How many of K drafted tokens are kept, and the token after them, drawn from the target's law there.

    p [K+1, vocab]; token_ids [K]; uniform: a number from [0, 1) for the draw. Raises InputError if they do not fit.
    """
    tokens = torch.as_tensor(token_ids, dtype=torch.int64, device=p.device)
    if len(p) != len(tokens) + 1:
        raise InputError(f"p has {len(p)} rows for {len(tokens)} tokens: give one more than there are tokens")
    kept = int(typical_accepts(p[:-1], tokens, epsilon, delta).cumprod(0).sum())
    number = torch.tensor([uniform], dtype=torch.float64, device=p.device)
    return kept, int(pick(p[kept : kept + 1], number))


def typical_law(p: Tensor, q: Tensor, epsilon: float = EPSILON, delta: float = DELTA) -> Tensor:
    """The law [vocab] of a token under this rule: the draft q [vocab] where the token passes, else a draw from p.

    Its distance to p is the bias. Not even q = p is free of it: what does not pass is drawn a second time, so that
    likely tokens gain. Without bias are drafts of which nothing passes, and q = p where everything does.
    """
    passes = p > typical_threshold(p, epsilon, delta)
    return torch.where(passes, q, 0) + torch.where(passes, 0, q).sum() * p
