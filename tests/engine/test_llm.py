"""`LLM`: the shapes of vLLM's API, streams that join to the text, and errors before anything runs."""

import pytest

torch = pytest.importorskip("torch")

import labcore  # noqa: E402
from labcore import LLM, SamplingParams  # noqa: E402
from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.engine.report import Cost, Machine, summary  # noqa: E402
from labcore.model.stats import kv_bytes_per_token, weight_bytes_per_pass  # noqa: E402

pytestmark = pytest.mark.model
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def llm(smollm2_path):
    return LLM(smollm2_path, device="cpu", progress=False)


def test_outputs_have_vllms_shape(llm):
    outputs = llm.generate(["The capital of France is", "1 2 3 4"], GREEDY)
    assert [output.prompt for output in outputs] == ["The capital of France is", "1 2 3 4"]
    answer = outputs[0].outputs[0]
    assert answer.text.startswith(" Paris.") and answer.index == 0 and answer.finish_reason == "length"
    assert len(answer.token_ids) == 12
    assert outputs[0].prompt_token_ids == tuple(llm.tokenizer.encode("The capital of France is"))


def test_text_and_token_ids_are_the_same_prompt(llm):
    ids = llm.tokenizer.encode("Once upon a time")
    by_text, by_ids = llm.generate("Once upon a time", GREEDY)[0], llm.generate(ids, GREEDY)[0]
    assert by_text.outputs == by_ids.outputs and by_ids.prompt is None
    assert llm.generate([ids, "Once upon a time"], GREEDY)[1].outputs == by_text.outputs


def test_a_chat_ends_at_the_end_token(llm):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = llm.chat(messages, SamplingParams(temperature=0, max_tokens=30))[0].outputs[0]
    assert (answer.text, answer.finish_reason) == ("The capital of France is Paris.", "stop")
    assert answer.token_ids[-1] == 2


def test_a_stream_joins_to_the_text_and_says_why_it_ended(llm):
    prompts = ["Write 😀😀😀 and", "The sea"]
    params = [SamplingParams(temperature=0, max_tokens=16), SamplingParams(temperature=0.8, seed=1, max_tokens=9)]
    whole = [output.outputs[0] for output in llm.generate(prompts, params)]
    deltas = list(llm.stream(prompts, params))
    for i, answer in enumerate(whole):
        mine = [delta for delta in deltas if delta.index == i]
        assert "".join(delta.text for delta in mine) == answer.text
        assert tuple(delta.token_id for delta in mine) == answer.token_ids
        assert [delta.finish_reason for delta in mine] == [None] * (len(mine) - 1) + [answer.finish_reason]


def test_a_stream_is_lazy_and_may_be_abandoned(llm):
    stream = llm.stream("The capital of France is", SamplingParams(temperature=0, max_tokens=1000))
    assert next(stream).text == " Paris"
    stream.close()
    assert llm.generate("The capital of France is", GREEDY)[0].outputs[0].text.startswith(" Paris")


def test_a_stop_string_that_spans_tokens_never_reaches_the_stream(llm):
    params = SamplingParams(temperature=0, max_tokens=40, stop=["is Paris"])
    prompt = llm.chat_prompt([{"role": "user", "content": "What is the capital of France?"}])
    assert "".join(delta.text for delta in llm.stream(prompt, params)) == "The capital of France "


def test_a_seed_decides_and_batch_mates_do_not(llm):
    def answer(prompts, seed):
        params = SamplingParams(temperature=1.0, top_p=0.95, top_k=100, seed=seed, max_tokens=12)
        return llm.generate(prompts, params)[0].outputs[0].token_ids

    alone = answer(["The weather"], 11)
    assert answer(["The weather", "Another, longer prompt about something else", "x"], 11) == alone
    assert answer(["The weather"], 12) != alone


def test_the_run_is_measured(llm):
    llm.generate(["The capital of France is", "1 2"], GREEDY)
    stats = llm.stats
    assert (stats.prompt_tokens, stats.new_tokens, stats.decode_tokens, stats.decode_passes) == (8, 24, 22, 11)
    assert stats.decode_context == sum(8 + 2 * n for n in range(1, 12))  # what both attended to, step by step
    assert stats.prefill_rate > 0 and stats.decode_rate > 0
    weights, kv = weight_bytes_per_pass(llm.model), kv_bytes_per_token(llm.model)
    assert weights == 134_515_008 * 4 and kv == 2 * 30 * 3 * 64 * 4
    expected = (11 * weights + stats.decode_context * kv) / stats.decode_seconds
    assert stats.read_rate(weights, kv) == pytest.approx(expected)
    cost = Cost.of(llm.model, llm.core.runner.storage)
    assert "prompt 8 tokens in" in summary(stats, cost)
    assert f"({expected / 1e11:.0%} of measured bandwidth)" in summary(stats, cost, Machine(1e11, 1e12))


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        ("", GREEDY, "the prompt is empty"),
        (["good", ""], GREEDY, "the prompt is empty"),
        ([["a"]], GREEDY, "prompt 0 is neither text nor a list of token ids"),
        (["a", "b"], [GREEDY], "1 sampling parameters for 2 prompts; give one, or one per prompt"),
        ("word " * 8192, GREEDY, r"the prompt has \d+ tokens and this model's context is 8192"),
        ([[49_152]], GREEDY, "token id 49152 in the prompt"),
        ({"prompt": "Hello"}, GREEDY, "prompts is of type dict; give a text, a list of token ids, or a list of these"),
        (b"abc", GREEDY, "prompts is of type bytes"),
        (None, GREEDY, "prompts is of type NoneType"),
        ("a", {"max_tokens": 3}, "sampling_params is {'max_tokens': 3}; give SamplingParams, or a list of them"),
        (["a"], ["b"], r"sampling_params is \['b'\]; give SamplingParams"),
    ],
)
def test_bad_requests_are_one_sentence(llm, prompts, params, message):
    with pytest.raises(InputError, match=message):
        llm.generate(prompts, params)


def test_bad_options_are_one_sentence(smollm2_path, tmp_path):
    with pytest.raises(InputError, match="dtype='int3': must be one of auto, float32, bfloat16, float16"):
        LLM(smollm2_path, dtype="int3")
    with pytest.raises(InputError, match="option 'max_seqs' is unknown; besides LLM's own there are async_sched"):
        LLM(smollm2_path, max_seqs=3)
    with pytest.raises(InputError, match="kv_cache_dtype='int3': must be one of auto, float32"):
        LLM(smollm2_path, kv_cache_dtype="int3", progress=False)
    with pytest.raises(InputError, match="max_model_len=9000: this model's context is 8192"):
        LLM(smollm2_path, max_model_len=9000, progress=False)
    with pytest.raises(InputError, match="device='quark' cannot be used"):
        LLM(smollm2_path, device="quark")
    (tmp_path / "half.gguf").write_bytes(smollm2_path.read_bytes()[:50_000_000])
    with pytest.raises(DataError, match=r"half.gguf: truncated: tensor '.*' ends at byte \d+, the file at 50000000"):
        LLM(tmp_path / "half.gguf")


def test_no_prompts_give_no_outputs(llm):
    assert llm.generate([], GREEDY) == []


def test_the_package_shows_both_names_lazily():
    assert {"LLM", "SamplingParams"} <= set(dir(labcore))
    with pytest.raises(AttributeError, match="module 'labcore' has no attribute 'Nope'"):
        _ = labcore.Nope
