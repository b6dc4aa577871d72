"""`LLM`: prompts in, texts out, shaped like vLLM's class of that name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.answer import Answer, Progress
from labcore.engine.build import build_engine
from labcore.engine.engine_core import EngineCore
from labcore.engine.processor import Processor
from labcore.engine.stats import RunStats
from labcore.model.chat import Message, render
from labcore.model.loader import Transform
from labcore.sampling.logprobs import Logprobs

Prompt = str | list[int]


@dataclass(frozen=True)
class CompletionOutput:
    """One answer. `token_ids` includes a final stop token; `text` does not. logprobs: one entry a token if asked for.

    finish_reason: "stop", "length", or "error" with the reason in `error`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None
    logprobs: tuple[Logprobs, ...] | None = None
    error: str | None = None


@dataclass(frozen=True)
class RequestOutput:
    """A prompt (None when it was given as token ids) and its answers. num_cached_tokens: of the prompt, not computed
    because the prefix cache had them."""

    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    num_cached_tokens: int = 0


@dataclass(frozen=True)
class Delta:
    """What one token added to answer `sample` to prompt `index`: text may be empty while a character is incomplete."""

    index: int
    text: str
    token_id: int | None
    finish_reason: str | None
    sample: int = 0
    error: str | None = None


class LLM:
    """A language model, its tokenizer, and an engine that serves many prompts at a time.

    model: an id such as "smollm2-135m", a GGUF file, a safetensors folder, or a hub id; see `checkpoints.fetch`.
    device: a torch device; None takes a GPU if torch sees one. dtype: of weights and activations; "auto" is "float32"
    on a CPU, which carries every identity check, and "bfloat16" on a GPU.
    quantization: None dequantizes every weight; "gguf" computes from a GGUF file's own blocks, on the CPU
    (`model.fast`). transform: swaps modules while the model is built; see `loader.load_model`. kv_cache_dtype: how
    keys and values are stored; see `build`. speculative: such as {"method": "ngram", "num_tokens": 4}: tokens are
    drafted and several checked in one pass; see `build.assemble`. Other options are the fields of `config.CacheConfig`
    and SchedulerConfig and of `execution.ExecutionConfig`: on a GPU, triton=False, cuda_graphs=False and
    async_scheduling=False turn off what makes a step fast there, one by one; True is refused where it cannot be.
    """

    def __init__(
        self,
        model: str | Path = "smollm2-135m",
        *,
        device: str | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        transform: Transform | None = None,
        kv_cache_dtype: str = "auto",
        speculative: Mapping | None = None,
        progress: bool = True,
        **options,
    ):
        own = {"device": device, "dtype": dtype, "quantization": quantization, "transform": transform}
        cache = {"kv_cache_dtype": kv_cache_dtype, "speculative": speculative}
        self._serve(build_engine(model, **own, **cache, progress=progress, **options))

    @classmethod
    def around(cls, core: EngineCore) -> LLM:
        """An LLM that serves an engine built elsewhere, with a tokenizer (`build.assemble`)."""
        llm = cls.__new__(cls)
        llm._serve(core)
        return llm

    def _serve(self, core: EngineCore) -> None:
        self.core, self.model, self.tokenizer = core, core.runner.model, core.tokenizer
        self.processor = Processor(self.model.config, self.tokenizer)
        self._names = count()
        self._inboxes: dict[str, deque[Progress]] = {}  # request id -> where its run looks for progress

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device

    @property
    def stats(self) -> RunStats:
        """Of the latest run."""
        return self.core.stats

    def generate(
        self,
        prompts: Prompt | ListLike[Prompt],
        sampling_params: SamplingParams | ListLike[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts. A prompt is text or a list of token ids; parameters are shared or one
        per prompt. Each answer is the one its prompt gets alone, up to rounding: another batch sums in another order,
        which can tip a draw or a tie. Raises InputError before anything runs."""
        prompts, families = self._requests(prompts, sampling_params)
        answers: dict[str, Answer] = {}
        for _ in self._run(families, answers):
            pass
        return [
            RequestOutput(
                prompt if isinstance(prompt, str) else None,
                tuple(family[0].all_token_ids[: family[0].num_prompt_tokens]),
                tuple(_output(i, answers[request.request_id]) for i, request in enumerate(family)),
                family[0].num_cached_tokens,
            )
            for prompt, family in zip(prompts, families, strict=True)
        ]

    def stream(
        self,
        prompts: Prompt | ListLike[Prompt],
        sampling_params: SamplingParams | ListLike[SamplingParams] | None = None,
    ) -> Iterator[Delta]:
        """The same answers as they grow; a piece is yielded once it is certain, and the pieces join to the text."""
        _, families = self._requests(prompts, sampling_params)
        places = {
            request.request_id: (index, sample)
            for index, family in enumerate(families)
            for sample, request in enumerate(family)
        }
        for one in self._run(families, {}):
            index, sample = places[one.request_id]
            yield Delta(index, one.text, one.token_id, one.finish_reason, sample, one.error)

    def chat(self, messages: ListLike[Message], sampling_params: SamplingParams | None = None) -> list[RequestOutput]:
        """The assistant's next turn after `messages`, rendered with the checkpoint's chat template."""
        return self.generate([self.chat_prompt(messages)], sampling_params)

    def chat_prompt(self, messages: ListLike[Message]) -> str:
        """The prompt that `chat` would send. InputError for a message with a control token in it, which would end its
        turn: whoever writes "<|im_end|>" could go on in the system's name."""
        tokens = self.tokenizer
        bos = "" if tokens.add_bos else tokens.text_of(tokens.bos_id)
        prompt = render(tokens.chat_template, messages, bos_token=bos, eos_token=tokens.text_of(tokens.eos_id))
        for i, message in enumerate(messages):
            if token := tokens.control_in(message["role"]) or tokens.control_in(message["content"]):
                raise InputError(f"message {i} holds the control token {token!r}; take it out, or call generate")
        return prompt

    def _requests(self, prompts, sampling_params) -> tuple[list[Prompt], list[list[Request]]]:
        """Prompts as a list, and the requests of each."""
        prompts = _as_list(prompts)
        families = []
        for i, (prompt, params) in enumerate(zip(prompts, _one_each(sampling_params, len(prompts)), strict=True)):
            if not (isinstance(prompt, str) or _is_tokens(prompt)):
                raise InputError(f"prompt {i} is neither text nor a list of token ids")
            families.append(self.processor.requests(str(next(self._names)), prompt, params))
        return prompts, families

    def _run(self, families: list[list[Request]], answers: dict[str, Answer]) -> Iterator[Progress]:
        """Serve the requests to their ends, yielding their progress; fills `answers`. Abandoned, it aborts them.

        Runs may overlap, when streams are read in turns: each step advances all of them.
        """
        requests = [request for family in families for request in family]
        inbox: deque[Progress] = deque()
        self.core.stats = RunStats()
        try:
            for request in requests:
                answers[request.request_id] = self.core.add_request(request)
                self._inboxes[request.request_id] = inbox
            unfinished = len(requests)
            while unfinished:
                if not inbox:
                    for one in self.core.step():
                        self._inboxes[one.request_id].append(one)
                    continue
                unfinished -= inbox[0].finish_reason is not None
                yield inbox.popleft()
        finally:
            self.core.abort(request.request_id for request in requests)
            for request in requests:
                self._inboxes.pop(request.request_id, None)
        self.core.stats.prompt_tokens = sum(family[0].num_prompt_tokens for family in families)
        self.core.stats.cached_tokens = sum(family[0].num_cached_tokens for family in families)


def _output(index: int, answer: Answer) -> CompletionOutput:
    logprobs = None if answer.params.logprobs is None else tuple(answer.logprobs)
    return CompletionOutput(index, answer.text, tuple(answer.token_ids), answer.finish_reason, logprobs, answer.error)


def _as_list(prompts: Prompt | ListLike[Prompt]) -> list[Prompt]:
    """One prompt, as text or as token ids, becomes a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, list | tuple):
        kind = type(prompts).__name__
        raise InputError(f"prompts is of type {kind}; give a text, a list of token ids, or a list of these")
    return [prompts] if prompts and _is_tokens(prompts) else list(prompts)


def _is_tokens(prompt: object) -> bool:
    return isinstance(prompt, list | tuple) and all(type(token) is int for token in prompt)


def _one_each(params, count: int) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if not isinstance(params, list | tuple) or not all(isinstance(one, SamplingParams) for one in params):
        raise InputError(f"sampling_params is {params!r}; give SamplingParams, or a list of them")
    if len(params) != count:
        raise InputError(f"{len(params)} sampling parameters for {count} prompts; give one, or one per prompt")
    return list(params)
