"""The programs a reader would pick instead, loaded from the same file, for benchmarks and oracles.

transformers dequantizes the file itself; llama.cpp runs it through the prebuilt `xllamacpp` wheel, which is compiled
for AVX2 (a build on the spot might use wider instructions: every row says which build it compares with).
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import torch


def transformers_model(path: Path, dtype: torch.dtype = torch.float32):
    """transformers' LlamaForCausalLM of the GGUF file at `path`. ModuleNotFoundError without transformers and gguf."""
    import gguf  # noqa: F401  transformers reads the file through it; fail before the slow import
    import transformers

    transformers.utils.logging.set_verbosity_error()
    with redirect_stderr(io.StringIO()):  # a progress bar of its own for every tensor
        return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype).eval()


class LlamaCpp:
    """llama.cpp's server object in this process, `slots` requests at a time, greedy, without a prompt cache.

    ModuleNotFoundError without xllamacpp.
    """

    def __init__(self, path: Path, threads: int, context: int = 2048, slots: int = 1):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context * slots, slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = -1
        self.system = xllamacpp.get_system_info()
        self._server = xllamacpp.Server(params)

    def complete(self, prompt_ids: list[int], tokens: int) -> dict:
        """Greedy continuation, past any end of sequence; the server's answer with its own `timings`."""
        request = {"prompt": prompt_ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
        answer = self._server.handle_completions(request | {"cache_prompt": False, "return_tokens": True})
        return json.loads(answer) if isinstance(answer, str | bytes) else answer
