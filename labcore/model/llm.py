"""`LLM`: prompts in, texts out, shaped like vLLM's class of that name."""

import time
from collections.abc import Iterator
from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from pathlib import Path

import torch

from labcore.core.errors import InputError
from labcore.core.sampling_params import SamplingParams
from labcore.model.chat import Message, render
from labcore.model.checkpoints import fetch
from labcore.model.fast import fast_path
from labcore.model.generate import generate
from labcore.model.loader import Transform, load_model, open_checkpoint
from labcore.model.sequence import Sequence
from labcore.model.stats import RunStats

Prompt = str | list[int]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class CompletionOutput:
    """One answer. `token_ids` includes a final stop token; `text` does not. finish_reason: "stop" or "length"."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None


@dataclass(frozen=True)
class RequestOutput:
    """A prompt (None when it was given as token ids) and its answer; vLLM's shape, with one output."""

    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]


@dataclass(frozen=True)
class Delta:
    """What one pass added to the answer of prompt `index`: text may be empty while a character is incomplete."""

    index: int
    text: str
    token_id: int
    finish_reason: str | None


class LLM:
    """A language model with its tokenizer.

    model: an id such as "smollm2-135m", a GGUF file, a safetensors folder, or a hub id; see `checkpoints.fetch`.
    device: a torch device; None takes a GPU if torch sees one. dtype: "float32" carries every identity check.
    quantization: None dequantizes every weight; "gguf" computes from a GGUF file's own blocks, on the CPU
    (`fast`). transform: swaps modules while the model is built; see `loader.load_model`.
    """

    def __init__(
        self,
        model: str | Path = "smollm2-135m",
        *,
        device: str | None = None,
        dtype: str = "float32",
        quantization: str | None = None,
        transform: Transform | None = None,
        progress: bool = True,
    ):
        if dtype not in DTYPES:
            raise InputError(f"dtype={dtype!r}: must be one of {', '.join(DTYPES)}")
        if quantization not in (None, "gguf"):
            raise InputError(f"quantization={quantization!r}: must be None or 'gguf'")
        if quantization == "gguf":
            if device not in (None, "cpu") or transform is not None:
                raise InputError(
                    "quantization='gguf' runs on the CPU and is a transform itself; drop device= and transform="
                )
            device = "cpu"
            transform, loaded_as = fast_path()
        else:
            loaded_as = DTYPES[dtype]
        self.device = _device(device)
        checkpoint = open_checkpoint(fetch(model, progress=progress))
        self.tokenizer = checkpoint.tokenizer()
        self.model = load_model(checkpoint, dtype=loaded_as, device=self.device, transform=transform, progress=progress)
        self.stats = RunStats()  # of the latest run

    def generate(
        self,
        prompts: Prompt | ListLike[Prompt],
        sampling_params: SamplingParams | ListLike[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts. A prompt is text or a list of token ids; parameters are shared or one
        per prompt. Each answer is the one its prompt gets alone. Raises InputError before anything runs."""
        sequences, texts = self._sequences(prompts, sampling_params)
        for _ in self._run(sequences):
            pass
        return [
            RequestOutput(
                text,
                tuple(sequence.prompt_ids),
                (CompletionOutput(0, sequence.text, tuple(sequence.token_ids), sequence.finish_reason),),
            )
            for text, sequence in zip(texts, sequences, strict=True)
        ]

    def stream(
        self,
        prompts: Prompt | ListLike[Prompt],
        sampling_params: SamplingParams | ListLike[SamplingParams] | None = None,
    ) -> Iterator[Delta]:
        """The same answers as they grow; a piece is yielded once it is certain, and the pieces join to the text."""
        sequences, _ = self._sequences(prompts, sampling_params)
        index_of = {id(sequence): i for i, sequence in enumerate(sequences)}
        shown = [0] * len(sequences)
        for advanced in self._run(sequences):
            for sequence in advanced:
                i = index_of[id(sequence)]
                yield Delta(i, sequence.text[shown[i] :], sequence.token_ids[-1], sequence.finish_reason)
                shown[i] = len(sequence.text)

    def chat(self, messages: ListLike[Message], sampling_params: SamplingParams | None = None) -> list[RequestOutput]:
        """The assistant's next turn after `messages`, rendered with the checkpoint's chat template."""
        return self.generate([self.chat_prompt(messages)], sampling_params)

    def chat_prompt(self, messages: ListLike[Message]) -> str:
        """The prompt that `chat` would send."""
        return render(self.tokenizer.chat_template, messages)

    def _sequences(self, prompts, sampling_params) -> tuple[list[Sequence], list[str | None]]:
        prompts = _as_list(prompts)
        params = _one_each(sampling_params, len(prompts))
        sequences = []
        for i, (prompt, param) in enumerate(zip(prompts, params, strict=True)):
            if not isinstance(prompt, str) and not all(type(token) is int for token in prompt):
                raise InputError(f"prompt {i} is neither text nor a list of token ids")
            ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
            detokenizer = self.tokenizer.detokenizer(skip_special=param.skip_special_tokens)
            sequences.append(Sequence(ids, param, self.tokenizer.eos_ids, detokenizer))
        return sequences, [prompt if isinstance(prompt, str) else None for prompt in prompts]

    def _run(self, sequences: list[Sequence]) -> Iterator[list[Sequence]]:
        """`generate`, timed: the first pass is the prefill, each later one a decode step."""
        stats = self.stats = RunStats(prompt_tokens=sum(len(sequence.prompt_ids) for sequence in sequences))
        passes = generate(self.model, sequences)
        while True:
            start = time.perf_counter()
            advanced = next(passes, None)
            if advanced is None:
                return
            elapsed = time.perf_counter() - start
            stats.add_pass(len(advanced), sum(sequence.length for sequence in advanced), elapsed)
            yield advanced


def _device(device: str | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise InputError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return chosen


def _as_list(prompts: Prompt | ListLike[Prompt]) -> list[Prompt]:
    """One prompt, as text or as token ids, becomes a list of one."""
    if isinstance(prompts, str) or (prompts and all(type(item) is int for item in prompts)):
        return [prompts]
    return list(prompts)


def _one_each(params, count: int) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise InputError(f"{len(params)} sampling parameters for {count} prompts; give one, or one per prompt")
    return list(params)
