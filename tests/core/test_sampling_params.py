"""SamplingParams: what makes no sense is refused by name, value and rule."""

import math

import pytest

from labcore.core.errors import InputError
from labcore.core.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1}, {"temperature": math.inf}, {"temperature": math.nan}, {"temperature": 10**400},
        {"temperature": "hot"}, {"logit_bias": {3: 10**400}},
        {"temperature": True}, {"top_k": -1}, {"top_k": 2.5}, {"top_p": 0}, {"top_p": 1.01}, {"top_p": None},
        {"max_tokens": 0}, {"max_tokens": 1.0}, {"seed": -1}, {"seed": 2**63}, {"seed": 1.5}, {"stop": [""]},
        {"min_p": -0.1}, {"min_p": 1.5}, {"n": 0}, {"n": 2.0}, {"presence_penalty": 2.1}, {"frequency_penalty": -2.1},
        {"repetition_penalty": 0}, {"repetition_penalty": math.inf}, {"min_tokens": 17}, {"min_tokens": -1},
        {"logprobs": -1}, {"logit_bias": {-1: 1.0}}, {"logit_bias": {1: math.nan}}, {"logit_bias": [1]},
        {"bad_words": [""]}, {"bad_words": [[]]}, {"bad_words": [[-1]]}, {"bad_words": "bad"},
        {"allowed_token_ids": []}, {"allowed_token_ids": [0.5]}, {"logits_processors": [3]},
        {"stop": 5}, {"stop": ["a", 1]}, {"stop_token_ids": [-1]}, {"stop_token_ids": ["a"]}, {"stop_token_ids": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_one_sentence_with_name_and_rule(bad):
    name = next(iter(bad))
    with pytest.raises(InputError, match=f"^{name}=.*: must be ") as caught:
        SamplingParams(**bad)
    assert "\n" not in str(caught.value)


def test_stop_takes_one_string_or_several():
    assert SamplingParams(stop="end").stop == ("end",)
    assert SamplingParams(stop=["a", "b"], stop_token_ids=[1]).stop == ("a", "b")
    assert hash(SamplingParams(stop=["a"])) == hash(SamplingParams(stop=("a",)))
    assert isinstance(hash(SamplingParams(logit_bias={1: 2.0}, bad_words=[[1, 2], "no"])), int)


def test_greedy_means_temperature_zero():
    assert SamplingParams(temperature=0).greedy and not SamplingParams().greedy


def test_each_of_n_answers_has_its_own_seed():
    params = SamplingParams(n=3, seed=2**63 - 2, top_k=5)
    assert [params.sample(i).seed for i in range(3)] == [2**63 - 2, 2**63 - 1, 0]
    assert params.sample(1) == SamplingParams(seed=2**63 - 1, top_k=5)
    assert SamplingParams(n=2).sample(1).seed is None
