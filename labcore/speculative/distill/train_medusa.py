"""Medusa-1: heads trained on the target's own answers, the target frozen.

The loss is the paper's: cross-entropy of head k on token t+k+1, weighted 0.8^k (arXiv:2401.10774, section 2.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.speculative.distill.data import Batch, batch
from labcore.speculative.distill.fit import Recipe, Say, fit, judged
from labcore.speculative.distill.generate import Example
from labcore.speculative.medusa import MedusaHeads
from labcore.speculative.reduced_head import ReducedHead

DECAY, RANKS = 0.8, 10


def train_medusa(
    head: ReducedHead, examples: Sequence[Example], count: int, recipe: Recipe, say: Say = lambda line: None
) -> tuple[MedusaHeads, list[float]]:
    """`count` heads, and their losses. A token that the draft vocabulary lacks is nothing to learn."""
    heads = MedusaHeads(head.width, count)
    return heads, fit(heads, lambda one: loss(heads, head, one), examples, count, recipe, say)


def loss(heads: MedusaHeads, head: ReducedHead, one: Batch) -> Tensor:
    learning, total = one.learns.nonzero()[:, 0], torch.zeros(())
    rows = learning[judged(len(learning))]
    for k, guess in enumerate(heads(one.features[rows, -1]).unbind(1)):
        wanted = head.places(one.token_ids[rows, 2 + k])
        known = wanted >= 0
        total = total + DECAY**k * F.cross_entropy(head(guess[known]), wanted[known])
    return total


@torch.inference_mode()
def accuracies(heads: MedusaHeads, head: ReducedHead, examples: Sequence[Example]) -> list[list[float]]:
    """accuracies[k][r]: how often the r-th best guess of head k is the token; every token counts."""
    count = len(heads.heads)
    right, tried = torch.zeros(count, RANKS), torch.zeros(count, 1)
    for example in examples:
        one = batch([example], count)
        for k, guess in enumerate(heads(one.features[one.learns, -1]).unbind(1)):
            tokens = one.token_ids[one.learns, 2 + k]
            guesses, _ = head.likeliest(guess[tokens >= 0], RANKS)
            right[k] += (guesses == tokens[tokens >= 0, None]).sum(0)
            tried[k] += (tokens >= 0).sum()
    return [[round(value, 4) for value in row] for row in (right / tried.clamp(min=1)).tolist()]
