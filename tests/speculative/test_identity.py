"""Speculation changes how many passes an answer takes and nothing else (E2), whatever the engine does meanwhile."""

import pytest

torch = pytest.importorskip("torch")

from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from tests.model.tiny import tiny_tokenizer  # noqa: E402
from tests.speculative.serving import DETERMINISTIC, MODEL, PROPOSERS, answers, greedy, serve  # noqa: E402

PROMPTS = [[1, 2, 3], [5] * 9, [*range(10, 26)], [*range(10, 22), 3], [9, 9, 8, 9]]
NEW = 12
PARAMS = [greedy(NEW)] * len(PROMPTS)
CONFIGURATIONS = {
    "two at a time": {"max_num_seqs": 2},
    "chunks of 2": {"long_prefill_token_threshold": 2, "block_size": 1, "enable_prefix_caching": False},
    "a budget of 9": {"max_num_batched_tokens": 9, "max_num_seqs": 4, "block_size": 4},
    "static batches": {"policy": "static", "max_num_seqs": 2, "block_size": 2},
    "preempted, recomputed": {"num_blocks": 19, "block_size": 4, "watermark": 0.0, "max_model_len": 40},
    "preempted, swapped": {
        "num_blocks": 19, "block_size": 4, "watermark": 0.0, "max_model_len": 40, "num_host_blocks": 60,
    },
    "a window of 8": {"sliding_window": 8, "block_size": 4},
}  # fmt: skip
ALL = "wrong draft", "lookahead 5-grams"
FEW = "a budget of 9", "preempted, swapped"
CASES = [(name, config) for name in PROPOSERS for config in (CONFIGURATIONS if name in ALL else FEW)]


@pytest.fixture(scope="module")
def plain():
    return answers(PROMPTS, PARAMS)[0]


@pytest.mark.parametrize("name, config", CASES)
def test_greedy_answers_are_those_without_speculation(name, config, plain):
    options = CONFIGURATIONS[config]
    if "sliding_window" in options:
        plain = answers(PROMPTS, PARAMS, **options)[0]
    found, core = answers(PROMPTS, PARAMS, speculative=PROPOSERS[name], **options)
    assert found == plain
    assert core.stats.total("verified") > 0
    assert (core.stats.preemptions > 0) == config.startswith("preempted")
    assert (core.stats.total("swapped") > 0) == config.endswith("swapped")


@pytest.mark.parametrize("name", PROPOSERS)
def test_in_company_of_requests_that_opt_out_or_are_sampled(name, plain):
    params = [greedy(NEW), greedy(NEW, num_draft_tokens=0), greedy(NEW, num_draft_tokens=1)]
    params += [SamplingParams(temperature=0.9, seed=i, max_tokens=NEW) for i in range(2)]
    found, _ = answers(PROMPTS, params, speculative=PROPOSERS[name])
    assert found[:3] == plain[:3]
    sampled = answers(PROMPTS, params)[0][3:]
    assert (found[3:] == sampled) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", ["right draft", "layer skip", "lookahead"])
def test_prefix_hits(name, plain):
    core = assemble(MODEL, block_size=2, speculative=PROPOSERS[name])
    assert serve(core, PROMPTS, PARAMS) == plain
    longer = [prompt + answer[:5] for prompt, answer in zip(PROMPTS, plain, strict=True)]
    assert serve(core, longer, [greedy(NEW - 5)] * len(PROMPTS), first=200) == [answer[5:] for answer in plain]


@pytest.mark.parametrize("name", ["right draft", "reduced draft", "early exit", "lookahead"])
def test_an_end_token_inside_a_draft(name, plain):
    for place in (1, 2, 5):
        eos = plain[0][place]
        expected = answers(PROMPTS[:2], PARAMS[:2], eos=[eos])[0]
        assert expected[0] == plain[0][: plain[0].index(eos) + 1]
        assert answers(PROMPTS[:2], PARAMS[:2], eos=[eos], speculative=PROPOSERS[name])[0] == expected


@pytest.mark.parametrize("name", ["right draft", "early exit", "lookahead"])
def test_a_stop_string_inside_a_draft(name, plain):
    text = tiny_tokenizer().decode(plain[0])
    stop = text[4:6]
    kept = []
    for speculative in (None, PROPOSERS[name]):
        core = assemble(MODEL, tiny_tokenizer(), speculative=speculative)
        answer = core.add_request(Request("0", PROMPTS[0], greedy(NEW, stop=stop)))
        while core.has_unfinished_requests():
            core.step()
        kept.append((answer.text, answer.finish_reason, answer.token_ids))
    assert kept[0] == kept[1]
    assert kept[0][1] == "stop" and stop not in kept[0][0]


def test_a_right_draft_takes_one_pass_for_four_tokens(plain):
    found, core = answers(PROMPTS[:1], [greedy(13)], speculative=PROPOSERS["right draft"])
    assert found[0][:NEW] == plain[0]
    assert core.stats.total("verified") == 3 and core.stats.total("accepted") == 9


def test_a_wrong_draft_costs_passes_and_nothing_else(plain):
    found, core = answers(PROMPTS[:1], PARAMS[:1], speculative={"method": "small_draft", "seed": 1})
    assert found[0] == plain[0]
    assert core.stats.total("accepted") < 3
