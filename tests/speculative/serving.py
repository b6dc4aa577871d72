"""Answers of an engine around a tiny model, and the proposers that are tried on it."""

from __future__ import annotations

import torch

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble
from labcore.speculative.paged_draft import PagedDraft
from tests.model.tiny import tiny_model

MODEL = tiny_model()
OTHER = tiny_model(seed=1)  # it hardly ever agrees


def small_draft(target, num_tokens: int = 3, seed: int = 0) -> PagedDraft:
    """A draft model without a checkpoint; seed 0 is the target itself, which is always right."""
    return PagedDraft(MODEL if seed == 0 else OTHER, num_tokens=num_tokens)


def reduced_draft(target, num_tokens: int = 3) -> PagedDraft:
    """The target, restricted to every second token."""
    model = tiny_model()
    model.lm_head = torch.nn.Linear(*model.lm_head.weight.T.shape[:1], 128, bias=False)
    model.lm_head.weight = torch.nn.Parameter(MODEL.lm_head.weight[0:256:2].clone(), requires_grad=False)
    return PagedDraft(model, range(0, 256, 2), num_tokens=num_tokens)


# name -> `speculative` option; what draws its drafts for a sampled request at random comes first
PROPOSERS = {
    "right draft": {"method": "small_draft"},
    "wrong draft": {"method": "small_draft", "seed": 1, "num_tokens": 5},
    "reduced draft": {"method": "reduced_draft"},
    "early exit": {"method": "early_exit", "num_layers": 1},
    "layer skip": {"method": "layer_skip", "kept": [1]},
    "adaptive draft": {"method": "adaptive", "draft": {"method": "small_draft"}, "probe": 3},
    "lookahead": {"method": "lookahead"},
    "lookahead 5-grams": {"method": "lookahead", "window": 2, "ngram": 5, "guesses": 3},
    "jacobi": {"method": "lookahead", "ngram": 2, "guesses": 0},
    "adaptive lookahead": {"method": "adaptive", "draft": {"method": "lookahead"}, "probe": 3},
}
DETERMINISTIC = [name for name in PROPOSERS if "look" in name or "jacobi" in name]


def greedy(count: int = 20, **options) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count, **options)


def serve(core, prompts, params, first: int = 0, eos=()) -> list[list[int]]:
    """Output token ids of requests that arrive together; each must end by itself."""
    requests = [
        Request(str(first + i), prompt, one, eos_token_ids=eos)
        for i, (prompt, one) in enumerate(zip(prompts, params, strict=True))
    ]
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    assert [request.error for request in requests] == [None] * len(requests)
    return [request.output_token_ids for request in requests]


def answers(prompts, params, model=MODEL, eos=(), **options):
    """Output token ids, and the engine."""
    core = assemble(model, **options)
    return serve(core, prompts, params, eos=eos), core
