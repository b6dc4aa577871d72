"""One token from each row of logits, whatever mixture of parameters the rows have.

A token depends on its own row only: on its logits, its parameters and its own generator's next number. One number is
drawn per token, so from equal logits a request draws the same tokens alone, in any batch, and after a preemption. A row
that cannot be sampled fails by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labcore.core.sampling_params import SamplingParams
from labcore.sampling.logprobs import Logprobs, likeliest
from labcore.sampling.processors import adjust, adjusts
from labcore.sampling.truncation import truncate

COLDEST, HOTTEST = 1e-30, 1e30  # float32 holds both and their inverses, and draws beyond them as it draws there


@dataclass(slots=True)
class SamplingRow:
    """What a row of logits belongs to. token_ids: the prompt's num_prompt_tokens and the answer before this row;
    stop_ids: tokens that would end the answer; generator: the request's own random numbers, None if it is greedy."""

    params: SamplingParams
    token_ids: list[int]
    num_prompt_tokens: int
    stop_ids: frozenset[int] = frozenset()
    generator: torch.Generator | None = None

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_ids(self) -> list[int]:
        """The answer so far; a copy."""
        return self.token_ids[self.num_prompt_tokens :]


@dataclass(slots=True)
class Sampled:
    """A row's token, with log probabilities if it asked for them; or one sentence that says why there is none."""

    token_id: int = -1
    logprobs: Logprobs | None = None
    error: str | None = None


def new_generator(params: SamplingParams) -> torch.Generator | None:
    """A request's own stream of random numbers: reproducible with a seed, fresh without, none for a greedy request."""
    if params.greedy:
        return None
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[Sampled]:
    """One outcome for each row of `logits` [rows, vocab]. Never raises on account of a row."""
    numbers = [None if row.params.greedy else _uniform(row.generator) for row in rows]
    return _guarded(logits.float(), rows, numbers)


def _guarded(logits: Tensor, rows: Sequence[SamplingRow], numbers: list[float | None]) -> list[Sampled]:
    """`_sample`; if that raises, once more row by row, with the same numbers, to see which one it was."""
    try:
        return _sample(logits, rows, numbers)
    except Exception as error:
        if len(rows) == 1:
            return [Sampled(error=f"sampling raised {type(error).__name__}: {error}")]
    return [_guarded(logits[i : i + 1], rows[i : i + 1], numbers[i : i + 1])[0] for i in range(len(rows))]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _sample(logits: Tensor, rows: Sequence[SamplingRow], numbers: list[float | None]) -> list[Sampled]:
    """float32 logits are left as they are."""
    adjusted = logits
    if changed := [i for i, row in enumerate(rows) if adjusts(row)]:
        adjusted = logits.index_copy(0, _index(changed, logits), adjust(logits[changed], [rows[i] for i in changed]))
    best, tokens = adjusted.max(-1)
    finite = best.isfinite().tolist()
    drawn = [i for i, number in enumerate(numbers) if number is not None and finite[i]]
    if drawn:
        uniform = torch.tensor([numbers[i] for i in drawn], dtype=torch.float64, device=logits.device)
        tokens[drawn] = draw(adjusted[drawn], [rows[i].params for i in drawn], uniform)
    outcomes = [
        Sampled(token) if good else Sampled(error=_why_not(top))
        for token, good, top in zip(tokens.tolist(), finite, best.tolist(), strict=True)
    ]
    for i, row in enumerate(rows):
        if row.params.logprobs is not None and outcomes[i].error is None:
            outcomes[i].logprobs = likeliest(logits[i], outcomes[i].token_id, row.params.logprobs)
    return outcomes


def draw(logits: Tensor, params: Sequence[SamplingParams], uniform: Tensor) -> Tensor:
    """Token ids [rows] from logits [rows, vocab] at temperatures above 0, one uniform number (float64 [rows]) each."""
    return pick(_weights(logits, params), uniform)


def law(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The probabilities (float64 [rows, vocab]) that a token of each row of logits [rows, vocab] is drawn with.

    Temperature, min-p, top-k and top-p are applied; at temperature 0 all the probability lies on the likeliest token.
    """
    greedy = torch.tensor([one.greedy for one in params], device=logits.device)
    warm = [replace(one, temperature=1.0) if one.greedy else one for one in params]
    weights = _weights(logits.float(), warm).double()
    best = torch.zeros_like(weights).scatter_(1, logits.max(-1, keepdim=True).indices, 1.0)
    return torch.where(greedy[:, None], best, weights / weights.sum(-1, keepdim=True))


def _weights(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """What the probabilities of the tokens are proportional to [rows, vocab], after temperature and truncation."""
    temperature = torch.tensor([divisor(one) for one in params], device=logits.device)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]  # at most 0, so no exponential overflows
    return truncate(scaled, params).exp()


def divisor(params: SamplingParams) -> float:
    """The temperature, above 0, within what float32 can divide by: 0 / 0 and -inf / inf are no logits."""
    return float(min(max(params.temperature, COLDEST), HOTTEST))


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """Token ids [rows], each with a probability in proportion to its weight [rows, vocab].

    Inverse transform sampling: the token at which the cumulative weight passes the number (float64 [rows], 0 to 1).
    """
    cumulative = weights.double().cumsum(-1)
    total = cumulative[:, -1]
    below = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))  # a product may round up
    return torch.searchsorted(cumulative, below[:, None], right=True)[:, 0]


def _why_not(best: float) -> str:
    if best == -torch.inf:
        return "no token is allowed: every logit is -inf after bad words, allowed_token_ids and processors"
    return f"the largest logit is {best}; the model's weights or activations are damaged, or a processor's result is"


def _index(rows: list[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, device=like.device)
