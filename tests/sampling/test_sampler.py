"""Truncation is transformers', the draw is the distribution, a row knows nothing of its batch, and fails alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.sampling import truncation  # noqa: E402
from labcore.sampling.sampler import SamplingRow, draw, law, new_generator, sample  # noqa: E402
from labcore.sampling.truncation import truncate  # noqa: E402


def row(params: SamplingParams, output_ids=(), prompt_ids=(), stop_ids=()) -> SamplingRow:
    return SamplingRow(params, [*prompt_ids, *output_ids], len(prompt_ids), frozenset(stop_ids), new_generator(params))


def random_logits(rows: int, vocab: int, seed: int = 0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def distribution(logits, params) -> "torch.Tensor":
    """Probabilities [vocab] after temperature and truncation."""
    scaled = (logits[None] - logits.max()) / params.temperature
    return truncate(scaled, [params]).softmax(-1)[0]


truncations = {
    "temperature": st.floats(0.1, 3),
    "top_k": st.integers(0, 70),
    "top_p": st.one_of(st.just(1.0), st.floats(0.01, 1)),
    "min_p": st.one_of(st.just(0.0), st.floats(0.001, 1)),
}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), vocab=st.integers(1, 60), first=st.integers(1, 8), **truncations)
def test_truncation_is_transformers(seed, vocab, first, temperature, top_k, top_p, min_p):
    """min-p, top-k, top-p in this order, however many tokens are sorted first."""
    hf = pytest.importorskip("transformers.generation.logits_process")
    logits = random_logits(1, vocab, seed)
    expected = hf.TemperatureLogitsWarper(temperature)(None, logits)
    if min_p:
        expected = hf.MinPLogitsWarper(min_p)(None, expected)
    if top_k:
        expected = hf.TopKLogitsWarper(top_k)(None, expected)
    cumulative = expected.softmax(-1)[0].sort(descending=True).values.cumsum(0)
    if top_p < 1:
        expected = hf.TopPLogitsWarper(top_p)(None, expected)
        if (cumulative - top_p).abs().min() < 1e-5:
            return  # a cumulative sum within rounding of top_p may fall either way
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "FIRST_SORTED", first)
        found = distribution(logits[0], params)
    torch.testing.assert_close(found, expected.softmax(-1)[0], rtol=1e-5, atol=1e-6)


def test_top_p_keeps_the_token_that_crosses_and_no_more():
    logits = torch.tensor([0.05, 0.5, 0.3, 0.15]).log()
    assert (distribution(logits, SamplingParams(top_p=0.5)) > 0).tolist() == [False, True, False, False]
    assert (distribution(logits, SamplingParams(top_p=0.51)) > 0).sum() == 2
    torch.testing.assert_close(distribution(logits, SamplingParams(top_p=0.6)), torch.tensor([0, 0.625, 0.375, 0]))
    assert (distribution(logits, SamplingParams(top_p=1e-9)) > 0).sum() == 1


def test_equal_logits_share_their_fate():
    logits = torch.tensor([1.0, 2.0, 1.0, 0.0])
    assert (distribution(logits, SamplingParams(top_k=2)) > 0).tolist() == [True, True, True, False]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), **truncations)
def test_the_draw_is_the_distribution_exactly(seed, temperature, top_k, top_p, min_p):
    """20,000 evenly spaced numbers in place of random ones: each token's share is its probability to within one."""
    params = SamplingParams(temperature=temperature, top_k=top_k % 7, top_p=top_p, min_p=min_p)
    logits, n = random_logits(1, 6, seed), 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = draw(logits.expand(n, -1), [params] * n, uniform)
    share = torch.bincount(tokens, minlength=6) / n
    torch.testing.assert_close(share, distribution(logits[0], params), rtol=0, atol=1.5 / n)


def test_random_draws_follow_the_distribution():
    """20,000 draws against the exact probabilities, chi-squared with 5 degrees of freedom (p = 1e-6 at 38)."""
    logits, params, n = random_logits(1, 6, 1), SamplingParams(temperature=0.8, seed=7), 20_000
    generator = new_generator(params)
    rows = [SamplingRow(params, [], 0, generator=generator)] * 50
    tokens = [one.token_id for _ in range(n // 50) for one in sample(logits.expand(50, -1), rows)]
    counts, expected = torch.bincount(torch.tensor(tokens), minlength=6), (logits[0] / 0.8).softmax(0) * n
    assert ((counts - expected) ** 2 / expected).sum() < 38


@pytest.mark.parametrize("number", [0.0, 1.0 - 2**-53, 1.0])
def test_a_number_at_either_end_names_a_token_that_can_be_drawn(number):
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    (token,) = draw(logits, [SamplingParams()], torch.tensor([number], dtype=torch.float64)).tolist()
    assert token == (1 if number < 0.5 else 2)


@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_extreme_temperatures_are_the_limits(temperature):
    logits = torch.tensor([0.0, 1e4, 2e4])
    found = distribution(logits, SamplingParams(temperature=temperature))
    torch.testing.assert_close(found, torch.tensor([0.0, 0, 1]) if temperature < 1 else torch.full((3,), 1 / 3))


@pytest.mark.parametrize(
    ("extreme", "like"),
    [
        ({"temperature": 1e-50}, {"temperature": 0}),
        ({"temperature": 1e-40}, {"temperature": 0}),
        ({"temperature": 1e-50, "top_p": 0.5, "top_k": 3, "min_p": 0.1}, {"temperature": 0}),
        ({"top_p": 1e-50}, {"temperature": 0}),
        ({"min_p": 1e-50}, {}),
        ({"top_k": 2**70}, {}),
        ({"temperature": 1e300}, {"temperature": 1e20}),
        ({"temperature": 10**30}, {"temperature": 1e20}),
    ],
)
def test_parameters_that_float32_does_not_hold(extreme, like):
    logits = random_logits(1, 500)
    logits[:, ::2] = -torch.inf
    found = [SamplingParams(**{"seed": 3} | one) for one in (extreme, like)]
    ours, expected = (sample(logits, [row(params)])[0] for params in found)
    assert ours.error is None and ours.token_id == expected.token_id
    assert law(logits, found[:1]).isfinite().all() and law(logits, found[:1])[0, ours.token_id] > 0


def test_greedy_is_the_argmax_and_uses_no_randomness():
    params = SamplingParams(temperature=0)
    assert new_generator(params) is None
    state = torch.get_rng_state()
    assert sample(torch.tensor([[0.0, 2.0, 1.0]]), [row(params)])[0].token_id == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_fixes_the_draws_and_no_seed_does_not():
    logits = torch.zeros(1, 1000)

    def draws(params):
        one = row(params)
        return [sample(logits, [one])[0].token_id for _ in range(8)]

    assert draws(SamplingParams(seed=5)) == draws(SamplingParams(seed=5)) != draws(SamplingParams(seed=6))
    assert draws(SamplingParams()) != draws(SamplingParams())


@st.composite
def anybody(draw):
    """Parameters of every kind."""
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        top_k=draw(st.sampled_from([0, 0, 1, 5, 300])),
        top_p=draw(st.sampled_from([1.0, 0.3, 0.9])),
        min_p=draw(st.sampled_from([0.0, 0.1])),
        seed=draw(st.integers(0, 50)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.3])),
        bad_words=draw(st.sampled_from([(), ((2,), (3, 1))])),
        logprobs=draw(st.sampled_from([None, 2])),
    )


@settings(max_examples=60, deadline=None)
@given(params=st.lists(anybody(), min_size=1, max_size=6), seed=st.integers(0, 99), order=st.randoms())
def test_a_row_never_depends_on_its_batch(params, seed, order):
    """Three tokens of each request, alone and in a batch whose order changes: same tokens, same log probabilities."""
    logits = random_logits(3 * len(params), 400, seed).unflatten(0, (3, -1))

    def run(members):
        rows = {i: row(params[i], prompt_ids=[1, 2]) for i in members}
        said = {i: [] for i in members}
        for step in logits:
            order.shuffle(members)
            for i, one in zip(members, sample(step[members], [rows[i] for i in members]), strict=True):
                said[i].append((one.token_id, one.logprobs))
                rows[i].token_ids.append(one.token_id)
        return said

    together = run(list(range(len(params))))
    for i in range(len(params)):
        assert run([i])[i] == together[i]


def broken_rows():
    def raises(output_ids, logits):
        raise KeyError("no such state")

    nan, inf, nothing = torch.zeros(8), torch.zeros(8), torch.full((8,), -torch.inf)
    nan[3], inf[2] = torch.nan, torch.inf
    fine = torch.zeros(8)
    return [
        (fine, SamplingParams(temperature=0, logits_processors=[raises]), "sampling raised KeyError: 'no such state'"),
        (fine, SamplingParams(logits_processors=[lambda o, x: None]), "a logits processor returned NoneType"),
        (fine, SamplingParams(logits_processors=[lambda o, x: x[:3]]), "it must return logits"),
        (fine, SamplingParams(logit_bias={99: 1.0}), "IndexError"),
        (nan, SamplingParams(temperature=0), "the largest logit is nan"),
        (nan, SamplingParams(top_p=0.5), "the largest logit is nan"),
        (inf, SamplingParams(), "the largest logit is inf"),
        (nothing, SamplingParams(), "no token is allowed"),
        (fine, SamplingParams(allowed_token_ids=[1], bad_words=[[1]]), "no token is allowed"),
    ]


@pytest.mark.parametrize("case", range(len(broken_rows())))
def test_a_row_that_cannot_be_sampled_fails_alone(case):
    """Its batch mates say what they say without it, and go on drawing the same numbers."""
    logits, params, message = broken_rows()[case]
    healthy = [SamplingParams(seed=1), SamplingParams(temperature=0), SamplingParams(seed=2, top_k=3, logprobs=1)]
    others = random_logits(3, 8)

    def two_steps(batch_logits, rows):
        return [[(one.token_id, one.logprobs, one.error) for one in sample(batch_logits, rows)] for _ in range(2)]

    expected = two_steps(others, [row(one) for one in healthy])
    found = two_steps(
        torch.cat((others[:1], logits[None], others[1:])), [row(healthy[0]), row(params), *map(row, healthy[1:])]
    )
    assert [step[:1] + step[2:] for step in found] == expected
    for step in found:
        assert message in step[1][2] and "\n" not in step[1][2]


def test_logprobs_are_the_models_own_before_any_adjustment():
    logits = random_logits(1, 20)
    params = SamplingParams(temperature=0.3, top_k=2, logit_bias={4: 50.0}, logprobs=3, seed=0)
    (one,) = sample(logits, [row(params)])
    expected = logits[0].log_softmax(0)
    best = expected.sort(descending=True).indices.tolist()
    assert one.token_id == 4 and list(one.logprobs) == [4, *(token for token in best[:3] if token != 4)]
    for token, entry in one.logprobs.items():
        assert entry.logprob == pytest.approx(expected[token].item()) and entry.rank == best.index(token) + 1


def test_no_logprobs_beyond_the_chosen_token():
    (one,) = sample(torch.tensor([[0.0, 1.0]]), [row(SamplingParams(temperature=0, logprobs=0))])
    assert list(one.logprobs) == [1] and one.logprobs[1].rank == 1


def test_the_logits_are_left_as_they_are():
    logits = random_logits(2, 30)
    before = logits.clone()
    sample(
        logits, [row(SamplingParams(logit_bias={1: 5.0}, top_p=0.5)), row(SamplingParams(repetition_penalty=2.0), [3])]
    )
    assert torch.equal(logits, before)
