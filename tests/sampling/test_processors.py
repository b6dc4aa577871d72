"""Adjustments of logits: transformers' processors as the oracle, and written out where it has none."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers.generation.logits_process")

from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.sampling.processors import adjust, adjusts  # noqa: E402
from labcore.sampling.sampler import SamplingRow  # noqa: E402

VOCAB = 12
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=10)


def random_logits(rows: int, seed: int) -> "torch.Tensor":
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def adjusted(logits, output_ids=(), prompt_ids=(), stop_ids=(), **options):
    row = SamplingRow(SamplingParams(**options), [*prompt_ids, *output_ids], len(prompt_ids), frozenset(stop_ids))
    return adjust(logits[None].clone(), [row])[0]


@settings(max_examples=60)
@given(tokens, tokens, st.floats(0.5, 2), st.integers(0, 99))
def test_repetition_penalty_is_transformers(prompt, output, penalty, seed):
    (logits,) = random_logits(1, seed)
    expected = logits
    if prompt + output:
        process = hf.RepetitionPenaltyLogitsProcessor(penalty)
        expected = process(torch.tensor([prompt + output]), logits[None].clone())[0]
    torch.testing.assert_close(adjusted(logits, output, prompt, repetition_penalty=penalty), expected)


@settings(max_examples=60)
@given(tokens, st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3), min_size=1, max_size=4))
def test_bad_words_are_transformers(output, words):
    (logits,) = random_logits(1, 0)
    process = hf.NoBadWordsLogitsProcessor(words, eos_token_id=torch.tensor([VOCAB + 5]))
    expected = process(torch.tensor([output or [VOCAB + 1]]), logits[None].clone())[0]
    assert torch.equal(adjusted(logits, output, bad_words=words), expected)


@given(st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), min_size=1))
def test_logit_bias_is_transformers(bias):
    (logits,) = random_logits(1, 1)
    process = hf.SequenceBiasLogitsProcessor({(token,): float(value) for token, value in bias.items()})
    expected = process(torch.tensor([[0]]), logits[None].clone())[0]
    torch.testing.assert_close(adjusted(logits, logit_bias=bias), expected)


@given(tokens, st.integers(0, 10), st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=3))
def test_min_tokens_is_transformers(output, least, stops):
    (logits,) = random_logits(1, 2)
    expected = logits
    if least:
        process = hf.MinNewTokensLengthLogitsProcessor(0, least, sorted(stops))
        expected = process(torch.tensor([output], dtype=torch.int64), logits[None].clone())[0]
    assert torch.equal(adjusted(logits, output, stop_ids=stops, min_tokens=least, max_tokens=20), expected)


@given(st.sets(st.integers(0, VOCAB - 1), min_size=1))
def test_allowed_tokens_leave_nothing_else(allowed):
    (logits,) = random_logits(1, 3)
    expected = hf.SuppressTokensLogitsProcessor(sorted(set(range(VOCAB)) - allowed))(None, logits[None].clone())[0]
    assert torch.equal(adjusted(logits, allowed_token_ids=sorted(allowed)), expected)


@settings(max_examples=60)
@given(tokens, tokens, st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_count_the_answer_only(prompt, output, presence, frequency):
    """OpenAI's definition, token by token: mu - count · frequency - (count > 0) · presence."""
    (logits,) = random_logits(1, 4)
    expected = [
        value - output.count(token) * frequency - (token in output) * presence
        for token, value in enumerate(logits.tolist())
    ]
    found = adjusted(logits, output, prompt, presence_penalty=presence, frequency_penalty=frequency)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_order_is_vllms():
    """Bias before the caller's processors, those before penalties; what is forbidden stays so."""
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0])
    double = lambda output_ids, logits: logits * 2  # noqa: E731
    found = adjusted(
        logits, [1, 3], logit_bias={1: 10.0, 3: 1.0}, logits_processors=[double],
        repetition_penalty=2.0, frequency_penalty=1.0, bad_words=[[3]],
    )  # fmt: skip
    assert found.tolist() == [2.0, (2 + 10) * 2 / 2 - 1, 6.0, -torch.inf]


def test_a_processor_sees_the_answer_so_far():
    seen = []

    def process(output_ids, logits):
        seen.append((output_ids, logits.tolist()))
        return logits

    adjusted(torch.tensor([1.0, 2.0]), [1, 0, 1], prompt_ids=[0], logits_processors=[process])
    assert seen == [([1, 0, 1], [1.0, 2.0])]


@st.composite
def options(draw):
    whole = {
        "presence_penalty": draw(st.sampled_from([0.0, 0.5])),
        "frequency_penalty": draw(st.sampled_from([0.0, -1.0])),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.5])),
        "logit_bias": draw(st.sampled_from([None, {0: 1.0, 5: -2.0}])),
        "bad_words": draw(st.sampled_from([(), ((1, 2), (3,))])),
        "min_tokens": draw(st.sampled_from([0, 4])),
        "allowed_token_ids": draw(st.sampled_from([None, None, (0, 1, 2, 3)])),
    }
    return SimpleNamespace(params=SamplingParams(**whole), prompt=draw(tokens), output=draw(tokens))


@settings(max_examples=60)
@given(st.lists(options(), min_size=1, max_size=5))
def test_every_row_is_adjusted_as_it_would_be_alone(batch):
    rows = [SamplingRow(one.params, one.prompt + one.output, len(one.prompt), frozenset({7})) for one in batch]
    logits = random_logits(len(rows), 5)
    together = adjust(logits.clone(), rows)
    for i, row in enumerate(rows):
        assert torch.equal(adjust(logits[i : i + 1].clone(), [row])[0], together[i])
        assert adjusts(row) or torch.equal(together[i], logits[i])
