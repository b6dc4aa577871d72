"""The paged-engine lab's references against the engine, its claims against random workloads, its cases one by one."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from labcore.core.errors import DataError, InputError
from labcore.engine.check import Violation
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.scheduler import Scheduler
from labcore.learn.labs import lab03_references as ref
from labcore.learn.labs.lab03_claims import CLAIMS, lost_to_static, serve
from labcore.learn.labs.lab03_museum import CASES, NAMES
from labcore.learn.labs.lab03_tools import (
    LabManager,
    LabScheduler,
    answer,
    new_request,
    new_scheduler,
    random_life,
    told,
    watched_life,
)
from labcore.learn.museum import exhibit


class References(LabScheduler):
    """The engine's scheduler and block tables with the references in the places left open."""

    step, make_room = ref.step, ref.make_room

    def __init__(self, limits, cache):
        super().__init__(limits, cache)
        self.manager = Growing(cache.num_blocks, cache.block_size)


class Growing(LabManager):
    grow = staticmethod(ref.grow)


def plans(kind, seed):
    return [
        [(r.request.request_id, r.start, r.num_tokens) for r in plan.scheduled] for _, plan in random_life(seed, kind)
    ]


@pytest.mark.parametrize("start", range(0, 80, 20))
def test_the_references_keep_every_invariant_and_see_no_wrong_read(start):
    preempted = copied = 0
    for seed in range(start, start + 20):
        shadow = {}
        for scheduler, plan in watched_life(seed, References):
            assert ref.shadow_step(shadow, plan, scheduler.manager.block_size) is None
            preempted, copied = preempted + len(plan.preempted), copied + len(plan.moves)
    assert preempted > 5 and copied > 0


def test_growing_tables_alone_plans_what_the_engine_plans():
    class Engine(Scheduler):
        def __init__(self, limits, cache):
            super().__init__(limits, cache)
            self.manager = Growing(cache.num_blocks, cache.block_size)
            grow = self.manager.allocate_slots
            self.manager.allocate_slots = lambda request, new, hits=(), computed=0, *rest: grow(
                request, new, hits, computed
            )

    assert all(plans(Engine, seed) == plans(Scheduler, seed) for seed in range(30))


def test_a_step_by_hand():
    scheduler = new_scheduler(References, budget=4, places=4, blocks=20, block_size=4)
    seen = []
    for number in range(1, 7):
        if number == 1:
            scheduler.add_request(new_request("a", 3, 9))
        if number == 2:
            scheduler.add_request(new_request("b", 9, 4))
        plan = scheduler.schedule()
        seen.append({row.request.request_id: row.num_tokens for row in plan.scheduled})
        answer(scheduler, plan)
    assert seen == [{"a": 3}, *[{"a": 1, "b": 3}] * 3, *[{"a": 1, "b": 1}] * 2]


def test_what_a_step_may_not_ask_for():
    scheduler = new_scheduler(References, budget=8, places=4, blocks=20, block_size=4)
    scheduler.add_request(one := new_request("a", 3))
    scheduler.step = lambda budget: [scheduler.allocate(one, 2), scheduler.allocate(one, 1)]
    with pytest.raises(InputError, match="a is in this step's plan already"):
        scheduler.schedule()
    scheduler.add_request(two := new_request("b", 3))
    scheduler.step = lambda budget: scheduler.allocate(two, 4)
    with pytest.raises(InputError, match="b has 3 tokens to compute, so it cannot compute 4"):
        scheduler.schedule()


def test_growth_by_hand():
    scheduler = new_scheduler(References, budget=8, places=4, blocks=4, block_size=4)
    pool, table = scheduler.manager.block_pool, []
    assert ref.grow(pool, table, 0, 6, 4) == [] and table == [1, 2]
    pool.touch([2])  # somebody else holds the half-full block
    assert ref.grow(pool, table, 6, 1, 4) == [(2, 3)] and table == [1, 3]
    assert [pool.blocks[number].ref_cnt for number in (1, 2, 3)] == [1, 1, 1]
    assert ref.grow(pool, table, 7, 6, 4) is None and table == [1, 3] and pool.num_free_blocks == 1


@pytest.mark.parametrize(
    ("id", "seeds"), [("no_copy_on_write", 60), ("stale_index", 10), ("duplicates_freed", 10), ("lost_chain", 10)]
)
def test_the_shadow_sees_wrong_reads_of_a_defective_engine(id, seeds):
    def finds(seed):
        shadow = {}
        try:
            return any(ref.shadow_step(shadow, plan, s.manager.block_size) for s, plan in random_life(seed))
        except Violation:
            return False

    assert not any(map(finds, range(seeds)))
    with exhibit(id).installed():
        assert any(map(finds, range(seeds)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_shows_its_defect_and_its_line_mends_it(case):
    trace = case.trace()
    assert trace.splitlines()[-1].startswith(case.exhibit.killed_by) and trace == case.trace()
    name, line, better = ref.mend(case)
    assert name in NAMES and case.repaired(line, better).count(better) == 1
    with case.exhibit.installed(case.repaired(line, better)):
        assert list(watched_life(case.seed))
    with pytest.raises(DataError, match="stands 0 times in"):
        case.repaired("no such line", "")


def test_every_name_has_its_case():
    assert [case.number for case in CASES] == list(range(1, 7)) and {case.name for case in CASES} == set(NAMES)


def test_two_claims_are_true_and_random_workloads_refute_none_of_them():
    true = [claim for claim in CLAIMS if not claim.why]
    assert [claim.letter for claim in true] == ["D", "G"]
    rng, refuted = Random(3), set()
    for _ in range(10):
        count = rng.randint(1, 9)
        workload = [
            (rng.choice((0, 0, rng.randint(0, 12))), rng.randint(1, 48), rng.randint(1, 48)) for _ in range(count)
        ]
        assert all(claim(workload) for claim in true), workload
        refuted |= {claim.letter for claim in CLAIMS if not claim(workload)}
    assert refuted >= {"A", "B", "C", "F", "I"}


def test_each_false_claim_fails_on_its_workload_only_where_it_should():
    for claim in CLAIMS:
        found = ref.refute(claim)
        assert (found is None) == (not claim.why)
        assert found is None or not claim(found)
    assert all(claim([(0, 4, 1)]) for claim in CLAIMS), "one short request in a full block refutes nothing"
    assert lost_to_static([(0, 4, 4), (0, 4, 40)] * 5) < 0, "unequal answers are what continuous batching is for"


def test_a_workload_beyond_the_engine_is_refused():
    with pytest.raises(InputError, match="a request may grow to 104 tokens, and this engine ends all at 96"):
        serve([(0, 4, 100)])


def test_a_scheduler_that_raises_or_never_ends_is_a_violation():
    with pytest.raises(Violation, match="S5: ZeroDivisionError"):
        list(random_life(0, partial(broken, lambda budget: 1 // 0)))
    with pytest.raises(Violation, match="S5: no end after 2000 steps"):
        list(random_life(0, partial(broken, lambda budget: None)))


def broken(step, limits: SchedulerConfig, cache: CacheConfig):
    scheduler = References(limits, cache)
    scheduler.step = step
    return scheduler


def test_a_step_in_words():
    scheduler, plan = next(random_life(0))
    assert told(scheduler, plan).splitlines() == [
        "step 1",
        "  r0 computes positions 0 to 3; its blocks: 1",
        "  free: 2 3 4 5 6; findable by hash: 1",
    ]
