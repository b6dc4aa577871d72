"""A step launched before the one before it was read: the same answers, and what ends early costs one row."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from functools import partial  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine import device_sampling  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.check import check_empty  # noqa: E402
from labcore.engine.device_runner import DeviceRunner  # noqa: E402
from labcore.engine.llm import LLM  # noqa: E402
from labcore.engine.overlap import OverlappedEngine  # noqa: E402
from tests.model.tiny import END, Scripted, tiny_model, tiny_tokenizer  # noqa: E402

MODEL = tiny_model(head_dim=16)
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [7], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9], [30] * 11]
LENGTHS = [5, 8, 1, 9, 12, 2]
SMALL = {"num_blocks": 64, "block_size": 4}

CONFIGURATIONS = {
    "defaults": {},
    "one at a time": {"max_num_seqs": 1},
    "chunks": {"max_num_batched_tokens": 6, "max_num_seqs": 6},
    "no prefix cache": {"enable_prefix_caching": False},
    "prompts first": {"policy": "prefill_first"},
    "a window": {"sliding_window": 5},
    "preempted": {"num_blocks": 10, "watermark": 0.0},
    "swapped": {"num_blocks": 10, "watermark": 0.0, "num_host_blocks": 20},
}


@pytest.fixture(autouse=True)
def _sampling_in_torch(monkeypatch):
    """Interpreting the kernel in every step would take a minute; test_cuda_graphs does it once."""
    monkeypatch.setattr(device_sampling, "sample", partial(device_sampling.sample, backend="torch"))


def greedy(length, **options):
    return SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, **options)


def serve(core, params, prompts=PROMPTS):
    """Token ids and finish reasons of all prompts, everything there from the beginning."""
    requests = [Request(str(i), prompt, one) for i, (prompt, one) in enumerate(zip(prompts, params, strict=True))]
    reported = {request.request_id: [] for request in requests}
    for request in requests:
        core.add_request(request)
    for _ in range(2000):
        if not core.has_unfinished_requests():
            break
        for one in core.step():
            reported[one.request_id] += [one.token_id] if one.token_id is not None else []
    assert [reported[request.request_id] for request in requests] == [r.output_token_ids for r in requests]
    assert len(core.runner.batch.rows) <= len(requests)
    check_empty(core.scheduler)
    return [(request.output_token_ids, request.finish_reason) for request in requests]


def overlapped(model=MODEL, tokenizer=None, **options):
    core = assemble(model, tokenizer, **(SMALL | {"async_scheduling": True} | options))
    assert type(core) is OverlappedEngine and type(core.runner) is DeviceRunner
    return core


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_answers_are_the_same(name):
    options = CONFIGURATIONS[name]
    params = [greedy(length) for length in LENGTHS]
    core = overlapped(**options)
    assert serve(core, params) == serve(assemble(MODEL, **(SMALL | options)), params)
    assert (core.stats.preemptions > 0) == (name in ("preempted", "swapped"))
    assert core.stats.new_tokens == sum(LENGTHS)


def test_a_step_really_is_launched_before_the_one_before_it_was_read():
    core, events = overlapped(), []
    launch, collect = core.runner.launch, core.runner.collect
    core.runner.launch = lambda plan, record: events.append(("launch", plan.step)) or launch(plan, record)
    core.runner.collect = lambda step: events.append(("collect", step.plan.step)) or collect(step)
    serve(core, [greedy(4)], [[1, 2, 3]])
    kinds = [event for event in events if event[1] <= 4]
    assert kinds == [("launch", 1), ("launch", 2), ("collect", 1), ("launch", 3), ("collect", 2), ("launch", 4),
                     ("collect", 3), ("collect", 4)]  # fmt: skip


def test_random_answers_depend_on_seed_and_position_alone():
    params = [
        SamplingParams(temperature=0.9, seed=i, max_tokens=length, ignore_eos=True, top_k=[0, 20][i % 2], top_p=0.9)
        for i, length in enumerate(LENGTHS)
    ]
    together = serve(overlapped(), params)
    assert serve(overlapped(max_num_seqs=1), params) == together
    assert serve(overlapped(num_blocks=10, watermark=0.0), params) == together
    again = [SamplingParams(temperature=0.9, seed=99, max_tokens=12, ignore_eos=True)] * 2
    found = serve(overlapped(), again, [PROMPTS[0]] * 2)
    assert found[0] == found[1] and found[0] != together[0]


@pytest.mark.parametrize("kind", [{"repetition_penalty": 1.5}, {"logprobs": 2}, {"min_p": 0.1, "temperature": 0.7}])
def test_requests_that_need_the_host_are_served_in_the_plain_order(kind):
    """Beside others, and these overlap again when they are alone."""
    params = [greedy(length) for length in LENGTHS]
    params[0] = SamplingParams(**({"temperature": 0, "seed": 5, "max_tokens": 6, "ignore_eos": True} | kind))
    core, ahead = overlapped(), []
    launch = core.runner.launch
    core.runner.launch = lambda plan, record=None: ahead.append(core.need_host.copy()) or launch(plan, record)
    expected = serve(assemble(MODEL, **SMALL), params)
    assert serve(core, params) == expected
    assert ahead[0] == {"0"} and ahead[-1] == set()


def test_a_stop_token_costs_one_row_and_the_token_behind_it_is_nobodys():
    params = [SamplingParams(temperature=0, max_tokens=40, stop_token_ids=[22]), greedy(12)]
    scripted = Scripted([20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32])
    plain = assemble(scripted, **SMALL)
    core = overlapped(scripted)
    prompts = [[1, 2], [3, 4]]
    expected = serve(plain, params, prompts)
    assert expected[0] == ([20, 21, 22], "stop")
    assert serve(core, params, prompts) == expected
    assert core.stats.total("tokens") == plain.stats.total("tokens") + 1


def test_nothing_is_launched_in_vain_for_an_answer_that_ends_by_length():
    params = [greedy(length) for length in LENGTHS]
    plain, core = assemble(MODEL, **SMALL), overlapped()
    serve(plain, params)
    serve(core, params)
    assert core.stats.total("tokens") == plain.stats.total("tokens")


def test_stop_strings_and_texts():
    tokenizer = tiny_tokenizer()
    prompts = ["ab", "cdefg"]
    params = SamplingParams(temperature=0, max_tokens=20)
    text = LLM.around(assemble(MODEL, tokenizer, **SMALL)).generate(prompts, params)[0].outputs[0].text
    params = SamplingParams(temperature=0, max_tokens=20, stop=text[4:6])
    plain, ours = LLM.around(assemble(MODEL, tokenizer, **SMALL)), LLM.around(overlapped(tokenizer=tokenizer))
    expected = plain.generate(prompts, params)
    assert expected[0].outputs[0].finish_reason == "stop"
    assert ours.generate(prompts, params) == expected
    assert [delta.text for delta in ours.stream(prompts, params)] == [d.text for d in plain.stream(prompts, params)]


def test_parallel_samples_and_prefix_hits():
    params = SamplingParams(temperature=0, max_tokens=9, n=3)
    plain = LLM.around(assemble(MODEL, tiny_tokenizer(), **SMALL))
    ours = LLM.around(overlapped(tokenizer=tiny_tokenizer()))
    prompts = [PROMPTS[3], PROMPTS[4]]
    for _ in range(2):  # the second time from the prefix cache
        expected = plain.generate(prompts, params)
        assert ours.generate(prompts, params) == expected
    assert expected[0].num_cached_tokens > 0


def test_what_was_cached_ahead_is_what_its_hash_says():
    """A later request hits blocks that were filled while their tokens were pending."""
    core = overlapped()
    first = serve(core, [greedy(20)], [PROMPTS[0]])[0][0]
    longer = [Request("b", PROMPTS[0] + first[:15], greedy(5))]
    core.add_request(longer[0])
    while core.has_unfinished_requests():
        core.step()
    assert longer[0].num_cached_tokens >= 16 and longer[0].output_token_ids == first[15:]


def damaged(rows_of):
    model = tiny_model(head_dim=16)
    forward = model.forward

    def broken(token_ids, positions, attend, wanted=None):
        logits = forward(token_ids, positions, attend, wanted)
        logits[rows_of(len(logits))] = torch.nan
        return logits

    model.forward = broken
    return model


def test_a_row_without_finite_logits_fails_alone():
    calls = []

    def rows_of(count):
        calls.append(count)
        return [0] if len(calls) == 4 else []

    core = overlapped(damaged(rows_of))
    found = serve(core, [greedy(9)] * 2, PROMPTS[:2])
    expected = serve(assemble(MODEL, **SMALL), [greedy(9)] * 2, PROMPTS[:2])
    assert found[0][1] == "error" and found[0][0] == expected[0][0][:3] and found[1] == expected[1]


@pytest.mark.parametrize("where", ["launch", "collect"])
def test_a_step_that_raises_ends_its_requests_and_others_can_come(where):
    core = overlapped()
    right, count = getattr(core.runner, where), []

    def wrong(*args):
        count.append(1)
        if len(count) == 3:
            raise RuntimeError("out of memory")
        return right(*args)

    setattr(core.runner, where, wrong)
    found = serve(core, [greedy(9)] * 2, PROMPTS[:2])
    assert [reason for _, reason in found] == ["error", "error"]
    assert serve(core, [greedy(9)], PROMPTS[2:3])[0][1] == "length"


@pytest.mark.parametrize("options", [{}, {"sliding_window": 5}, {"num_blocks": 13, "watermark": 0.0}])
def test_nothing_that_a_lost_step_was_to_write_is_found_again(options):
    """By then the next step is planned: a window may have left those blocks behind, or a preemption given them up."""
    core = overlapped(max_num_batched_tokens=8, max_num_seqs=2, **options)
    prompts = [list(range(1, 33)), list(range(101, 113))]
    for name, prompt in zip("ab", prompts, strict=True):
        core.add_request(Request(name, prompt, greedy(12)))
    right, lost = core.runner.collect, 3

    def wrong(step):
        if step.plan.step == lost:
            raise RuntimeError("out of memory")
        return right(step)

    core.runner.collect = wrong
    before = None
    while core.has_unfinished_requests():
        if core.in_flight is not None and core.in_flight.plan.step == lost:
            before = {row.request.request_id: row.start // 4 for row in core.in_flight.plan.scheduled}
        core.step()
    assert before
    for name, prompt in zip("ab", prompts, strict=True):
        again = Request("again", prompt, greedy(1))
        hits = core.scheduler.manager.get_computed_blocks(again)[0]
        assert name not in before or len(hits) <= before[name], f"{name}: {hits}, {before}"


def ended(core, steps=200):
    while core.has_unfinished_requests() and (steps := steps - 1):
        core.step()
    assert steps
    check_empty(core.scheduler)


def test_an_id_that_failed_may_come_again_while_its_row_still_runs():
    calls = []

    def rows_of(count):
        calls.append(count)
        return [0] if len(calls) == 3 else []

    core = overlapped(damaged(rows_of))
    core.add_request(Request("a", PROMPTS[0], greedy(9)))
    core.add_request(Request("b", PROMPTS[1], greedy(9)))
    while not any(one.finish_reason == "error" for one in core.step()):
        pass
    again = core.add_request(Request("a", PROMPTS[0], greedy(4)))
    ended(core)
    assert again.finish_reason == "length"


def test_a_step_that_raises_does_not_end_another_request_of_the_same_id():
    core = overlapped(max_num_seqs=2)
    core.add_request(Request("a", PROMPTS[0], greedy(9)))
    core.add_request(Request("b", PROMPTS[1], greedy(9)))
    core.step(), core.step()
    core.abort(["a"])
    core.add_request(Request("c", PROMPTS[2], greedy(9)))  # takes the place in the step that is lost, too
    again = core.add_request(Request("a", PROMPTS[0], greedy(4)))
    right = core.runner.collect

    def wrong(step):
        core.runner.collect = right
        raise RuntimeError("out of memory")

    core.runner.collect = wrong
    ended(core)
    assert again.finish_reason == "length"


def test_an_interruption_while_launching_leaves_what_runs():
    core, calls = overlapped(), []
    last = Request("last token runs", PROMPTS[0], greedy(3))
    core.add_request(last)
    core.add_request(Request("b", PROMPTS[1], greedy(9)))
    right = core.runner.launch

    def wrong(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return right(*args)

    core.runner.launch = wrong
    with pytest.raises(KeyboardInterrupt):
        ended(core)
    ended(core)
    assert last.finish_reason == "length" and last.num_output_tokens == 3


def drawn(logits, params, position):
    """Tokens of rows with these parameters, as `newest` has them in the places 1, 3, 5, …"""
    rows = [device_sampling.new_draw(one) for one in params]
    places, newest = [2 * row + 1 for row in range(len(rows))], torch.full((2 * len(rows),), -7)
    tokens = device_sampling.draw(logits, rows, [position] * len(rows), places, newest)
    assert newest[places].equal(tokens) and (newest[::2] == -7).all()
    return tokens.tolist()


@pytest.mark.parametrize(
    ("extreme", "like"),
    [
        ({"top_k": 2**31}, {}),
        ({"top_k": 2**70}, {}),
        ({"temperature": 1e-50}, {"temperature": 0}),
        ({"temperature": 1e-40}, {"temperature": 0}),
        ({"top_p": 1e-50}, {"temperature": 0}),
        ({"temperature": 1e300}, {"temperature": 1e20}),
    ],
)
def test_parameters_that_float32_and_int32_do_not_hold(extreme, like):
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1))
    logits[:, ::2] = -torch.inf
    found = [drawn(logits, [SamplingParams(**{"seed": 2**63 - 1} | one)], 7) for one in (extreme, like)]
    assert found[0] == found[1] and found[0][0] >= 0


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}])
def test_a_row_that_is_cut_beside_one_that_is_not(cut):
    logits = torch.zeros(2, 5000)
    logits[:, 77] = 0.5
    both = [SamplingParams(seed=1, **one) for one in (cut, {})]
    found = drawn(logits, both, 3)
    assert found[0] == 77 != found[1]
    assert drawn(logits, both[::-1], 3) == found[::-1]


def test_an_id_that_comes_again_is_drawn_as_it_asks_now():
    core = overlapped()
    warm = SamplingParams(temperature=5.0, seed=5, max_tokens=6, ignore_eos=True)
    cold = serve(core, [greedy(6)], PROMPTS[:1])
    assert cold != serve(core, [warm], PROMPTS[:1]) == serve(overlapped(), [warm], PROMPTS[:1])


def test_abort_in_the_middle():
    core = overlapped()
    for i in range(3):
        core.add_request(Request(str(i), PROMPTS[i], greedy(9)))
    for _ in range(3):
        core.step()
    core.abort(["0", "2"])
    while core.has_unfinished_requests():
        assert all(one.request_id == "1" for one in core.step())
    check_empty(core.scheduler)


def test_what_an_abandoned_stream_left_running_is_not_counted_in_the_next_run():
    counted = []
    for core in overlapped(tokenizer=tiny_tokenizer()), assemble(MODEL, tiny_tokenizer(), **SMALL):
        llm = LLM.around(core)
        stream = llm.stream(["abcdefgh"], greedy(9))
        next(stream)
        stream.close()
        llm.generate(["xyz"], greedy(5))
        counted.append([(step.tokens, step.sampled) for step in llm.stats.steps])
    assert counted[0] == counted[1] == [(3, 1), (1, 1), (1, 1), (1, 1), (1, 1)]


def test_an_id_that_needed_the_host_may_come_again_without():
    core = overlapped()
    core.add_request(Request("a", [1, 2], greedy(5, logprobs=1)))
    core.abort(["a"])
    core.add_request(Request("a", [1, 2], greedy(5)))
    core.step()
    assert core.in_flight is not None, "the steps of this one overlap"


def test_an_end_token_ends():
    scripted = Scripted([20, 21, END, 23, 24, 25])
    llm = LLM.around(overlapped(scripted, tiny_tokenizer()))
    out = llm.generate([[1, 2]], SamplingParams(temperature=0, max_tokens=6))[0].outputs[0]
    assert (out.token_ids, out.finish_reason) == ((20, 21, END), "stop")


def test_speculation_cannot_overlap():
    with pytest.raises(InputError, match="async_scheduling=True with speculation"):
        assemble(MODEL, **SMALL, async_scheduling=True, speculative={"method": "ngram"})
