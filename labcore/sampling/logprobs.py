"""Log probabilities of the chosen and of the likeliest tokens, by the model's own distribution.

As in vLLM, they are taken from the logits before penalties, temperature and truncation.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Logprob:
    """rank: 1 for the likeliest token; decoded_token: its text, where a tokenizer is at hand."""

    logprob: float
    rank: int
    decoded_token: str | None = None


Logprobs = dict[int, Logprob]


def likeliest(logits: Tensor, token_id: int, count: int) -> Logprobs:
    """The chosen token first, then the `count` likeliest in order, from logits [vocab]."""
    logprobs = logits.log_softmax(-1)
    rank = int((logprobs > logprobs[token_id]).sum()) + 1
    found = {token_id: Logprob(float(logprobs[token_id]), rank)}
    values, ids = logprobs.topk(min(count, len(logprobs)))
    for rank, (token, value) in enumerate(zip(ids.tolist(), values.tolist(), strict=True), start=1):
        found.setdefault(token, Logprob(value, rank))
    return found
