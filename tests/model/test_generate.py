"""The generation loop: stopping, streaming, seeds, limits and batch mates, on a tiny and on a scripted model."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.model.detokenizer import StopStrings  # noqa: E402
from labcore.model.generate import generate  # noqa: E402
from labcore.model.sequence import Sequence  # noqa: E402
from tests.model.tiny import CONTEXT, END, Scripted, tiny_model, tiny_tokenizer  # noqa: E402


def finish(model, prompts, params) -> list[Sequence]:
    """Run prompts (token ids) to their ends with the tiny tokenizer."""
    tokenizer = tiny_tokenizer()
    params = params if isinstance(params, list) else [params] * len(prompts)
    sequences = [
        Sequence(prompt, param, tokenizer.eos_ids, tokenizer.detokenizer())
        for prompt, param in zip(prompts, params, strict=True)
    ]
    for _ in generate(model, sequences):
        pass
    return sequences


def script(text: str, **options) -> Sequence:
    """What comes of a model that says `text`; "<end>" in it is the end token."""
    params = SamplingParams(temperature=0, **({"max_tokens": 30} | options))
    return finish(Scripted(tiny_tokenizer().encode(text)), [[1, 2]], params)[0]


def test_the_end_token_ends_the_text_and_is_not_in_it():
    done = script("hello<end>more")
    assert (done.text, done.finish_reason, done.token_ids[-1]) == ("hello", "stop", END)


def test_ignore_eos_goes_on():
    done = script("a<end>b<end>cdef", ignore_eos=True, max_tokens=5)
    assert (done.text, done.finish_reason) == ("abc", "length")


def test_max_tokens_counts_every_token():
    done = script("hello world", max_tokens=5)
    assert (done.text, done.finish_reason, len(done.token_ids)) == ("hello", "length", 5)


def test_a_stop_string_ends_before_itself_even_inside_a_token_run():
    done = script("one STOP two", stop=["STOP"])
    assert (done.text, done.finish_reason) == ("one ", "stop")
    assert len(done.token_ids) == len("one STOP")


def test_the_earliest_of_several_stop_strings_counts():
    assert script("abcdef<end>", stop=["def", "cd"]).text == "ab"


def test_a_beginning_of_a_stop_string_is_text_if_it_never_completes():
    assert script("one STO<end>", stop=["STOP"]).text == "one STO"
    assert script("one STO and on", stop=["STOP"], max_tokens=7).text == "one STO"


def test_a_stop_token_ends_like_the_end_token():
    done = script("abc", stop_token_ids=[ord("b")])
    assert done.finish_reason == "stop" and done.text == "a"


def test_a_character_cut_off_by_max_tokens_becomes_one_replacement():
    assert script("é!", max_tokens=1).text == "\ufffd"


@settings(max_examples=200, deadline=None)
@given(
    text=st.text("ab", max_size=30),
    cuts=st.lists(st.integers(0, 30)),
    stops=st.lists(st.text("ab", min_size=1, max_size=4)),
)
def test_stop_strings_do_not_depend_on_how_the_text_arrives(text, cuts, stops):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    checker, shown = StopStrings(stops), ""
    for start, end in pairwise(edges):
        shown += checker.push(text[start:end])
        assert not any(stop in shown for stop in stops)  # nothing ever has to be taken back
    shown += checker.finish()
    complete = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert shown == (text[: min(complete)[1]] if complete else text)
    assert (checker.found is not None) == bool(complete)


def test_tokens_do_not_depend_on_batch_mates():
    model = tiny_model()
    prompts = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 9], [200, 100, 50]]
    params = [SamplingParams(temperature=t, seed=seed, max_tokens=n, ignore_eos=True)
              for t, seed, n in [(0, None, 12), (1.0, 3, 20), (0.7, 4, 5), (1.0, 3, 16)]]  # fmt: skip
    together = finish(model, prompts, params)
    alone = [finish(model, [prompt], [param])[0] for prompt, param in zip(prompts, params, strict=True)]
    assert [s.token_ids for s in together] == [s.token_ids for s in alone]
    assert [len(s.token_ids) for s in together] == [12, 20, 5, 16]
    reverse = finish(model, prompts[::-1], params[::-1])
    assert [s.token_ids for s in reverse[::-1]] == [s.token_ids for s in together]


def test_the_cache_changes_nothing():
    """Every token is the argmax of a pass over the whole sequence that starts from an empty cache."""
    model = tiny_model()
    done = finish(model, [[7, 8, 9]], SamplingParams(temperature=0, max_tokens=15, ignore_eos=True))[0]
    tokens = [7, 8, 9]
    for expected in done.token_ids:
        fresh = finish(model, [tokens], SamplingParams(temperature=0, max_tokens=1))[0]
        assert fresh.token_ids == [expected]
        tokens.append(expected)


def test_generation_stops_when_the_context_is_full():
    prompt = [1] * (CONTEXT - 5)
    done = finish(tiny_model(), [prompt], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))[0]
    assert done.finish_reason == "length" and done.length == CONTEXT


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty; give at least one token"),
        ([1] * CONTEXT, f"the prompt has {CONTEXT} tokens and this model's context is {CONTEXT}"),
        ([1, 257], "token id 257 in the prompt; this model has ids 0 to 256"),
        ([-1], "token id -1 in the prompt"),
    ],
)
def test_a_prompt_that_cannot_run_is_refused_before_anything_does(prompt, message):
    good = Sequence([1], SamplingParams())
    with pytest.raises(InputError, match=message):
        next(generate(tiny_model(), [good, Sequence(prompt, SamplingParams())]))
    assert good.token_ids == []


def test_no_prompts_no_passes():
    assert list(generate(tiny_model(), [])) == []


@pytest.mark.gpu
@pytest.mark.model
def test_the_gpu_says_what_the_cpu_says(checkpoint, prompts):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    from labcore.model.loader import load_model
    from tests.model.reference_runs import greedy

    some = prompts[:6]
    on_cpu, on_gpu = (greedy(load_model(checkpoint, device=device), some, 32) for device in ("cpu", "cuda"))
    assert [run.tokens for run in on_gpu] == [run.tokens for run in on_cpu]
