"""What goes wrong from outside: the one request concerned is told why, the others go on, and no block is lost."""

from __future__ import annotations

from random import Random

import pytest

from labcore.core.errors import InputError
from labcore.core.request import Request, RequestStatus
from labcore.core.sampling_params import SamplingParams
from labcore.engine.check import check_empty, check_state
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.scheduler import Scheduler
from labcore.engine.shadow import ShadowRunner


class Served:
    """A small engine and its shadow."""

    def __init__(self, num_blocks=14, host=0, fails=None, **config):
        config = {"max_num_batched_tokens": 24, "max_num_seqs": 8, "max_model_len": 40, "watermark": 0.0} | config
        self.scheduler = Scheduler(SchedulerConfig(**config), CacheConfig(num_blocks, 4, num_host_blocks=host))
        self.runner = ShadowRunner(self.scheduler.manager, host, fails=fails)

    def add(self, count, prompt=9, answer=12):
        rng = Random(count)
        requests = [
            Request(f"r{n}", [rng.randrange(3) for _ in range(prompt)], SamplingParams(max_tokens=answer))
            for n in range(count)
        ]
        for request in requests:
            self.scheduler.add_request(request)
        return requests

    def step(self):
        plan = self.scheduler.schedule()
        self.scheduler.update_from_output(plan, self.runner.execute(plan))
        check_state(self.scheduler)
        return plan

    def run(self, most=1000):
        for _ in range(most):
            if not self.scheduler.has_unfinished_requests():
                self.step()
                return check_empty(self.scheduler)
            self.step()
        raise AssertionError("no end")

    def right(self, requests):
        return all(tuple(r.output_token_ids) == self.runner.answer(r) for r in requests)


def test_out_of_blocks_nobody_fails():
    served = Served(num_blocks=8)
    requests = served.add(6)
    served.run()
    assert served.right(requests) and sum(request.num_preemptions for request in requests) > 0


def test_a_request_larger_than_the_pool_is_named_and_the_others_go_on():
    served = Served(num_blocks=8)
    requests = served.add(3)
    with pytest.raises(InputError, match="request 'giant' may grow to 33 tokens, 8 blocks of 4, and the cache has 7"):
        served.scheduler.add_request(Request("giant", [1] * 9, SamplingParams(max_tokens=24)))
    served.run()
    assert served.right(requests)


@pytest.mark.parametrize("host", [0, 12])
def test_a_storm_of_cancellations_leaves_the_pool_whole(host):
    for seed in range(30):
        rng, served = Random(seed), Served(num_blocks=9, host=host)
        requests = served.add(12)
        for _ in range(rng.randint(1, 15)):
            served.step()
        gone = [request.request_id for request in rng.sample(requests, 10)]
        served.scheduler.finish_requests(gone, RequestStatus.FINISHED_ABORTED)
        check_state(served.scheduler)
        served.run()
        left = [request for request in requests if request.request_id not in gone]
        assert served.right(left) and all(request.finish_reason in ("stop", "length") for request in left)


def test_a_sampler_that_raises_ends_its_own_request():
    served = Served(fails=lambda request: request.request_id == "r1" and request.num_output_tokens == 4)
    requests = served.add(4)
    served.run()
    assert requests[1].finish_reason == "error" and requests[1].error == "the sampler raised"
    assert requests[1].num_output_tokens == 4
    assert served.right([requests[0], *requests[2:]]) and requests[0].error is None


def test_nobody_hits_what_a_failed_request_stored():
    """Logits that are not finite come from keys and values that are not: a later hit would fail too."""
    served = Served(num_blocks=30, fails=lambda request: request.num_output_tokens == 4)
    (failed,) = served.add(1)
    served.run()
    assert failed.finish_reason == "error" and failed.num_tokens == 13
    again = Request("again", failed.all_token_ids, SamplingParams(max_tokens=3))
    assert served.scheduler.manager.get_computed_blocks(again) == ([], 0)


def test_an_exhausted_host_pool_falls_back_to_computing_again():
    served = Served(num_blocks=8, host=2)
    requests = served.add(6)
    served.run()
    assert served.scheduler.host.refused > 0 and served.right(requests)


def test_a_forward_pass_that_raises_ends_what_it_ran_and_nothing_that_it_promised_is_believed():
    served = Served(num_blocks=30, max_num_batched_tokens=20)
    requests = served.add(4)
    plan = served.scheduler.schedule()
    failed = [row.request for row in plan.scheduled]
    assert len(failed) < 4 and served.scheduler.manager.block_pool.cached
    served.scheduler.fail_step(plan, "CUDA error: an illegal memory access was encountered")
    assert not served.scheduler.manager.block_pool.cached
    assert all(request.error.startswith("CUDA error") and request.finish_reason == "error" for request in failed)
    again = Request("again", failed[0].all_token_ids, SamplingParams(max_tokens=3))
    served.scheduler.add_request(again)
    served.run()
    assert served.right([*requests[len(failed) :], again])


def test_after_a_failed_step_what_was_being_swapped_out_is_computed_again():
    served = Served(num_blocks=8, host=20)
    requests = served.add(4)
    plan = served.step()
    while not plan.preempted:
        plan = served.scheduler.schedule()
        if not plan.preempted:
            served.scheduler.update_from_output(plan, served.runner.execute(plan))
    served.scheduler.fail_step(plan, "out of memory")
    assert not served.scheduler.host.saved
    served.run()
    left = [request for request in requests if request.error is None]
    assert left and served.right(left)


def test_a_request_can_be_submitted_again_once_it_is_gone():
    served = Served()
    (first,) = served.add(1)
    served.run()
    (second,) = served.add(1)
    served.run()
    assert first.output_token_ids == second.output_token_ids and second.num_cached_tokens == 8
