"""The fast path is judged by how close its predictions stay to the exact path, never by identity."""

import pytest
import torch

from labcore import LLM, SamplingParams
from labcore.core.errors import InputError
from labcore.kernels.cpu.library import why_unavailable
from labcore.model import compiled, fast, torch_blocks
from labcore.model.bench import agreement, judged, new_cache, prefill, prompt_ids
from labcore.model.loader import load_model

pytestmark = pytest.mark.model
compiles = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

PATHS = {
    "compiled": (compiled.serve_blocks, torch.float32),
    "torch": (torch_blocks.serve_blocks, torch.bfloat16),
}


@pytest.fixture(scope="module", params=[pytest.param("compiled", marks=compiles), "torch"])
def served(request, checkpoint):
    transform, dtype = PATHS[request.param]
    return load_model(checkpoint, dtype=dtype, transform=transform)


@pytest.fixture(scope="module")
def text_ids(smollm2_path):
    return prompt_ids(24, smollm2_path)


def test_decode_stays_close_to_the_exact_path(model, served, text_ids):
    found = judged(agreement(model, served, text_ids))
    assert found["pass"], found
    if served.norm.weight.dtype == torch.float32:  # 16-bit activations: four orders of magnitude below bf16
        assert found["kl_max"] < 1e-5 and found["top1"] == 1


def test_a_prefill_of_many_rows_predicts_like_the_exact_path(model, served, text_ids):
    p, q = (prefill(m, text_ids).float().log_softmax(-1) for m in (model, served))
    assert (p.exp() * (p - q)).sum() < 0.02


@pytest.mark.parametrize("damage", ["rotation", "kv swapped", "gate and up"])
def test_a_wrong_fusion_is_far_from_the_exact_path(model, checkpoint, text_ids, damage, monkeypatch):
    """The bar is not so wide that a plausible mistake fits through it."""
    if damage == "gate and up":
        right = fast.stacked
        swapped = lambda c, *names: right(c, *(reversed(names) if "gate" in names[0] else names))  # noqa: E731
        monkeypatch.setattr(torch_blocks, "stacked", swapped)
    wrong = load_model(checkpoint, dtype=torch.bfloat16, transform=torch_blocks.serve_blocks)
    right_attention = torch_blocks.FusedAttention.forward
    damaged = {
        "rotation": lambda self, x, r, attend: right_attention(self, x, (r[0], -r[1]), attend),
        "kv swapped": lambda self, x, r, attend: right_attention(self, x, r, lambda i, q, k, v: attend(i, q, v, k)),
        "gate and up": right_attention,
    }
    monkeypatch.setattr(torch_blocks.FusedAttention, "forward", damaged[damage])
    assert not judged(agreement(model, wrong, text_ids[:12]))["pass"]


@compiles
def test_one_call_for_a_step_equals_one_call_for_each_half_of_a_layer(checkpoint, text_ids):
    """The whole step in C against the same layers with the cache's own `attend` between them, bit for bit."""
    model = load_model(checkpoint, transform=compiled.serve_blocks)
    logits = []
    for whole in (True, False):
        cache = new_cache(model, 3, 16)
        for tokens in (text_ids[:5], text_ids[5:8]):  # a prefill for each slot, then three decode passes of three
            for slot in range(3):
                attend = cache.extend([(slot, len(tokens))])
                model(torch.tensor(tokens), attend.positions, attend)
        for token in text_ids[8:11]:
            attend = cache.extend([(slot, 1) for slot in range(3)])
            argument = attend if whole else attend.__call__  # a bound method carries no decode_pass
            logits.append(model(torch.tensor([token, token + 1, token]), attend.positions, argument))
    for with_step, without in zip(logits[:3], logits[3:], strict=True):
        assert torch.equal(with_step, without) and torch.equal(with_step[0], with_step[2])


@compiles
def test_many_rows_in_torch_are_the_same_layers(checkpoint, text_ids):
    """What a CPU with bf16 instructions runs for a prefill, forced here with unpacked weights in fp32."""
    model = load_model(checkpoint, transform=compiled.serve_blocks)
    expected = prefill(model, text_ids)
    for layer in (*(product for four in model.layers[0].products for product in four), model.lm_head):
        layer.packed = torch.zeros(0)  # marks the way; the product itself stays the compiled one
        layer.forward = lambda x, run=layer: torch.cat([type(run).forward(run, row) for row in x.split(8)])
    torch.testing.assert_close(prefill(model, text_ids), expected, atol=0.02, rtol=0)  # logits span 30


def test_llm_serves_the_blocks_when_asked(smollm2_path):
    llm = LLM(smollm2_path, quantization="gguf", progress=False)
    if why_unavailable() is None:
        assert isinstance(llm.model.layers[0], compiled.CompiledStack)
    else:
        assert isinstance(llm.model.layers[0].self_attn, torch_blocks.FusedAttention)
    answer = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=4))
    assert "Paris" in answer[0].outputs[0].text


def test_without_a_compiler_torch_serves_them(monkeypatch):
    monkeypatch.setattr(fast, "why_unavailable", lambda: "no compiler")
    assert fast.fast_path() == PATHS["torch"]


@pytest.mark.parametrize("arguments", [{"quantization": "gptq"}, {"quantization": "gguf", "device": "cuda"}])
def test_what_cannot_be_served_is_refused(smollm2_path, arguments):
    with pytest.raises(InputError, match="quantization="):
        LLM(smollm2_path, progress=False, **arguments)
