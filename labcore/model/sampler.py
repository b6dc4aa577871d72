"""Choosing the next token: greedy, or drawn after temperature, top-k and top-p, in that order.

One uniform number decides one token, from a generator that belongs to the request alone, so a seeded request draws the
same tokens whatever else is in the batch. Source of top-p: Holtzman et al., arXiv:1904.09751.
"""

import torch
from torch import Tensor

from labcore.core.sampling_params import SamplingParams


def new_generator(params: SamplingParams) -> torch.Generator:
    """A request's own stream of random numbers: reproducible with a seed, fresh without. Lives on the CPU."""
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator


def sample(logits: Tensor, params: SamplingParams, generator: torch.Generator) -> int:
    """One token id from `logits` [vocab]."""
    if params.greedy:
        return int(logits.argmax())
    probabilities, ids = next_token_distribution(logits, params)
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    cumulative = probabilities.double().cumsum(0).cpu()
    chosen = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    return int(ids[min(chosen, len(cumulative) - 1)])


def next_token_distribution(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities and ids, likeliest first, of the tokens that temperature, top-k and top-p leave. Not greedy.

    top-p keeps the token that crosses p, so at least one token is left; the probabilities sum to 1.
    """
    scaled = logits.float() / params.temperature
    if 0 < params.top_k < scaled.numel():
        values, ids = scaled.topk(params.top_k)
    else:
        values, ids = scaled.sort(descending=True, stable=True)
    probabilities = values.softmax(0)
    if params.top_p < 1:
        before = probabilities.cumsum(0) - probabilities  # probability of everything likelier
        kept = int((before < params.top_p).sum())
        probabilities, ids = probabilities[:kept] / probabilities[:kept].sum(), ids[:kept]
    return probabilities, ids
