"""The exact path against transformers in fp32: same tokens, same logits, whatever the cache and the batch mates.

A greedy continuation is transformers' own exactly when transformers, reading it, would have chosen each of its tokens;
that needs one pass per sequence instead of one per token.
"""

import pytest
import torch

from labcore.kv.contiguous import ContiguousKVCache
from labcore.model import llama
from labcore.model.loader import GGUFCheckpoint, load_model
from tests.model.reference_runs import NEW_TOKENS, PROMPTS, greedy

pytestmark = pytest.mark.model

ALONE = [0, 10, 17]  # prompts generated once more by themselves


def logits_in_one_pass(model, token_ids: list[int]) -> torch.Tensor:
    """Logits [tokens, vocab] of a whole sequence, nothing read from earlier passes."""
    config = model.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(token_ids))
    attend = cache.extend([(0, len(token_ids))])
    with torch.inference_mode():
        return model(torch.tensor(token_ids), attend.positions, attend)


def disagreements(logits: torch.Tensor, run) -> int:
    """How many of the run's tokens a model with these logits would not have chosen."""
    return int((run.predictions(logits).argmax(-1) != torch.tensor(run.tokens)).sum())


def test_the_runs_are_as_long_and_as_many_as_promised(runs):
    assert len(runs) == len(PROMPTS) >= 25
    assert all(len(run.tokens) == NEW_TOKENS == 64 for run in runs)
    assert len({len(run.prompt) for run in runs}) > 10  # batch mates of many lengths


@pytest.mark.slow
def test_greedy_tokens_with_cache_are_transformers(runs, reference_logits):
    assert [disagreements(logits, run) for run, logits in zip(runs, reference_logits, strict=True)] == [0] * len(runs)


@pytest.mark.slow
def test_logits_and_tokens_without_cache_are_transformers(model, runs, reference_logits):
    for run, expected in zip(runs, reference_logits, strict=True):
        logits = logits_in_one_pass(model, run.fed)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        assert disagreements(logits, run) == 0


@pytest.mark.slow
def test_transformers_own_generation_loop_agrees(reference, runs):
    """The argument in this module's docstring, checked on one prompt with their cached loop."""
    run = runs[0]
    prompt = torch.tensor([run.prompt])
    generated = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
    )
    assert generated[0, len(run.prompt) :].tolist() == run.tokens


@pytest.mark.slow
def test_tokens_do_not_depend_on_batch_mates(model, runs):
    for index in ALONE:
        assert greedy(model, [runs[index].prompt], max_tokens=24)[0].tokens == runs[index].tokens[:24]
    shuffled = [runs[index] for index in (25, 7, 3, 26)]
    again = greedy(model, [run.prompt for run in shuffled], max_tokens=16)
    assert [run.tokens for run in again] == [run.tokens[:16] for run in shuffled]


def test_cached_logits_equal_uncached_ones(model, runs):
    """Fed in pieces of uneven size through the cache, a sequence has the logits it has in one pass."""
    tokens = runs[24].fed[:150]
    whole = logits_in_one_pass(model, tokens)
    config = model.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(tokens))
    done = 0
    with torch.inference_mode():
        for size in (1, 2, 64, 1, 1, 50, 31):
            attend = cache.extend([(0, size)])
            piece = model(torch.tensor(tokens[done : done + size]), attend.positions, attend)
            torch.testing.assert_close(piece, whole[done : done + size], rtol=0, atol=1e-4)
            done += size
    assert done == len(tokens)


@pytest.fixture
def wrong(request, monkeypatch, checkpoint):
    """The model with one plausible mistake in it."""
    if request.param == "rotary pairs left interleaved":
        monkeypatch.setattr(GGUFCheckpoint, "_halves", lambda self, rows: rows)
    elif request.param == "positions off by one after the prompt":
        original = llama.RotaryEmbedding.forward
        late = lambda self, positions: original(self, positions + (positions > 4))  # noqa: E731
        monkeypatch.setattr(llama.RotaryEmbedding, "forward", late)
    elif request.param == "rotation turned the other way for keys and queries of odd layers":
        original_rotate = llama.rotate
        calls = iter(range(10**9))
        flip = lambda x, r: original_rotate(x, (r[0], -r[1]) if next(calls) % 4 == 3 else r)  # noqa: E731
        monkeypatch.setattr(llama, "rotate", flip)
    elif request.param == "norm epsilon 1e-3":
        original_init = llama.RMSNorm.__init__
        monkeypatch.setattr(llama.RMSNorm, "__init__", lambda self, size, eps: original_init(self, size, 1e-3))
    elif request.param == "gate and up swapped":
        swap = {"mlp.gate_proj": "ffn_up", "mlp.up_proj": "ffn_gate"}
        monkeypatch.setattr("labcore.model.loader.GGUF_NAMES", {**gguf_names(), **swap})
    return load_model(checkpoint)


def gguf_names() -> dict:
    from labcore.model.loader import GGUF_NAMES

    return dict(GGUF_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        "rotary pairs left interleaved",
        "positions off by one after the prompt",
        "rotation turned the other way for keys and queries of odd layers",
        "norm epsilon 1e-3",
        "gate and up swapped",
    ],
    indirect=True,
)
def test_plausible_mistakes_would_be_seen(wrong, runs, reference_logits):
    run, expected = runs[0], reference_logits[0]
    logits = logits_in_one_pass(wrong, run.fed)
    assert (logits - expected).abs().max() > 1e-2
