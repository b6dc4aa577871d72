"""What happens to logits before a token is chosen, in vLLM's order.

allowed tokens, bad words, min_tokens, logit bias, the caller's own processors, penalties. Work is proportional to the
tokens concerned, not to the vocabulary. Source: vLLM 0.9.2, vllm/v1/sample/sampler.py, Sampler.forward; repetition
penalty from CTRL, arXiv:1909.05858.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labcore.core.errors import InputError

if TYPE_CHECKING:
    from labcore.sampling.sampler import SamplingRow


def adjusts(row: SamplingRow) -> bool:
    """Whether `adjust` would change the row's logits."""
    params = row.params
    return (
        params.presence_penalty != 0
        or params.frequency_penalty != 0
        or params.repetition_penalty != 1
        or row.num_output_tokens < params.min_tokens
        or bool(params.logit_bias or params.bad_words or params.allowed_token_ids or params.logits_processors)
    )


def adjust(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The logits [rows, vocab] from which `rows` choose. The argument may be overwritten."""
    for i, row in enumerate(rows):
        if row.params.allowed_token_ids is not None:
            allowed = list(row.params.allowed_token_ids)
            logits[i] = torch.full_like(logits[i], -torch.inf).index_copy(0, _ids(allowed, logits), logits[i, allowed])
    forbidden = [(i, token) for i, row in enumerate(rows) for token in chain(ends_bad_word(row), too_early(row))]
    if forbidden:
        logits[tuple(_ids(forbidden, logits).t())] = -torch.inf
    for i, row in enumerate(rows):
        if row.params.logit_bias:
            values = torch.tensor(list(row.params.logit_bias.values()), dtype=logits.dtype, device=logits.device)
            logits[i].index_add_(0, _ids(list(row.params.logit_bias), logits), values)
        for process in row.params.logits_processors:
            logits[i] = _processed(process, row, logits[i])
    return penalize(logits, rows)


def ends_bad_word(row: SamplingRow) -> list[int]:
    """Tokens that would complete a bad word behind the answer so far. Bad words are tuples of token ids here."""
    output = row.output_ids
    return [
        word[-1]
        for word in row.params.bad_words
        if len(word) <= len(output) + 1 and tuple(output[len(output) - len(word) + 1 :]) == tuple(word[:-1])
    ]


def too_early(row: SamplingRow) -> frozenset[int]:
    """Tokens that would end an answer that is too short."""
    return row.stop_ids if row.num_output_tokens < row.params.min_tokens else frozenset()


def penalize(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Repetition, frequency and presence penalties, in place, where a token occurs at all."""
    device, flat = logits.device, logits.view(-1)
    of = lambda name: torch.tensor([getattr(row.params, name) for row in rows], device=device)  # noqa: E731
    repetition = of("repetition_penalty")
    if (repetition != 1).any():
        seen, _ = _occurrences([row.token_ids for row in rows], logits)
        values, factor = flat[seen], repetition[seen // logits.shape[1]]
        flat[seen] = torch.where(values > 0, values / factor, values * factor)
    frequency, presence = of("frequency_penalty"), of("presence_penalty")
    if frequency.any() or presence.any():
        seen, counts = _occurrences([row.output_ids for row in rows], logits)
        row = seen // logits.shape[1]
        flat[seen] -= frequency[row] * counts + presence[row]
    return logits


def _occurrences(texts: Sequence[Sequence[int]], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices into `logits` of the tokens that each row's text contains, and how often it does."""
    vocab = logits.shape[1]
    flat = [i * vocab + token for i, text in enumerate(texts) for token in text]
    return _ids(flat, logits).unique(return_counts=True)


def _processed(process, row: SamplingRow, logits: Tensor) -> Tensor:
    result = process(row.output_ids, logits)
    if not isinstance(result, Tensor) or result.shape != logits.shape:
        raise InputError(f"a logits processor returned {type(result).__name__}; it must return logits [vocab]")
    return result


def _ids(values: list, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=like.device)
