"""Decoders of real shapes with random weights: how fast a step is does not depend on what the weights say.

    core = random_engine("llama-3-8b", device="cuda", max_num_seqs=1, max_model_len=2048)
    requests = token_requests(prompts, [256] * len(prompts))     # greedy, to these lengths exactly
    run_to_end(core, requests)

So a machine without a network measures an 8B model; what such a model answers means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble
from labcore.engine.engine_core import EngineCore
from labcore.facts.lookup import read_json, require_id
from labcore.facts.models import model_ids
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama

STD = 0.02  # of the weights, as most configurations initialize them; norms stay at 1


def random_model(
    model: str | DecoderConfig,
    *,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> Llama:
    """A decoder with normally distributed weights, drawn on the device.

    model: an id of `facts.models` whose architecture the decoder implements ("llama-3-8b", "qwen3-0.6b"), or a
    configuration.
    """
    config = published_config(model)
    with torch.device("meta"):
        decoder = Llama(config).eval().requires_grad_(False).to(dtype)
    decoder = decoder.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in decoder.named_parameters():
        if name.endswith("norm.weight"):
            weight.fill_(1.0)
        else:
            weight.normal_(std=STD, generator=generator)
    if config.tied_embeddings:
        decoder.lm_head.weight = decoder.embed_tokens.weight
    return decoder


def published_config(model: str | DecoderConfig) -> DecoderConfig:
    """The configuration of an id of `facts.models`; one that is given is returned. Raises InputError for another id."""
    if isinstance(model, DecoderConfig):
        return model
    require_id("model", model, model_ids())
    return DecoderConfig.from_hf(read_json(f"configs/{model}.json"), model)


def random_engine(
    model: str | DecoderConfig,
    *,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    **options,
) -> EngineCore:
    """An engine around a `random_model`, without a tokenizer; `options` are `build.assemble`'s."""
    return assemble(random_model(model, device=device, dtype=dtype, seed=seed), **options)


def token_requests(prompts: Iterable[Sequence[int]], lengths: Iterable[int], name: str = "r") -> list[Request]:
    """One greedy request a prompt of token ids, which answers with exactly so many tokens."""
    return [
        Request(f"{name}{i}", prompt, SamplingParams(temperature=0, max_tokens=length, ignore_eos=True))
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def run_to_end(core: EngineCore, requests: Iterable[Request]) -> None:
    """Serve `requests`, all there from the beginning, and return when the last has its last token."""
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
