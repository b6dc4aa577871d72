"""Typical acceptance: the rule of the reference implementation, and its bias, exactly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.sampling.sampler import pick  # noqa: E402
from labcore.sampling.typical import accept_typical, typical_accepts, typical_law, typical_threshold  # noqa: E402
from tests.sampling.laws import cuts_of, integral  # noqa: E402
from tests.sampling.test_rejection import random_laws  # noqa: E402


def medusa(logits, candidates, temperature, posterior_threshold=0.09, posterior_alpha=0.3):
    """The mask of FasterDecoding/Medusa, medusa/model/utils.py, evaluate_posterior, as medusa_generate calls it."""
    posterior = torch.softmax(logits / temperature, dim=-1)
    chosen = torch.gather(posterior, dim=-1, index=candidates.unsqueeze(-1)).squeeze(-1)
    entropy = -torch.sum(posterior * torch.log(posterior + 1e-5), dim=-1)
    threshold = torch.minimum(torch.ones_like(entropy) * posterior_threshold, torch.exp(-entropy) * posterior_alpha)
    return chosen > threshold


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.3, 0.7, 1.0, 1.5]))
def test_what_passes_is_what_medusa_passes(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 12, generator=generator) * 3
    candidates = torch.randint(12, (3, 4), generator=generator)
    p = (logits / temperature).softmax(-1)
    near = (p.gather(-1, candidates[..., None])[..., 0] - typical_threshold(p)).abs() < 1e-4  # their log has a 1e-5
    found = typical_accepts(p, candidates)
    assert torch.equal(found | near, medusa(logits, candidates, temperature) | near)


def test_the_threshold_is_capped_by_epsilon_and_falls_with_entropy():
    certain, even = torch.eye(8, dtype=torch.float64)[0], torch.full((8,), 1 / 8, dtype=torch.float64)
    assert typical_threshold(certain).item() == pytest.approx(0.09)
    assert typical_threshold(even).item() == pytest.approx(0.3 / 8)
    assert typical_threshold(certain, epsilon=0.5).item() == pytest.approx(0.3)
    assert typical_threshold(torch.stack((certain, even))).shape == (2,)


def test_the_longest_accepted_prefix_is_kept_and_a_token_follows_from_the_target():
    p = torch.tensor([[0.8, 0.2, 0.0], [0.02, 0.0, 0.98], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert accept_typical(p, [1, 2, 0], 0.5) == (3, 2)
    assert accept_typical(p, [2, 2, 0], 0.9) == (0, 1)  # probability 0 does not pass; 0.9 is beyond 0.8
    assert accept_typical(p, [0, 0, 0], 0.0) == (1, 0)  # 0.02 is below 0.09 exp(-H)
    assert accept_typical(p[:1], [], 0.1) == (0, 0)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="p has 3 rows for 3 tokens"):
        accept_typical(torch.ones(3, 4), [0, 0, 0], 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_the_law_is_what_comes_out(seed, vocab):
    """Integrated over the number for the draw, summed over the drafts."""
    p, q = random_laws(2, vocab, seed, zeros=True)
    found = torch.zeros(vocab, dtype=torch.float64)
    for token in range(vocab):

        def first(u, token=token):
            kept, following = accept_typical(torch.stack((p, p)), [token], u[0])
            return token if kept else following

        for outcome, weight in integral(first, [cuts_of(p)]).items():
            found[outcome] += q[token] * weight
    torch.testing.assert_close(typical_law(p, q), found, rtol=0, atol=1e-12)


def test_a_certain_draft_that_passes_is_always_said():
    """The draft's likeliest token at 40 % comes out at 100 %: the bias is what the target gave to all others."""
    p = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    q = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    out = typical_law(p, q)
    assert out.tolist() == [1, 0, 0] and (out - p).abs().sum() / 2 == pytest.approx(0.6)


def test_without_bias_where_nothing_passes_or_everything_that_the_target_would_say_does():
    p, q = random_laws(2, 6, 3)
    torch.testing.assert_close(typical_law(p, q, epsilon=2.0, delta=99.0), p, rtol=0, atol=1e-12)
    torch.testing.assert_close(typical_law(p, p, epsilon=0.0), p, rtol=0, atol=1e-12)
    assert (typical_law(p, q) - p).abs().sum() / 2 > 0.05


def test_even_a_perfect_draft_is_biased_towards_the_likely():
    """What does not pass, 0.01 here, is drawn once more: the tail falls to its square."""
    p = torch.tensor([0.98, 0.01, 0.01], dtype=torch.float64)
    torch.testing.assert_close(
        typical_law(p, p), p * torch.tensor([1.02, 0.02, 0.02], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_greedy_targets_keep_their_argmax_only():
    p = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert accept_typical(p, [1, 0], 0.3) == (2, 1)
    assert accept_typical(p, [1, 1], 0.3) == (1, 0)
    assert int(pick(p[:1], torch.tensor([0.3], dtype=torch.float64))) == 1
