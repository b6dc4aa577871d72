"""Sampling: the distribution is transformers', the draw is the distribution, and a seed decides everything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.model.sampler import new_generator, next_token_distribution, sample  # noqa: E402


def dense(logits, params) -> "torch.Tensor":
    """The distribution as a vector [vocab]."""
    probabilities, ids = next_token_distribution(logits, params)
    return torch.zeros(len(logits)).index_put((ids,), probabilities)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.integers(1, 60),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 70),
    top_p=st.floats(0.01, 1),
)
def test_the_distribution_is_transformers(seed, vocab, temperature, top_k, top_p):
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * 3
    expected = warpers.TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k:
        expected = warpers.TopKLogitsWarper(top_k)(None, expected)
    cumulative = expected.softmax(-1)[0].sort(descending=True).values.cumsum(0)
    if top_p < 1:
        expected = warpers.TopPLogitsWarper(top_p)(None, expected)
    found = dense(logits, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p))
    reference = expected.softmax(-1)[0]
    if top_p < 1 and (cumulative - top_p).abs().min() < 1e-5:
        return  # a cumulative sum within rounding of top_p may fall either way
    torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-6)


def test_top_p_keeps_the_token_that_crosses_and_no_more():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert (dense(logits, SamplingParams(top_p=0.5)) > 0).sum() == 1
    assert (dense(logits, SamplingParams(top_p=0.51)) > 0).sum() == 2
    torch.testing.assert_close(dense(logits, SamplingParams(top_p=0.6)), torch.tensor([0.625, 0.375, 0, 0]))
    assert (dense(logits, SamplingParams(top_p=1e-9)) > 0).sum() == 1


def test_draws_follow_the_distribution():
    """20,000 draws against the exact probabilities, chi-squared with 5 degrees of freedom (p = 1e-6 at 38)."""
    logits = torch.randn(6, generator=torch.Generator().manual_seed(1))
    params = SamplingParams(temperature=0.8, seed=7)
    generator, n = new_generator(params), 20_000
    counts = torch.bincount(torch.tensor([sample(logits, params, generator) for _ in range(n)]), minlength=6)
    expected = (logits / 0.8).softmax(0) * n
    assert ((counts - expected) ** 2 / expected).sum() < 38


def test_greedy_is_the_argmax_and_uses_no_randomness():
    params = SamplingParams(temperature=0)
    generator = new_generator(SamplingParams(seed=3))
    before = generator.get_state()
    assert sample(torch.tensor([0.0, 2.0, 1.0]), params, generator) == 1
    assert torch.equal(generator.get_state(), before)


def test_a_seed_fixes_the_draws_and_no_seed_does_not():
    logits = torch.zeros(1000)

    def draws(params):
        generator = new_generator(params)
        return [sample(logits, params, generator) for _ in range(8)]

    assert draws(SamplingParams(seed=5)) == draws(SamplingParams(seed=5)) != draws(SamplingParams(seed=6))
    assert draws(SamplingParams()) != draws(SamplingParams())


def test_a_uniform_number_at_the_very_end_still_names_a_token(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.tensor(1.0, dtype=torch.float64))
    assert sample(torch.tensor([0.0, 0.0]), SamplingParams(), torch.Generator()) in (0, 1)
