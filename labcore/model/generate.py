"""The plainest correct generation loop: one prefill pass for all prompts, then one pass per token for all of them.

A sequence leaves the batch when it finishes; none joins. Its tokens do not depend on its batch mates.
"""

from collections.abc import Iterator
from collections.abc import Sequence as ListLike

import torch

from labcore.core.errors import InputError
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.llama import Llama
from labcore.model.sampler import new_generator, sample
from labcore.model.sequence import Sequence


@torch.inference_mode()
def generate(model: Llama, sequences: ListLike[Sequence]) -> Iterator[list[Sequence]]:
    """Run `sequences` to their ends, yielding after each pass those that just received a token.

    Each sequence is extended in place (`token_ids`, `finish_reason`); stopping the iteration abandons the rest.
    Raises InputError, before anything runs, for a prompt that is empty, too long, or holds an unknown id.
    """
    for sequence in sequences:
        check_prompt(sequence.prompt_ids, model)
    cache = cache_for(model, sequences)
    generators = [new_generator(sequence.params) for sequence in sequences]
    running = list(range(len(sequences)))  # a sequence's index is its cache slot
    while running:
        new = [sequences[i].token_ids[-1:] or sequences[i].prompt_ids for i in running]
        attend = cache.extend([(i, len(tokens)) for i, tokens in zip(running, new, strict=True)])
        flat = torch.tensor([token for tokens in new for token in tokens], device=cache.keys.device)
        logits = model(flat, attend.positions, attend, wanted=attend.last)
        for i, row in zip(running, logits, strict=True):
            sequences[i].append(sample(row, sequences[i].params, generators[i]))
            if not sequences[i].finished and sequences[i].length >= model.config.context:
                sequences[i].finish("length")  # the last position the model was trained on is taken
        yield [sequences[i] for i in running]
        running = [i for i in running if not sequences[i].finished]


def cache_for(model: Llama, sequences: ListLike[Sequence]) -> ContiguousKVCache:
    """A cache with one slot per sequence, long enough for the longest of them. The last token is never fed back."""
    longest = max((len(s.prompt_ids) + s.params.max_tokens - 1 for s in sequences), default=0)
    config, weight = model.config, model.norm.weight
    return ContiguousKVCache(
        config.n_layers,
        config.n_kv_heads,
        config.head_dim,
        slots=len(sequences),
        capacity=min(longest, config.context),
        dtype=weight.dtype,
        device=weight.device,
    )


def check_prompt(prompt_ids: ListLike[int], model: Llama) -> None:
    """InputError unless the prompt is one the model can continue."""
    config = model.config
    if not prompt_ids:
        raise InputError("the prompt is empty; give at least one token")
    if len(prompt_ids) >= config.context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens and this model's context is {config.context}, with room for "
            "at least one new token; shorten the prompt"
        )
    for token in prompt_ids:
        if not 0 <= token < config.vocab:
            raise InputError(f"token id {token} in the prompt; this model has ids 0 to {config.vocab - 1}")
