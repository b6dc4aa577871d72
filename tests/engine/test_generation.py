"""Generation through the engine: stopping, seeds, limits, parallel samples and batch mates, on tiny models."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.llm import LLM, CompletionOutput  # noqa: E402
from labcore.model.detokenizer import StopStrings  # noqa: E402
from tests.model.tiny import CONTEXT, END, Scripted, tiny_model, tiny_tokenizer  # noqa: E402


def new_llm(model, **options) -> LLM:
    return LLM.around(assemble(model, tiny_tokenizer(), **({"num_blocks": 64, "block_size": 4} | options)))


def finish(model, prompts, params, **options) -> list[CompletionOutput]:
    """The first answer to each prompt (token ids)."""
    return [output.outputs[0] for output in new_llm(model, **options).generate(prompts, params)]


def script(text: str, **options) -> CompletionOutput:
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


def test_a_stop_string_may_begin_among_the_tokens_that_cannot_end():
    done = script("ab. STOP on", stop=["STOP"], min_tokens=6)
    assert done.finish_reason == "stop" and done.text == "ab. "
    assert script("STOP. STOP", stop=["STOP"], min_tokens=6).text == "STOP. "


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


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.text("ab", min_size=1, max_size=3), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4)),
    early=st.integers(0, 8),
)
def test_a_stop_string_counts_if_it_ends_late_enough_wherever_it_began(pieces, stops, early):
    checker, shown, text = StopStrings(stops), "", ""
    complete = []
    for number, piece in enumerate(pieces, 1):
        before, text = len(text), text + piece
        shown += checker.push(piece, may_end=number > early)
        if number > early:
            complete = [
                (end, end - len(stop))
                for stop in stops
                for end in range(before + 1, len(text) + 1)
                if text[:end].endswith(stop)
            ]
            if complete:
                break
    shown += checker.finish()
    assert (checker.found is not None) == bool(complete)
    assert shown == (text[: min(complete)[1]] if complete else text)


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
        assert fresh.token_ids == (expected,)
        tokens.append(expected)


def test_generation_stops_when_the_context_is_full():
    prompt = [1] * (CONTEXT - 5)
    done = finish(tiny_model(), [prompt], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))[0]
    assert done.finish_reason == "length" and len(prompt) + len(done.token_ids) == CONTEXT


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], {}, "the prompt is empty; give at least one token"),
        ([1] * CONTEXT, {}, f"the prompt has {CONTEXT} tokens and this model's context is {CONTEXT}"),
        ([1, 257], {}, "token id 257 in the prompt; this model has ids 0 to 256"),
        ([-1], {}, "token id -1 in the prompt"),
        ([1], {"logit_bias": {257: 1.0}}, "token id 257 in logit_bias"),
        ([1], {"allowed_token_ids": [3, 999]}, "token id 999 in allowed_token_ids"),
        ([1], {"stop_token_ids": [300]}, "token id 300 in stop_token_ids"),
        ([1], {"bad_words": [[5, 400]]}, "token id 400 in bad_words"),
    ],
)
def test_a_request_that_cannot_run_is_refused_before_anything_does(prompt, params, message):
    llm = new_llm(tiny_model())
    with pytest.raises(InputError, match=message):
        llm.generate([[1], prompt], [SamplingParams(), SamplingParams(**params)])
    assert not llm.stats.steps and not llm.core.has_unfinished_requests()


def test_a_request_that_fits_no_cache_is_refused_and_takes_none_with_it():
    llm = new_llm(tiny_model(), num_blocks=5)
    with pytest.raises(InputError, match="has a prompt of 20 tokens, and max_model_len=16"):
        llm.generate([[1], [2] * 20])
    assert not llm.core.has_unfinished_requests()
    assert len(llm.generate([[1]], SamplingParams(max_tokens=3, ignore_eos=True))[0].outputs[0].token_ids) == 3


def test_no_prompts_no_steps():
    llm = new_llm(tiny_model())
    assert llm.generate([]) == [] and not llm.stats.steps


def test_parallel_samples_are_the_requests_with_seeds_in_a_row():
    """n answers share the prompt's blocks, and the partly filled last one is copied when they part."""
    params = SamplingParams(n=3, seed=5, max_tokens=10, ignore_eos=True)
    prompt, llm = list(range(40, 50)), new_llm(tiny_model())
    moved = []
    move = llm.core.runner.storage.move
    llm.core.runner.storage.move = lambda moves: moved.extend(moves) or move(moves)
    (output,) = llm.generate([prompt], params)
    alone = [finish(tiny_model(), [prompt], params.sample(i))[0] for i in range(3)]
    assert [one.token_ids for one in output.outputs] == [one.token_ids for one in alone]
    assert [one.index for one in output.outputs] == [0, 1, 2] and len({one.token_ids for one in output.outputs}) == 3
    assert len(moved) == 2  # the last of the three keeps the block
    computed = sum(step.tokens for step in llm.stats.steps)
    assert computed < 3 * len(prompt) + 3 * 9


def test_a_stream_of_parallel_samples_says_whose_each_piece_is():
    params = SamplingParams(n=2, seed=1, max_tokens=6, ignore_eos=True)
    prompts = [[5, 6, 7], [8, 9]]
    whole = new_llm(tiny_model()).generate(prompts, params)
    deltas = list(new_llm(tiny_model()).stream(prompts, params))
    for index, output in enumerate(whole):
        for sample, answer in enumerate(output.outputs):
            mine = [delta for delta in deltas if (delta.index, delta.sample) == (index, sample)]
            assert tuple(delta.token_id for delta in mine) == answer.token_ids
            assert "".join(delta.text for delta in mine) == answer.text


def test_streams_may_be_read_in_turns_and_abandoned():
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    model, prompts = tiny_model(), ([3, 4], [5, 6], [7])
    alone = [finish(model, [prompt], params)[0].token_ids for prompt in prompts]
    llm = new_llm(model)
    first, second, third = (llm.stream([prompt], params) for prompt in prompts)
    next(third)
    got = [(a.token_id, b.token_id) for a, b in zip(first, second, strict=True)]
    assert tuple(zip(*got, strict=True)) == (alone[0], alone[1])
    third.close()
    assert not llm.core.has_unfinished_requests() and not llm.core.answers


def test_min_tokens_delays_every_stop():
    done = script("a<end>bSTOPcSTOPd", stop=["STOP"], min_tokens=7, max_tokens=16)
    assert done.token_ids[1] != END  # masked, so the next likeliest follows
    assert done.finish_reason == "stop" and done.text.endswith("STOPc") and done.text.count("STOP") == 1


def test_a_stop_string_may_be_kept():
    assert script("one STOP two", stop=["STOP"], include_stop_str_in_output=True).text == "one STOP"


def test_bad_words_never_appear_whatever_their_first_letter_follows():
    class Stubborn(Scripted):
        def forward(self, token_ids, positions, attend, wanted):
            logits = torch.zeros(len(wanted), self.config.vocab)
            logits[:, ord("a")], logits[:, ord("b")] = 2.0, 1.0
            return logits

    params = SamplingParams(temperature=0, max_tokens=7, bad_words=["aa"])
    done = finish(Stubborn([]), [[1, 2]], params)[0]
    assert done.text == "abababa"


def test_logprobs_come_with_every_token_and_their_text():
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=2, ignore_eos=True)
    done = finish(tiny_model(), [[5, 6]], params)[0]
    assert [next(iter(entry)) for entry in done.logprobs] == list(done.token_ids)
    chosen = [entry[token] for entry, token in zip(done.logprobs, done.token_ids, strict=True)]
    assert all(one.rank == 1 and one.logprob < 0 for one in chosen)
    assert [one.decoded_token for one in chosen] == [tiny_tokenizer().decode([token]) for token in done.token_ids]
    assert finish(tiny_model(), [[5, 6]], SamplingParams(temperature=0, max_tokens=3))[0].logprobs is None


def test_a_request_that_fails_says_why_and_the_others_answer():
    def broken(output_ids, logits):
        raise ValueError("broken")

    good = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    llm = new_llm(tiny_model())
    outputs = llm.generate([[1], [2], [3]], [good, SamplingParams(logits_processors=[broken]), good])
    failed = outputs[1].outputs[0]
    assert (failed.finish_reason, failed.error) == ("error", "sampling raised ValueError: broken")
    assert [len(output.outputs[0].token_ids) for output in outputs] == [4, 0, 4]


@pytest.mark.parametrize("extreme", [{"temperature": 1e-50}, {"top_p": 1e-50}, {"temperature": 1e-50, "logprobs": 1}])
def test_a_request_colder_than_float32_is_greedy_beside_others(extreme):
    greedy, cold = (SamplingParams(max_tokens=4, ignore_eos=True, **one) for one in ({"temperature": 0}, extreme))
    outputs = new_llm(tiny_model()).generate([[1, 2], [1, 2]], [greedy, cold])
    assert (
        outputs[0].outputs[0].token_ids == outputs[1].outputs[0].token_ids and len(outputs[0].outputs[0].token_ids) == 4
    )


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


def test_what_no_processor_has_seen_is_checked_too():
    core = new_llm(tiny_model()).core
    with pytest.raises(InputError, match="request 'far' has token id 1000000; this model has 0 to 256"):
        core.add_request(Request("far", [1, 10**6], SamplingParams()))
    for params in (SamplingParams(n=3), SamplingParams(bad_words=("the",))):
        with pytest.raises(InputError, match=r"'many': n > 1 and bad words as text are for Processor\.requests"):
            Request("many", [1], params)


@pytest.mark.parametrize("salt", ["\ud800", None, 3, b"x"])
def test_a_salt_that_cannot_be_hashed_is_refused_before_it_ends_the_engine(salt):
    with pytest.raises(InputError, match=r"cache_salt=.* must be text, without lone surrogates"):
        Request("salty", [1], SamplingParams(), cache_salt=salt)


def test_one_name_may_be_given_as_it_is():
    core = new_llm(tiny_model()).core
    core.add_request(Request("req-1", [1], SamplingParams()))
    core.abort("req-1")
    assert not core.answers and not core.has_unfinished_requests()
