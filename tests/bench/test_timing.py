"""The order and the arithmetic of timing, on a clock that only the timed programs move."""

import gc

import pytest

from labcore.bench.timing import alternate, measure, pinned_threads
from labcore.core.errors import InputError


class Machine:
    """A clock, and programs that take a stated time on it; `log` keeps the order of the calls."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def clock(self):
        return self.now

    def program(self, name, cost, first=None):
        def run():
            self.now += cost if name in self.log or first is None else first
            self.log.append(name)

        return run


def test_a_sample_is_the_time_of_one_call():
    machine = Machine()
    samples = measure(machine.program("a", 0.25), rounds=4, min_time=1.0, clock=machine.clock)
    assert samples == [0.25] * 4


def test_the_first_call_is_warm_up_and_is_not_counted():
    machine = Machine()
    assert measure(machine.program("a", 1.0, first=100.0), rounds=3, min_time=0, clock=machine.clock) == [1.0] * 3


def test_calls_fill_the_minimum_time():
    machine = Machine()
    measure(machine.program("a", 0.1), rounds=1, min_time=1.0, clock=machine.clock)
    assert len(machine.log) == 2 + 10


def test_programs_take_turns():
    machine = Machine()
    programs = {"a": machine.program("a", 1.0), "b": machine.program("b", 2.0)}
    samples = alternate(programs, rounds=3, per_round=2, min_time=0, clock=machine.clock)
    assert "".join(machine.log) == "aabb" + "aabb" * 3
    assert samples == {"a": [[1.0, 1.0]] * 3, "b": [[2.0, 2.0]] * 3}


def test_queued_work_is_waited_for_inside_the_sample():
    machine = Machine()
    queued = []

    def sync():
        machine.now += 5.0 * len(queued)
        queued.clear()

    assert measure(lambda: queued.append(1), rounds=2, min_time=0, sync=sync, clock=machine.clock) == [5.0, 5.0]


def test_garbage_collection_is_off_while_timing_and_on_again_after_a_crash():
    seen = []
    measure(lambda: seen.append(gc.isenabled()), rounds=1, min_time=0)
    assert seen == [True, True, False]

    def crash():
        if not gc.isenabled():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        measure(crash, rounds=1, min_time=0)
    assert gc.isenabled()


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"per_round": 0}, {"min_time": -1.0}])
def test_bad_counts_are_refused(wrong):
    with pytest.raises(InputError, match="need at least one program"):
        alternate({"a": lambda: None}, **wrong)


def test_threads_are_pinned_inside_and_restored_after():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with pinned_threads(1) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="threads=0"), pinned_threads(0):
        pass
