"""The prompts of the exactness tests and the loop that continues them."""

from dataclasses import dataclass

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble

NEW_TOKENS = 64
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "import numpy as np\n\ndef softmax(x):\n    # numerically stable\n",
    "1 2 3 4 5 6",
    "12 + 35 =",
    "Q: What is 17 * 3?\nA:",
    "a",
    "\n",
    "The",
    "<|im_start|>user\nWrite a haiku about the sea.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\nIs water wet?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>user\nList three prime numbers and explain why each is prime.<|im_end|>\n<|im_start|>assistant\n",
    "Der schnelle braune Fuchs",
    "L'intelligence artificielle est",
    "El sol sale por",
    "日本の首都は",
    "Привет, как",
    "SELECT name, COUNT(*) FROM users WHERE",
    '{"name": "Ada", "born": 1815, "field":',
    "<html>\n<head>\n<title>",
    "Dear Sir or Madam,\n\nI am writing to",
    "The mitochondria is the powerhouse of the cell. It produces",
    "Paging divides memory into fixed-size blocks. A block table maps logical blocks to physical ones, so that " * 6,
    "To be, or not to be, that is the question: " * 30,
    "🙂🙂🙂",
    "x" * 90,
]


@dataclass(frozen=True)
class Run:
    """A prompt and the tokens generated after it."""

    prompt: list[int]
    tokens: list[int]

    @property
    def fed(self) -> list[int]:
        """What the model has read when it chose the last token."""
        return self.prompt + self.tokens[:-1]

    def predictions(self, logits):
        """Rows of `logits` [len(fed), vocab] that chose `tokens`."""
        return logits[len(self.prompt) - 1 :]


def greedy(model, prompts: list[list[int]], max_tokens: int = NEW_TOKENS, **options) -> list[Run]:
    """Greedy continuations, past any end-of-sequence token, by an engine with these options, in one run."""
    core = assemble(model, **options)
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    return [Run(request.all_token_ids[: request.num_prompt_tokens], request.output_token_ids) for request in requests]
