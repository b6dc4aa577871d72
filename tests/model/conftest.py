"""The real model, the oracles, and one shared reference run, each built once per session.

The oracles read the GGUF file themselves: transformers with its own dequantization, rotary un-permutation and
configuration, tokenizers with the file's vocabulary and the pre-tokenizer the model was trained with.
"""

import pytest

torch = pytest.importorskip("torch")

from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from tests.model.reference_runs import PROMPTS, Run, greedy  # noqa: E402
from tests.oracles import transformers_model  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two busy torch threads can be far slower than one where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(smollm2_path):
    return open_checkpoint(smollm2_path)


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return checkpoint.tokenizer()


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def prompts(tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text) for text in PROMPTS]


@pytest.fixture(scope="session")
def runs(model, prompts) -> list[Run]:
    """Every prompt continued greedily, all in one batch."""
    return greedy(model, prompts)


@pytest.fixture(scope="session")
def reference(smollm2_path):
    """transformers' own model of the same file, fp32."""
    return transformers_model(smollm2_path)


@pytest.fixture(scope="session")
def reference_logits(reference, runs) -> list:
    """transformers' logits [len(fed), vocab] for every run, each sequence alone and without a cache."""
    with torch.inference_mode():
        return [reference(torch.tensor([run.fed]), use_cache=False).logits[0] for run in runs]
