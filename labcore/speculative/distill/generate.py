"""The target's own answers and the features it computed on the way: the data that drafts are distilled from.

A draft has to guess what this target says, so it learns from what this target says (DistillSpec, arXiv:2310.08461).
Every second answer is greedy, the others are sampled at temperature 0.7. The fast path decodes many at a time; a
finished answer makes place for the next prompt. A folder holds one file for each answer, so that an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labcore.core.files import atomic_file
from labcore.core.sampling_params import SamplingParams
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.chat import render
from labcore.model.compiled import split_at
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer
from labcore.sampling.sampler import SamplingRow, new_generator, sample
from labcore.speculative.distill.prompts import DomainPrompt
from labcore.speculative.eagle_head import tap_layers

BATCH, MAX_TOKENS, TEMPERATURE = 16, 128, 0.7


@dataclass
class Example:
    """One prompt with its answer. token_ids: prompt, then answer, a final stop token included.

    features: fp16 [tokens - 1, 4, hidden], of every token but the last, which was never fed back: the outputs of the
    three layers `tap_layers`, and the hidden state after the final norm.
    """

    domain: str
    held_out: bool
    temperature: float
    num_prompt_tokens: int
    token_ids: list[int]
    features: Tensor


def examples(folder: Path) -> Iterator[Example]:
    """What `generate` has put into the folder, in the order of the prompts."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            yield Example(
                str(stored["domain"]),
                bool(stored["held_out"]),
                float(stored["temperature"]),
                int(stored["num_prompt_tokens"]),
                stored["token_ids"].tolist(),
                torch.from_numpy(stored["features"]),
            )


def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[DomainPrompt],
    folder: Path,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Put an example of every prompt into `folder`; those that are there already are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting = []
    for index, prompt in enumerate(prompts):
        if not _path(folder, index).exists():
            text = render(tokenizer.chat_template, [{"role": "user", "content": prompt.text}])
            waiting.append(_Running(index, prompt, tokenizer.encode(text)))
    tokens = 0
    for count, one in enumerate(_answers(model, waiting, tokenizer.eos_ids), start=1 + len(prompts) - len(waiting)):
        with atomic_file(_path(folder, one.index)) as file:
            np.savez(
                file,
                domain=one.prompt.domain,
                held_out=one.prompt.held_out,
                temperature=one.params.temperature,
                num_prompt_tokens=one.row.num_prompt_tokens,
                token_ids=np.array(one.row.token_ids, np.int32),
                features=torch.cat(one.features).numpy(),
            )
        tokens += one.row.num_output_tokens
        if count % 20 == 0:
            say(f"{count} of {len(prompts)} prompts answered; {tokens} new tokens")


def _path(folder: Path, index: int) -> Path:
    return folder / f"{index:05}.npz"


@dataclass
class _Running:
    """An answer that grows: `row.token_ids` are the prompt and the answer so far."""

    index: int
    prompt: DomainPrompt
    prompt_ids: list[int]
    features: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.params = SamplingParams(temperature=TEMPERATURE if self.index % 2 else 0.0, seed=self.index)
        self.row = SamplingRow(
            self.params, list(self.prompt_ids), len(self.prompt_ids), generator=new_generator(self.params)
        )


@torch.inference_mode()
def _answers(model: Llama, waiting: list[_Running], stop_ids: frozenset[int]) -> Iterator[_Running]:
    """The same with their answers, as they finish."""
    config, queue = model.config, waiting[::-1]
    capacity = max((len(one.prompt_ids) for one in queue), default=0) + MAX_TOKENS
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=BATCH, capacity=capacity)
    taps = tap_layers(config.n_layers)
    split_at(model, taps)
    busy: dict[int, _Running] = {}

    def advance(slots: list[int], new: list[list[int]]) -> None:
        """One pass over the `new` tokens of `slots`, and the token after them."""
        attend = cache.extend([(slot, len(tokens)) for slot, tokens in zip(slots, new, strict=True)])
        token_ids = torch.tensor([token for tokens in new for token in tokens])
        x, found = model.run(token_ids, attend.positions, attend, taps)
        hidden = model.norm(x)
        features = torch.stack([*(found[tap] for tap in taps), hidden], dim=1).half()
        rows = [busy[slot].row for slot in slots]
        pieces = features.split([len(tokens) for tokens in new])
        for slot, sampled, piece in zip(slots, sample(model.lm_head(hidden[attend.last]), rows), pieces, strict=True):
            busy[slot].row.token_ids.append(sampled.token_id)
            busy[slot].features.append(piece)

    while queue or busy:
        for slot in range(BATCH):
            if queue and slot not in busy:
                cache.truncate(slot, 0)
                busy[slot] = queue.pop()
                advance([slot], [busy[slot].prompt_ids])
        for slot, one in list(busy.items()):
            if one.row.token_ids[-1] in stop_ids or one.row.num_output_tokens == MAX_TOKENS:
                del busy[slot]
                yield one
        if busy:
            advance(list(busy), [one.row.token_ids[-1:] for one in busy.values()])
