"""From a prompt and sampling parameters to requests that the engine can serve, or one sentence why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.model.config import DecoderConfig
from labcore.model.tokenizer import Tokenizer


class Processor:
    """For one model and its tokenizer."""

    def __init__(self, config: DecoderConfig, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer

    def requests(self, name: str, prompt: str | list[int], params: SamplingParams, **options) -> list[Request]:
        """The `params.n` requests of a prompt, all but the first forks of it; `options` are Request's.

        Raises InputError for a prompt that the model cannot continue or for token ids that it does not have.
        """
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self._check_prompt(ids)
        params = self._resolved(params)
        options["eos_token_ids"] = self.tokenizer.eos_ids
        if params.n == 1:
            return [Request(name, ids, params, **options)]
        first = Request(f"{name}-0", ids, params.sample(0), **options)
        others = (Request(f"{name}-{i}", ids, params.sample(i), fork_of=first, **options) for i in range(1, params.n))
        return [first, *others]

    def _check_prompt(self, ids: list[int]) -> None:
        if not ids:
            raise InputError("the prompt is empty; give at least one token")
        if len(ids) >= self.config.context:
            raise InputError(
                f"the prompt has {len(ids)} tokens and this model's context is {self.config.context}, with room for "
                "at least one new token; shorten the prompt"
            )
        self._check_ids("the prompt", ids)

    def _resolved(self, params: SamplingParams) -> SamplingParams:
        """Bad words as tuples of token ids, and all token ids checked."""
        if params.bad_words:
            words = chain.from_iterable(map(self._spellings, params.bad_words))
            params = replace(params, bad_words=tuple(dict.fromkeys(words)))
        self._check_ids("bad_words", chain.from_iterable(params.bad_words))
        for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
            self._check_ids(name, getattr(params, name) or ())
        return params

    def _spellings(self, word: str | tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """A bad word at the beginning of a text and behind a space. Source: vLLM 0.9.2, SamplingParams."""
        if isinstance(word, str):
            yield tuple(self.tokenizer.encode(word, add_bos=False))  # no answer contains the token before a text
            yield tuple(self.tokenizer.encode(" " + word.lstrip(), add_bos=False))
        else:
            yield word

    def _check_ids(self, where: str, ids) -> None:
        for token in ids:
            if not 0 <= token < self.config.vocab:
                raise InputError(f"token id {token} in {where}; this model has ids 0 to {self.config.vocab - 1}")
