"""Timing on a GPU, with a clock that is told how long calls take; and on a real one where there is one."""

import pytest

from labcore.bench import cuda_timing
from labcore.bench.cuda_timing import CudaClock, OneCall, alternate, sets_beyond_cache
from labcore.core.errors import InputError


class FakeClock:
    """Time passes only as the calls say; `order` is what was asked of it."""

    def __init__(self):
        self.order = []

    def events(self, calls):
        self.order.append(("events", len(calls)))
        return [call() for call in calls]

    def graph(self, calls):
        self.order.append(("graph", len(calls)))
        return lambda: sum(call() for call in calls) / len(calls)


def taking(*seconds):
    return [lambda s=s: s for s in seconds]


def test_long_calls_are_timed_one_by_one_in_alternating_rounds():
    clock = FakeClock()
    found = alternate({"ours": taking(1e-3), "theirs": taking(2e-3, 4e-3)}, clock, rounds=3, samples=4)
    assert found.rounds == {"ours": [[1e-3] * 4] * 3, "theirs": [[2e-3, 4e-3] * 2] * 3}
    assert clock.order == [("events", 3)] * 2 + [("events", 4)] * 6  # a look at each, then A B A B A B
    assert found.median("ours") == 1e-3 and "256 MiB" in found.method


def test_a_short_call_puts_all_of_them_into_graphs():
    clock = FakeClock()
    found = alternate({"ours": taking(1e-6, 3e-6), "theirs": taking(1e-3)}, clock, rounds=2, samples=1)
    assert found.rounds["ours"] == [[pytest.approx(2e-6)]] * 2
    assert clock.order[2:] == [("graph", 40), ("graph", 40)] and "CUDA graph of 40 calls" in found.method


def test_a_graph_holds_every_set_of_inputs():
    clock = FakeClock()
    alternate({"ours": taking(*[1e-6] * 50)}, clock, rounds=1, samples=1)
    assert clock.order[-1] == ("graph", 50)


def test_the_choice_can_be_forced():
    clock = FakeClock()
    alternate({"ours": taking(1e-6)}, clock, rounds=1, samples=2, graph=False)
    assert clock.order == [("events", 2)]


def test_compiling_runs_each_program_and_times_nothing():
    ran = []
    programs = {name: [lambda name=name: ran.append(name)] for name in ("ours", "theirs")}
    found = alternate(programs, OneCall())
    assert set(ran) == {"ours", "theirs"} and found.median("theirs") == 1.0


def test_nonsense_is_refused():
    for programs, rounds in (({}, 1), ({"ours": []}, 1), ({"ours": taking(1)}, 0)):
        with pytest.raises(InputError, match="at least one of each"):
            alternate(programs, FakeClock(), rounds=rounds)


def test_rotated_inputs_exceed_three_caches():
    l2 = 60 * 2**20
    for size in (1e6, 30e6, 200e6):
        count = sets_beyond_cache(size, l2)
        assert count == cuda_timing.MOST_SETS or (count - 1) * size >= 3 * l2
    assert sets_beyond_cache(1e9, l2) == 2 and sets_beyond_cache(1.0, 0) == 1


@pytest.mark.gpu
def test_neither_way_finds_a_copy_in_the_cache():
    import torch

    clock = CudaClock()
    source = torch.randn(2**26, device="cuda")
    target = torch.empty_like(source)
    copy = [lambda: target.copy_(source)]
    for graph in (False, True):
        took = alternate({"copy": copy}, clock, graph=graph).median("copy")
        assert took > 2 * source.nbytes / 10e12  # no memory moves 10 TB/s
