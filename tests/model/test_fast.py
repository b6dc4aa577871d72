"""The fast path is judged by how close its predictions stay to the exact path, never by identity."""

import pytest
import torch

from labcore import LLM, SamplingParams
from labcore.core.errors import InputError
from labcore.model.bench import agreement, judged, prefill, prompt_ids
from labcore.model.fast import FusedAttention, serve_blocks
from labcore.model.loader import load_model

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def fast(checkpoint):
    return load_model(checkpoint, dtype=torch.bfloat16, transform=serve_blocks)


@pytest.fixture(scope="module")
def text_ids(smollm2_path):
    return prompt_ids(48, smollm2_path)


def test_decode_stays_close_to_the_exact_path(model, fast, text_ids):
    found = judged(agreement(model, fast, text_ids))
    assert found["pass"], found


def test_a_prefill_of_many_rows_predicts_like_the_exact_path(model, fast, text_ids):
    p, q = (prefill(m, text_ids).float().log_softmax(-1) for m in (model, fast))
    assert (p.exp() * (p - q)).sum() < 0.02


@pytest.mark.parametrize("damage", ["rotation", "kv split", "gate and up"])
def test_a_wrong_fusion_is_far_from_the_exact_path(model, fast, text_ids, damage, monkeypatch):
    """The bar is not so wide that a plausible mistake fits through it."""
    attention, mlp = type(fast.layers[0].self_attn), type(fast.layers[0].mlp)
    if damage == "rotation":  # every head turned, values too
        right = attention.forward

        def forward(self, x, rotation, attend):
            return right(self, x, (rotation[0], -rotation[1]), attend)

        monkeypatch.setattr(attention, "forward", forward)
    elif damage == "kv split":
        right = attention.forward
        monkeypatch.setattr(
            attention, "forward", lambda self, x, r, attend: right(self, x, r, lambda i, q, k, v: attend(i, q, v, k))
        )
    else:
        monkeypatch.setattr(
            mlp,
            "forward",
            lambda self, x: self.down_proj(
                torch.nn.functional.silu(self.gate_up_proj(x).chunk(2, -1)[1]) * self.gate_up_proj(x).chunk(2, -1)[0]
            ),
        )
    assert not judged(agreement(model, fast, text_ids))["pass"]


def test_llm_serves_the_blocks_when_asked(smollm2_path):
    llm = LLM(smollm2_path, quantization="gguf", progress=False)
    assert isinstance(llm.model.layers[0].self_attn, FusedAttention)
    answer = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=4))
    assert "Paris" in answer[0].outputs[0].text


@pytest.mark.parametrize("arguments", [{"quantization": "gptq"}, {"quantization": "gguf", "device": "cuda"}])
def test_what_cannot_be_served_is_refused(smollm2_path, arguments):
    with pytest.raises(InputError, match="quantization="):
        LLM(smollm2_path, progress=False, **arguments)
