"""The same tokens, fp32, real model, however they are scheduled and stored (E1); and transformers' (tests/model).

`tests/model/test_exact.py` compares the same runs, made by the engine with its defaults, with transformers.
"""

import pytest
import torch

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble
from tests.model.reference_runs import PROMPTS

pytestmark = [pytest.mark.model, pytest.mark.slow]

NEW, LONGEST = 10, 48  # the slice that `make test` affords; `make soak` runs everything
SOME = [0, 10, 13, 24, 25]
SHARED = [24, 24, 10, 11, 10]  # equal prompts, and two that begin alike

CONFIGURATIONS = {
    "one at a time": {"max_num_seqs": 1},
    "three at a time, blocks of 7": {"max_num_seqs": 3, "block_size": 7},
    "chunks of 5, blocks of 1": {"long_prefill_token_threshold": 5, "block_size": 1},
    "a budget of 9, blocks of 128": {"max_num_batched_tokens": 9, "max_num_seqs": 8, "block_size": 128},
    "prompts first, no prefix cache": {"policy": "prefill_first", "enable_prefix_caching": False},
    "static batches": {"policy": "static", "max_num_seqs": 2},
    "preempted, recomputed": {"num_blocks": 42, "block_size": 4, "watermark": 0.0},
    "preempted, swapped": {"num_blocks": 42, "block_size": 4, "watermark": 0.0, "num_host_blocks": 80},
}


def answers(model, prompts, params=None, **options):
    """Output token ids of every prompt, and the engine."""
    core = assemble(model, **options)
    params = params or [SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)] * len(prompts)
    requests = [Request(str(i), prompt, one) for i, (prompt, one) in enumerate(zip(prompts, params, strict=True))]
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    return [request.output_token_ids for request in requests], core


def mixed_params() -> list[SamplingParams]:
    """Greedy and seeded requests side by side."""
    kinds = [{"temperature": 0}, {"temperature": 0.8, "top_p": 0.9}, {"temperature": 1.0, "repetition_penalty": 1.2}]
    return [SamplingParams(**kinds[i % 3], seed=i, max_tokens=NEW, ignore_eos=True) for i in range(len(SOME))]


@pytest.fixture(scope="module")
def some(prompts):
    return [prompts[i][:LONGEST] for i in SOME]


@pytest.fixture(scope="module")
def expected(model, some):
    return answers(model, some, mixed_params())[0]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_tokens_do_not_depend_on_how_they_are_served(model, some, expected, name):
    found, core = answers(model, some, mixed_params(), **CONFIGURATIONS[name])
    assert found == expected
    assert (core.stats.preemptions > 0) == name.startswith("preempted")
    assert (core.stats.total("swapped") > 0) == name.endswith("swapped")


def test_tokens_do_not_depend_on_the_order_of_arrival(model, some, expected):
    order = [3, 0, 4, 1, 2]
    params = mixed_params()
    found, _ = answers(model, [some[i] for i in order], [params[i] for i in order])
    assert [found[order.index(i)] for i in range(len(some))] == expected


def test_prefix_hits_change_nothing(model, prompts):
    shared = [prompts[i][:LONGEST] for i in SHARED]
    without, _ = answers(model, shared, enable_prefix_caching=False)
    found, core = answers(model, shared, block_size=4, max_num_seqs=2)
    assert found == without
    later = [Request(f"again {i}", prompt, SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True))
             for i, prompt in enumerate(shared)]  # fmt: skip
    for request in later:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    assert [request.output_token_ids for request in later] == without
    assert all(request.num_cached_tokens >= request.num_prompt_tokens // 4 * 4 - 4 > 0 for request in later)


def test_the_portable_backends_say_the_same(model, some, expected):
    from labcore.attention.csr import CSRAttention
    from labcore.attention.sdpa import SDPAAttention

    for backend in (CSRAttention, SDPAAttention):
        assert answers(model, some, mixed_params(), backend=backend)[0] == expected


def test_an_8_bit_cache_mostly_says_the_same(model, some):
    exact, _ = answers(model, some)
    found, _ = answers(model, some, kv_cache_dtype="int8")
    assert [one[0] for one in found] == [one[0] for one in exact]  # it saw the whole prompt in 8 bits


@pytest.mark.soak
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_prompt_and_64_tokens(model, prompts, name):
    """The whole matrix on everything that is compared with transformers."""
    params = [SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)] * len(PROMPTS)
    options = {**CONFIGURATIONS[name], **({"num_blocks": 400} if name.startswith("preempted") else {})}
    assert answers(model, prompts, params, **options)[0] == answers(model, prompts, params)[0]


def test_no_backend_is_only_as_good_as_its_tie_breaks(model, some, expected):
    """A damaged cache shows: one wrong block table entry changes tokens, so identity above is not for free."""
    core = assemble(model)
    request = Request("0", some[4], SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True))
    core.add_request(request)
    core.step()
    core.runner.storage.keys[:, core.scheduler.manager.block_tables["0"][0]] = torch.randn(16, 3, 64)
    while core.has_unfinished_requests():
        core.step()
    plain, _ = answers(model, [some[4]])
    assert request.output_token_ids != plain[0]
