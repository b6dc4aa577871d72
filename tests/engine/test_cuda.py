"""The engine on a GPU says what the engine on the CPU says: the repository's own trained model, fp32, greedy."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.engine_core import EngineCore  # noqa: E402
from labcore.engine.llm import LLM  # noqa: E402
from labcore.engine.overlap import OverlappedEngine  # noqa: E402
from labcore.engine.random_model import random_engine, run_to_end, token_requests  # noqa: E402
from labcore.kernels.tune import chosen  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.quant.baseline import baseline  # noqa: E402

pytestmark = pytest.mark.gpu

TEXTS = [
    "The country borders the sea in the north and",
    "Natural resources: oil, natural gas,",
    "Its population is",
    "The country borders the sea in the north and the mountains in the south; its climate is",
    "Government type:",
    "Exports: textiles, clothing, coffee, fish, machinery and transport equipment, chemicals, petroleum products, and "
    "exports to the neighbouring countries are",
    "A",
]
LENGTHS = [40, 33, 1, 64, 17, 50, 100]

SWITCHES = {
    "everything": {},
    "no graphs": {"cuda_graphs": False},
    "no overlap": {"async_scheduling": False},
    "neither": {"cuda_graphs": False, "async_scheduling": False},
    "torch's operators": {"triton": False},
    "torch's, plain order": {"triton": False, "async_scheduling": False},
}
CONFIGURATIONS = {
    "one at a time": {"max_num_seqs": 1},
    "chunks of 16": {"max_num_batched_tokens": 16, "max_num_seqs": 7},
    "blocks of 128": {"block_size": 128},
    "blocks of 1": {"block_size": 1},
    "no prefix cache": {"enable_prefix_caching": False},
    "a window of 32": {"sliding_window": 32},
    "preempted": {"num_blocks": 14, "watermark": 0.0},
    "swapped": {"num_blocks": 14, "watermark": 0.0, "num_host_blocks": 40},
}


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(baseline())


@pytest.fixture(scope="module")
def on_cpu(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def on_gpu(checkpoint):
    return load_model(checkpoint, device="cuda")


@pytest.fixture(scope="module")
def prompts(checkpoint):
    return [checkpoint.tokenizer().encode(text) for text in TEXTS]


def greedy(length):
    return SamplingParams(temperature=0, max_tokens=length, ignore_eos=True)


def serve(core, prompts, params=None, name=""):
    params = params or [greedy(length) for length in LENGTHS]
    requests = [Request(f"{name}{i}", prompt, one) for i, (prompt, one) in enumerate(zip(prompts, params, strict=True))]
    run_to_end(core, requests)
    return [request.output_token_ids for request in requests]


@pytest.fixture(scope="module")
def expected(on_cpu, prompts):
    return serve(assemble(on_cpu, num_blocks=200), prompts)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_says_what_the_cpu_says(on_gpu, prompts, expected, name):
    core = assemble(on_gpu, num_blocks=200, **SWITCHES[name])
    assert (type(core) is OverlappedEngine) == SWITCHES[name].get("async_scheduling", True)
    assert (core.runner.graphs is not None) == ("cuda_graphs" not in SWITCHES[name] and "triton" not in SWITCHES[name])
    assert serve(core, prompts) == expected
    if core.runner.graphs is not None:
        assert {key.rows for key in core.runner.graphs.graphs} == {1, 2, 4, 8}  # padded where 3, 5, 6 or 7 decode
    assert serve(core, prompts, name="again") == expected  # the prompts from the prefix cache, the graphs once more


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_however_it_is_scheduled_and_stored(on_cpu, on_gpu, prompts, expected, name):
    options = {"num_blocks": 2000 if name == "blocks of 1" else 200} | CONFIGURATIONS[name]
    core = assemble(on_gpu, **options)
    found = serve(core, prompts)
    if "sliding_window" in options:
        expected = serve(assemble(on_cpu, **options), prompts)
    assert found == expected
    assert (core.stats.preemptions > 0) == (name in ("preempted", "swapped"))


def test_random_tokens_do_not_depend_on_how_they_are_served(on_gpu, prompts):
    params = [
        SamplingParams(
            temperature=0.8, seed=i, max_tokens=length, ignore_eos=True, **[{}, {"top_k": 20, "top_p": 0.9}][i % 2]
        )
        for i, length in enumerate(LENGTHS)
    ]
    expected = serve(assemble(on_gpu, num_blocks=200), prompts, params)
    for options in (SWITCHES["neither"], {"max_num_seqs": 1}, {"num_blocks": 14, "watermark": 0.0}):
        assert serve(assemble(on_gpu, **({"num_blocks": 200} | options)), prompts, params) == expected


def test_requests_that_need_the_host_beside_others(on_cpu, on_gpu, prompts):
    params = [greedy(length) for length in LENGTHS]
    params[0] = SamplingParams(temperature=0, repetition_penalty=1.3, max_tokens=20, ignore_eos=True)
    params[1] = SamplingParams(temperature=0, logprobs=2, max_tokens=20)
    expected = serve(assemble(on_cpu, num_blocks=200), prompts, params)
    assert serve(assemble(on_gpu, num_blocks=200), prompts, params) == expected


def test_speculation_and_an_8_bit_cache_run_without_graphs(on_gpu, prompts, expected):
    core = assemble(on_gpu, num_blocks=200, speculative={"method": "ngram", "num_tokens": 3})
    assert type(core) is EngineCore and serve(core, prompts) == expected
    core = assemble(on_gpu, num_blocks=200, kv_cache_dtype="int8")
    assert core.runner.graphs is None
    found = serve(core, prompts)
    assert [len(one) for one in found] == LENGTHS
    assert [one[0] for one in found] == [one[0] for one in expected]  # what the whole prompt in 8 bits says


def test_bf16_graphs_are_what_they_captured(checkpoint, prompts):
    """Batches that fill their bucket, lengths that are split alike (where a share has 256 keys): the same kernels, so
    the same bits."""
    model = load_model(checkpoint, device="cuda", dtype=torch.bfloat16)
    options = {"num_blocks": 200, "max_model_len": 256, "max_num_seqs": 4}
    same = [prompts[3]] * 4
    params = [SamplingParams(temperature=1.0, seed=i, max_tokens=60, ignore_eos=True) for i in range(4)]
    with chosen("splits", {"per_multiprocessor": 4, "least": 256}):
        plain = serve(assemble(model, **options, cuda_graphs=False), same, params)
        core = assemble(model, **options)
        assert serve(core, same, params) == plain and len(core.runner.graphs.graphs) == 1
    assert len({tuple(one) for one in plain}) == 4


def test_launching_waits_for_nothing(on_gpu, prompts):
    """torch raises where an operator would wait for the device."""
    core = assemble(on_gpu, num_blocks=200)
    serve(core, prompts)  # compiles and records
    launch = core.runner.launch

    def strictly(plan, record):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return launch(plan, record)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    core.runner.launch = strictly
    requests = token_requests(prompts, LENGTHS, name="strict")
    run_to_end(core, requests)
    assert [len(request.output_token_ids) for request in requests] == LENGTHS  # nothing failed


def test_the_defaults_of_llm():
    llm = LLM(baseline(), device="cuda", num_blocks=200, enable_prefix_caching=False, progress=False)
    assert llm.model.norm.weight.dtype == torch.bfloat16 and type(llm.core) is OverlappedEngine
    assert llm.core.runner.graphs is not None
    params = SamplingParams(temperature=0, max_tokens=20)
    outputs = llm.generate(TEXTS[:3], params)
    assert all(1 <= len(output.outputs[0].token_ids) <= 20 for output in outputs)
    texts = [""] * 3
    for delta in llm.stream(TEXTS[:3], params):
        texts[delta.index] += delta.text
    assert texts == [output.outputs[0].text for output in outputs]


def test_random_weights_of_a_real_shape():
    core = random_engine("qwen3-0.6b", max_num_seqs=8, max_model_len=512)
    requests = token_requests([[1, 2, 3], [4] * 100, [5] * 33], [9, 20, 1])
    run_to_end(core, requests)
    assert [len(request.output_token_ids) for request in requests] == [9, 20, 1]
