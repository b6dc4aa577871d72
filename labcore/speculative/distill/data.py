"""From examples on disk to training batches: answers with a little context, flat, one sequence after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.speculative.distill.generate import Example

CONTEXT = 64


@dataclass(frozen=True)
class Batch:
    """Sequences one after the other; every tensor has one row for each token t that has a feature and two successors.

    token_ids: int64 [tokens, ahead + 2], token t and those after it, -1 beyond the end; positions: int64 [tokens];
    features: fp32 [tokens, 4, hidden], of token t (see Example); following: the last of them, of token t+1: the state
    from which the target says token t+2; learns: bool [tokens], whether token t+1 belongs to the answer;
    lengths: rows of each sequence; firsts: where in its sequence each begins to learn.
    """

    token_ids: Tensor
    positions: Tensor
    features: Tensor
    following: Tensor
    learns: Tensor
    lengths: list[int]
    firsts: list[int]


def batch(examples: Sequence[Example], ahead: int, context: int = CONTEXT) -> Batch:
    """The examples as a batch whose rows look `ahead` tokens beyond t+1; of each prompt the last `context` tokens."""
    parts = [_rows(one, ahead, context) for one in examples]
    ids, positions, features, following, firsts = zip(*parts, strict=True)
    learns = [torch.arange(len(one)) >= first for one, first in zip(ids, firsts, strict=True)]
    tensors = (torch.cat(part) for part in (ids, positions, features, following, learns))
    return Batch(*tensors, [len(one) for one in ids], list(firsts))


def _rows(example: Example, ahead: int, context: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    begin = max(0, example.num_prompt_tokens - context)
    count = len(example.token_ids) - begin - 2
    padded = torch.tensor(example.token_ids[begin:] + [-1] * ahead)
    ids = padded.unfold(0, ahead + 2, 1)[:count]
    features, first = example.features[begin:].float(), example.num_prompt_tokens - 1 - begin
    return ids, torch.arange(begin, begin + count), features[:-1], features[1:, -1], first


def draft_vocabulary(examples: Sequence[Example], size: int, vocab: int) -> Tensor:
    """The ids of the `size` most frequent tokens of the answers, sorted. Tokens that no answer has come last, by id:
    byte-pair encoding learns frequent tokens first, so a low id is a frequent token."""
    counts = Counter(token for one in examples for token in one.token_ids[one.num_prompt_tokens :])
    return torch.tensor(sorted(sorted(range(vocab), key=lambda token: -counts[token])[:size]))


def coverage(examples: Sequence[Example], vocabulary: Tensor) -> float:
    """The share of answer tokens that the draft vocabulary has."""
    tokens = torch.tensor([token for one in examples for token in one.token_ids[one.num_prompt_tokens :]])
    return torch.isin(tokens, vocabulary).float().mean().item()
