"""What a run reports: counted from plans, and shares that add up."""

import re

import pytest

torch = pytest.importorskip("torch")

from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.llm import LLM  # noqa: E402
from labcore.engine.report import Cost, Machine, summary  # noqa: E402
from labcore.engine.stats import STAGES  # noqa: E402
from tests.model.tiny import tiny_model, tiny_tokenizer  # noqa: E402

PARAMS = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


def new_llm(**options) -> LLM:
    return LLM.around(assemble(tiny_model(), tiny_tokenizer(), **({"num_blocks": 64, "block_size": 4} | options)))


def test_steps_count_what_was_computed_and_read():
    llm = new_llm()
    llm.generate([[1, 2, 3], [4, 5, 6, 7, 8]], PARAMS)
    prefill, *decode = llm.stats.steps
    assert (prefill.tokens, prefill.context, prefill.pairs, prefill.sampled, prefill.decode) == (8, 8, 6 + 15, 2, False)
    assert [(step.tokens, step.context, step.pairs, step.sampled) for step in decode] == [
        (2, 10, 10, 2), (2, 12, 12, 2), (2, 14, 14, 2), (2, 16, 16, 2),
    ]  # fmt: skip
    assert all(step.decode for step in decode)
    stats = llm.stats
    assert (stats.new_tokens, stats.decode_tokens, stats.decode_passes, stats.decode_context) == (10, 8, 4, 52)
    assert stats.prefill_seconds + stats.decode_seconds == pytest.approx(sum(step.duration for step in stats.steps))


def test_a_window_bounds_what_is_read():
    llm = new_llm(sliding_window=3)
    llm.generate([[1, 2, 3, 4, 5]], PARAMS)
    prefill, *decode = llm.stats.steps
    assert (prefill.context, prefill.pairs) == (5, 1 + 2 + 3 + 3 + 3)
    assert [(step.context, step.pairs) for step in decode] == [(3, 3)] * 4


def test_cached_tokens_and_chunks_are_not_decode_steps():
    llm, prompt = new_llm(long_prefill_token_threshold=4), list(range(1, 11))
    llm.generate([prompt], PARAMS)
    assert [step.decode for step in llm.stats.steps] == [False] * 3 + [True] * 4
    (output,) = llm.generate([prompt], PARAMS)
    assert llm.stats.cached_tokens == output.num_cached_tokens == 8
    assert [step.tokens for step in llm.stats.steps] == [2, 1, 1, 1, 1]


def test_preemptions_and_swaps_are_counted():
    llm = new_llm(num_blocks=8, num_host_blocks=8, watermark=0.0)
    llm.generate([[1] * 8, [2] * 8, [3] * 8], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    stats = llm.stats
    assert stats.preemptions > 0 and stats.total("swapped") > 0
    cost = Cost.of(llm.model, llm.core.runner.storage)
    assert f"{stats.preemptions} preemptions, {stats.total('swapped')} blocks swapped" in summary(stats, cost)


def test_drafts_are_counted():
    llm = new_llm(speculative={"method": "ngram", "min_n": 1, "num_tokens": 3})
    llm.generate([[7] * 8], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
    stats = llm.stats
    drafted, verified, accepted = (stats.total(name) for name in ("drafted", "verified", "accepted"))
    assert 0 < accepted <= drafted and drafted <= 3 * verified
    assert stats.new_tokens == 30 == len(stats.steps) + accepted
    assert stats.acceptance_length == 1 + accepted / verified
    assert sum(step.tokens for step in stats.steps) == 8 + (len(stats.steps) - 1) + drafted
    cost = Cost.of(llm.model, llm.core.runner.storage)
    assert f"{accepted} of {drafted} draft tokens accepted: {stats.acceptance_length:.2f}" in summary(stats, cost)
    step = next(step for step in stats.steps if step.drafted == 3)
    assert cost.flops(step) == cost.layer_flops * 4 + cost.head_flops * 4 + cost.pair_flops * step.pairs


def test_the_cost_of_a_step_is_its_bytes_and_operations():
    llm = new_llm()
    llm.generate([[1, 2, 3]], PARAMS)
    config, cost = llm.model.config, Cost.of(llm.model, llm.core.runner.storage)
    layers = sum(
        weight.numel()
        for name, weight in llm.model.named_parameters()
        if name.startswith("layers") and "norm" not in name
    )
    assert cost.layer_flops == 2 * layers
    assert cost.kv_bytes == 2 * config.n_layers * config.n_kv_heads * config.head_dim * 4
    step = llm.stats.steps[1]
    assert cost.bytes(step) == cost.weight_bytes + (4 + 1) * cost.kv_bytes
    pair = 4 * config.n_layers * config.n_heads * config.head_dim
    assert cost.flops(step) == 2 * layers + 2 * config.hidden * config.vocab + 4 * pair
    slow_memory, slow_arithmetic = Machine(1.0, 1e30), Machine(1e30, 1.0)
    assert cost.least_seconds(step, slow_memory) == cost.bytes(step)
    assert cost.least_seconds(step, slow_arithmetic) == cost.flops(step)


def test_the_shares_of_a_run_add_up():
    llm = new_llm()
    llm.generate([[1, 2, 3]], PARAMS)
    for number, step in enumerate(llm.stats.steps):
        step.seconds.update(dict.fromkeys(STAGES, 0.0) | {"model": 8.0, "sample": 1.0, "update": 1.0 * (number > 0)})
    cost = Cost.of(llm.model, llm.core.runner.storage)
    decode = [step for step in llm.stats.steps if step.decode]
    machine = Machine(sum(map(cost.bytes, decode)) / 4 / 2, 1e30)  # a floor of 2 s on each of four steps, about
    line = summary(llm.stats, cost, machine).splitlines()[3]
    assert line.startswith("  4 steps, ")
    assert "20% of the roofline; the rest: model beyond its floor 60%, sample 10%, update 10%, schedule 0%" in line
    shares = [int(share) for share in re.findall(r"(\d+)%", line)]
    assert sum(shares) == 100
    assert len(summary(llm.stats, cost).splitlines()) == 2
