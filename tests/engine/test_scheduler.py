"""The scheduler step by step, on cases small enough to work out by hand."""

from __future__ import annotations

import pytest

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import BlockMove, Move, StepOutput
from labcore.engine.check import check_empty, check_plan, check_state
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.scheduler import Scheduler

ABORTED = RequestStatus.FINISHED_ABORTED


def engine(num_blocks=40, block_size=4, caching=True, host=0, **config):
    config = {"max_num_batched_tokens": 16, "max_num_seqs": 8, "max_model_len": 64, "watermark": 0.0} | config
    return Scheduler(
        SchedulerConfig(**config),
        CacheConfig(num_blocks, block_size, enable_prefix_caching=caching, num_host_blocks=host),
    )


def request(name, prompt, max_tokens=8, **named):
    params = {key: named.pop(key) for key in ("stop_token_ids", "ignore_eos", "min_tokens") if key in named}
    prompt = list(range(prompt)) if isinstance(prompt, int) else prompt
    return Request(name, prompt, SamplingParams(max_tokens=max_tokens, **params), **named)


def add(scheduler, *requests):
    for one in requests:
        scheduler.add_request(one)
    return requests


def step(scheduler, token=50, drafts=None, tokens=None):
    """One step in which every row that wants a token gets `token`, or what `tokens` says; the plan's rows in short."""
    plan = scheduler.schedule()
    check_state(scheduler)
    check_plan(scheduler, plan)
    sampled = {row.request.request_id: [token] for row in plan.scheduled if row.wants_token} | (tokens or {})
    drafts = {name: Draft(tokens) for name, tokens in (drafts or {}).items()}
    scheduler.update_from_output(plan, StepOutput(sampled, drafts=drafts))
    check_state(scheduler)
    return {row.request.request_id: (row.start, row.num_tokens) for row in plan.scheduled}


def test_a_step_mixes_answers_with_a_chunk_of_a_prompt():
    scheduler = engine()
    add(scheduler, request("a", 5), request("b", [*range(30, 50)]))
    assert step(scheduler) == {"a": (0, 5), "b": (0, 11)}
    assert step(scheduler) == {"a": (5, 1), "b": (11, 9)}
    assert step(scheduler) == {"a": (6, 1), "b": (20, 1)}


def test_a_limit_a_request_leaves_budget_to_the_next():
    scheduler = engine(long_prefill_token_threshold=6)
    add(scheduler, request("a", [1] * 10), request("b", [2] * 10), request("c", [3] * 10))
    assert step(scheduler) == {"a": (0, 6), "b": (0, 6), "c": (0, 4)}
    assert step(scheduler) == {"a": (6, 4), "b": (6, 4), "c": (4, 6)}


def test_without_chunks_a_prompt_waits_for_a_step_that_holds_all_of_it():
    scheduler = engine(enable_chunked_prefill=False, max_num_batched_tokens=64)
    add(scheduler, request("a", [1] * 40), request("b", [2] * 30), request("c", [3] * 3))
    assert step(scheduler) == {"a": (0, 40)}  # c fits and stays behind b
    assert step(scheduler) == {"a": (40, 1), "b": (0, 30), "c": (0, 3)}


def test_equal_prompts_in_one_step_are_computed_once():
    scheduler = engine()
    a, b = add(scheduler, request("a", 9), request("b", 9))
    assert step(scheduler) == {"a": (0, 9), "b": (8, 1)}
    assert scheduler.manager.block_tables == {"a": [1, 2, 3], "b": [1, 2, 4]}
    assert (a.num_cached_tokens, b.num_cached_tokens) == (0, 8)


def test_the_youngest_is_preempted_and_comes_back_before_what_never_ran():
    scheduler = engine(num_blocks=6, caching=False, max_num_batched_tokens=15)
    _, b, _ = add(scheduler, request("a", [1] * 8), request("b", [2] * 7), request("c", [3] * 4))
    assert step(scheduler) == {"a": (0, 8), "b": (0, 7)}
    assert step(scheduler) == {"a": (8, 1), "b": (7, 1)}  # a takes the fifth block, the last
    assert step(scheduler) == {"a": (9, 1)}  # b needs one
    assert b.status == RequestStatus.PREEMPTED and b.num_preemptions == 1 and b.num_computed_tokens == 0
    assert [r.request_id for r in scheduler.waiting] == ["b", "c"]
    scheduler.finish_requests(["a"], ABORTED)
    assert step(scheduler) == {"b": (0, 9), "c": (0, 4)}  # the prompt and two tokens, computed again
    assert b.num_output_tokens == 3


def test_a_preempted_request_computes_only_what_was_overwritten():
    scheduler = engine(num_blocks=5)
    add(scheduler, request("a", [1] * 8), request("b", [2] * 7))
    step(scheduler)
    assert step(scheduler) == {"a": (8, 1)}  # in a block of b that was not full
    scheduler.finish_requests(["a"], ABORTED)
    assert step(scheduler) == {"b": (4, 4)}


def test_with_room_on_the_host_nothing_is_computed_twice():
    scheduler = engine(num_blocks=5, caching=False, host=4)
    _, b = add(scheduler, request("a", [1] * 8), request("b", [2] * 7))
    step(scheduler)
    plan = scheduler.schedule()
    assert plan.preempted == ["b"]
    assert plan.moves == [BlockMove(Move.SWAP_OUT, 3, 0), BlockMove(Move.SWAP_OUT, 4, 1)]
    assert plan.scheduled[0].block_ids[-1] in (3, 4)  # written in this step, after the moves
    scheduler.update_from_output(plan, StepOutput({"a": [1]}))
    scheduler.finish_requests(["a"], ABORTED)
    plan = scheduler.schedule()
    (row,) = plan.scheduled
    assert (row.request, row.start, row.num_tokens, row.first_new_block) == (b, 7, 1, 0)
    assert plan.moves == [BlockMove(Move.SWAP_IN, host, row.block_ids[host]) for host in (0, 1)]
    assert sorted(scheduler.host.free_blocks) == [0, 1, 2, 3] and not scheduler.host.saved


def test_blocks_still_cached_are_not_brought_back_from_the_host():
    scheduler = engine(num_blocks=6, host=9)
    add(scheduler, request("a", [1] * 9), request("b", [2] * 7))
    for _ in range(5):
        step(scheduler)
    assert scheduler.host.num_tokens("b") == 8
    scheduler.finish_requests(["a"], ABORTED)
    plan = scheduler.schedule()
    (row,) = plan.scheduled  # the first block of b never left the device; the second had been given to a
    assert (row.start, plan.moves) == (8, [BlockMove(Move.SWAP_IN, 1, row.block_ids[1])])


def test_a_full_host_pool_means_computing_again_and_is_counted():
    scheduler = engine(num_blocks=5, caching=False, host=1)
    _, b = add(scheduler, request("a", [1] * 8), request("b", [2] * 7))
    step(scheduler)
    step(scheduler)
    assert scheduler.host.refused == 1 and not scheduler.host.saved and b.status == RequestStatus.PREEMPTED
    scheduler.finish_requests(["a"], ABORTED)
    assert step(scheduler) == {"b": (0, 8)}


def test_a_fork_waits_for_the_prompt_and_shares_it_to_the_token():
    scheduler = engine(caching=False, max_num_batched_tokens=8)
    parent = request("p", 10)
    children = [request(name, 10, fork_of=parent) for name in ("c1", "c2")]
    add(scheduler, parent, *children)
    assert step(scheduler) == {"p": (0, 8)} and not scheduler.waiting
    assert step(scheduler) == {"p": (8, 2)}
    plan = scheduler.schedule()
    assert {row.request.request_id: (row.start, row.num_tokens) for row in plan.scheduled} == {
        "p": (10, 1),
        "c1": (9, 1),
        "c2": (9, 1),
    }
    check_plan(scheduler, plan)
    assert [row.block_ids[:2] for row in plan.scheduled] == [[1, 2]] * 3
    assert len({row.block_ids[2] for row in plan.scheduled}) == 3
    assert [move[:2] for move in plan.moves] == [(Move.COPY, 3)] * 2
    assert [child.num_cached_tokens for child in children] == [9, 9]


def test_a_fork_whose_parent_is_gone_is_served_all_the_same():
    scheduler = engine(caching=False)
    parent = request("p", 6, max_tokens=1)
    child = request("c", 6, fork_of=parent)
    add(scheduler, parent, child)
    assert step(scheduler) == {"p": (0, 6)}
    assert parent.finish_reason == "length" and scheduler.waiting == [child]
    assert step(scheduler) == {"c": (0, 6)}


def test_drafts_are_verified_in_the_same_step_and_rejected_ones_taken_back():
    scheduler = engine()
    (one,) = add(scheduler, request("a", 6))
    step(scheduler, drafts={"a": [1, 2, 3]})
    assert one.spec_token_ids == [1, 2, 3]
    plan = scheduler.schedule()
    (row,) = plan.scheduled
    assert (row.start, row.num_tokens, row.num_draft_tokens) == (6, 4, 3)
    assert row.token_ids == [50, 1, 2, 3] and row.slots(4) == [10, 11, 12, 13]
    ((advanced, tokens),) = scheduler.update_from_output(plan, StepOutput({"a": [1, 9]}))
    assert (advanced, tokens) == (one, [1, 9]) and one.output_token_ids == [50, 1, 9]
    assert one.num_computed_tokens == one.num_tokens - 1 == 8 and one.spec_token_ids == []


def test_drafts_never_exceed_what_may_still_be_said_or_the_budget():
    scheduler = engine(max_num_batched_tokens=6, max_num_seqs=2)
    a, b = add(scheduler, request("a", 3, max_tokens=4), request("b", [7, 8], max_tokens=9))
    step(scheduler, drafts={"a": [1] * 9, "b": [2] * 9})
    assert a.spec_token_ids == [1, 1] and len(b.spec_token_ids) == 7
    assert step(scheduler, tokens={"a": [1, 1, 5], "b": [3]}) == {"a": (3, 3), "b": (2, 3)}
    assert a.finish_reason == "length" and a.output_token_ids == [50, 1, 1, 5]


def test_a_tree_has_slots_for_its_branches_to_the_end_and_a_cut_tree_is_a_tree():
    scheduler = engine(num_branch_tokens=3, max_num_batched_tokens=5, max_num_seqs=1)
    (one,) = add(scheduler, request("a", 3, max_tokens=3))
    plan = scheduler.schedule()
    tree = Draft([1, 2, 3, 4, 5, 6], [-1, -1, 0, 1, 3, 0])
    scheduler.update_from_output(plan, StepOutput({"a": [50]}, drafts={"a": tree}))
    assert one.spec_token_ids == [1, 2, 3, 4] and one.spec_parents == [-1, -1, 0, 1]  # 1 that may still be said, and 3
    (row,) = scheduler.schedule().scheduled
    assert row.parents == [-1, -1, 0, 1] and row.num_tokens == 5


def test_a_tree_without_branches_is_a_chain():
    scheduler = engine()
    (one,) = add(scheduler, request("a", 3, max_tokens=9))
    plan = scheduler.schedule()
    scheduler.update_from_output(plan, StepOutput({"a": [50]}, drafts={"a": Draft([1, 2], [-1, 0])}))
    (row,) = scheduler.schedule().scheduled
    assert one.spec_parents is None and row.parents is None and row.num_draft_tokens == 2


def test_a_request_with_branches_that_could_not_fit_is_refused():
    with pytest.raises(InputError, match="the cache has"):
        add(engine(num_branch_tokens=400), request("a", 3, max_tokens=9))


@pytest.mark.parametrize(
    ("named", "tokens", "kept", "reason"),
    [
        ({"eos_token_ids": [9]}, [4, 9, 4, 4], [4, 9], "stop"),
        ({"eos_token_ids": [9], "ignore_eos": True}, [4, 9, 4, 4], [4, 9, 4], "length"),
        ({"stop_token_ids": [4]}, [4], [4], "stop"),
        ({"eos_token_ids": [9], "min_tokens": 3}, [9, 9, 9], [9, 9, 9], "stop"),
        ({"stop_token_ids": [8]}, [1, 2, 8], [1, 2, 8], "stop"),
    ],
)
def test_how_an_answer_ends(named, tokens, kept, reason):
    scheduler = engine()
    (one,) = add(scheduler, request("a", 3, max_tokens=3, **named))
    for token in tokens:
        assert one.finished or step(scheduler, token)
    assert one.output_token_ids == kept and one.finish_reason == reason
    plan = scheduler.schedule()
    assert plan.finished == ["a"] and not plan.scheduled and not scheduler.schedule().finished
    check_empty(scheduler)


def test_tokens_behind_the_end_are_dropped():
    scheduler = engine()
    (one,) = add(scheduler, request("a", 3, eos_token_ids=[9]))
    step(scheduler, drafts={"a": [1, 9, 2]})
    plan = scheduler.schedule()
    assert scheduler.update_from_output(plan, StepOutput({"a": [1, 9, 2, 3]})) == [(one, [1, 9])]


def test_the_longest_request_ends_at_max_model_len():
    scheduler = engine(max_model_len=12)
    (one,) = add(scheduler, request("a", 10, max_tokens=50))
    while not one.finished:
        step(scheduler)
    assert one.num_tokens == 12 and one.finish_reason == "length"


def test_cancelling_at_any_point_releases_everything():
    scheduler = engine(num_blocks=6, host=8, max_num_batched_tokens=15, caching=False)
    add(scheduler, request("a", [1] * 8), request("b", [2] * 7))
    for _ in range(3):
        step(scheduler)
    parent = request("p", [3] * 9)
    add(scheduler, parent, request("held", [3] * 9, fork_of=parent), request("held too", [3] * 9, fork_of=parent))
    assert [r.request_id for r in scheduler.running] == ["a"] and scheduler.host.num_tokens("b")
    scheduler.finish_requests(["held", "nobody", "held"], ABORTED)
    check_state(scheduler)
    names = list(scheduler.requests)
    plan = scheduler.schedule()
    scheduler.finish_requests(names, ABORTED)  # running, swapped, waiting and held, while the plan is under way
    assert scheduler.update_from_output(plan, StepOutput({name: [1] for name in names})) == []
    assert parent.finish_reason == "abort"
    assert scheduler.schedule().finished == names == ["a", "b", "p", "held too"]
    check_empty(scheduler)


def test_admission_leaves_the_watermark_free_unless_nothing_runs():
    scheduler = engine(num_blocks=10, watermark=0.3, caching=False)
    add(scheduler, request("a", [1] * 12), request("b", [2] * 12), request("c", [3] * 12))
    step(scheduler)
    assert [r.request_id for r in scheduler.running] == ["a", "b"]  # 3 + 1 of 9; more would leave fewer than 3
    scheduler = engine(num_blocks=4, watermark=0.9, caching=False)
    add(scheduler, request("a", [1] * 10, max_tokens=2))
    assert step(scheduler) == {"a": (0, 10)}


def test_requests_are_numbered_and_followed_by_status():
    scheduler = engine()
    (one,) = add(scheduler, request("a", 3))
    assert one.finish_reason is None and not one.finished and "WAITING, 0 of 3" in repr(one)
    with pytest.raises(RuntimeError, match="'a' cannot go from WAITING to PREEMPTED"):
        one.move_to(RequestStatus.PREEMPTED)
    scheduler.finish_requests(["a"], ABORTED)
    with pytest.raises(RuntimeError, match="from FINISHED_ABORTED to FINISHED_STOPPED"):
        one.move_to(RequestStatus.FINISHED_STOPPED)
    assert not scheduler.has_unfinished_requests()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: request("x", 64), "request 'x' has a prompt of 64 tokens, and max_model_len=64 leaves no room"),
        (lambda: request("a", 3), "request 'a' is being served already; give every request an id of its own"),
        (
            lambda: request("x", [1] * 20, max_tokens=30),
            "request 'x' may grow to 50 tokens, 13 blocks of 4, and the cache has 9; shorten the prompt, lower "
            "max_tokens or raise num_blocks",
        ),
    ],
)
def test_what_can_never_be_served_is_refused_at_once(make, message):
    scheduler = engine(num_blocks=10)
    add(scheduler, request("a", 3))
    with pytest.raises(InputError, match=message):
        scheduler.add_request(make())
    assert list(scheduler.requests) == ["a"] and len(scheduler.waiting) == 1


def test_an_empty_prompt_is_refused():
    with pytest.raises(InputError, match="request 'x': the prompt is empty; give at least one token"):
        request("x", [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"policy": "lifo"}, "policy='lifo': must be one of fcfs, priority"),
        ({"max_num_batched_tokens": 4}, "max_num_batched_tokens=4: must be at least max_num_seqs=8"),
        ({"enable_chunked_prefill": False}, "max_num_batched_tokens=16: must be at least max_model_len=64 without"),
        ({"max_num_seqs": 0}, "max_num_seqs=0: must be 1 or more"),
        ({"max_model_len": 1}, "max_model_len=1: must be 2 or more"),
        ({"watermark": 1.0}, "watermark=1.0: must be 0 or more and below 1"),
        ({"num_lookahead_tokens": -1}, "num_lookahead_tokens=-1: must be 0 or more"),
        ({"long_prefill_token_threshold": -2}, "long_prefill_token_threshold=-2: must be 0 .no limit. or more"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 64, "long_prefill_token_threshold": 4},
            "long_prefill_token_threshold=4: must be 0 without chunking",
        ),
        ({"num_blocks": 1}, "num_blocks=1: must be 2 or more; one of them is the null block"),
        ({"block_size": 0}, "block_size=0: must be 1 token or more"),
        ({"host": -1}, "num_host_blocks=-1: must be 0 .no swapping. or more"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        engine(**config)


def test_a_plan_may_be_made_before_the_last_is_answered():
    scheduler = engine(max_num_batched_tokens=8)
    (a,) = add(scheduler, request("a", 6))
    first = scheduler.schedule()
    (b,) = add(scheduler, request("b", [7] * 10))
    second = scheduler.schedule()  # a has nothing to compute until its token is known
    assert [row.request for row in second.scheduled] == [b]
    scheduler.update_from_output(first, StepOutput({"a": [1]}))
    third = scheduler.schedule()
    assert {row.request.request_id: (row.start, row.num_tokens) for row in third.scheduled} == {
        "a": (6, 1),
        "b": (8, 2),
    }
    assert scheduler.update_from_output(second, StepOutput()) == []
    assert len(scheduler.update_from_output(third, StepOutput({"a": [2], "b": [3]}))) == 2
    assert a.output_token_ids == [1, 2]


def test_the_answer_to_a_plan_from_before_a_preemption_is_passed_over():
    scheduler = engine(num_blocks=5, caching=False)
    _, b = add(scheduler, request("a", [1] * 8), request("b", [2] * 7))
    step(scheduler)
    late = scheduler.schedule()
    assert late.preempted == ["b"]
    scheduler.finish_requests("a", ABORTED)
    scheduler.schedule()  # b is back
    late.scheduled[0].request = b  # as if b had been in it
    assert scheduler.update_from_output(late, StepOutput({"b": [5]})) == [] and b.num_output_tokens == 1
