"""The sweep within a step, on a CPU: graphs are emulated, times made up. Its real times need a GPU."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.tune_step import MODULES, sweep  # noqa: E402
from labcore.kernels import _config, tune  # noqa: E402
from tests.engine.test_cuda_graphs import engine  # noqa: E402

TILES = [{"BLOCK_N": 8, "BLOCK_K": 32, "EARLY": 0}, {"BLOCK_N": 16, "BLOCK_K": 64, "EARLY": 0}]
NO_TILE = {"BLOCK_N": 16, "BLOCK_K": 48, "EARLY": 0}  # no power of two


class Shrinking:
    """A clock by which every step is faster than the one before it; it also runs them."""

    def __init__(self):
        self.seconds = 1.0

    def events(self, calls):
        calls[0]()
        self.seconds /= 2
        return [self.seconds] * len(calls)


@pytest.fixture
def core(monkeypatch):
    monkeypatch.setattr(tune, "capability", lambda device: None)  # "this GPU" is the interpreter
    core, _ = engine()
    core.add_request(Request("r", [1, 2, 3], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)))
    while not core.scheduler.running or not core.scheduler.running[0].num_output_tokens:
        core.step()
    return core


def test_each_choice_but_the_present_is_tried_within_a_step(core):
    before = _config.TABLE["gemv", "interpreter"]
    (tried,) = sweep(core, "gemv", TILES, Shrinking()).values()
    assert before in TILES and [entry["launch"] for entry in tried] == [TILES[0], None]  # the faster is the later
    assert [entry["seconds"] for entry in tried] == [0.25, 0.5]
    assert _config.TABLE["gemv", "interpreter"] is before


def test_one_rule_is_varied_at_a_time(core, monkeypatch):
    """The others keep their entry, in the table as it stands while a step is captured."""
    rules, seen = [({"gated": True}, TILES[1]), ({}, TILES[1])], []
    monkeypatch.setitem(_config.TABLE, ("gemv", "interpreter"), rules)
    _config._pick.cache_clear()
    clock = Shrinking()
    note = lambda calls: (seen.append([rule[1] for rule in _config.rules("gemv", None)]), [1.0] * len(calls))[1]  # noqa: E731
    monkeypatch.setattr(clock, "events", note)
    assert set(sweep(core, "gemv", TILES, clock)) == {"gemv {'gated': True}", "gemv otherwise"}
    assert seen == [[TILES[1], TILES[1]], [TILES[0], TILES[1]], [TILES[1], TILES[1]], [TILES[1], TILES[0]]]
    monkeypatch.undo()
    _config._pick.cache_clear()


def test_a_choice_that_cannot_run_has_its_reason(core):
    (tried,) = sweep(core, "gemv", [NO_TILE], Shrinking()).values()
    assert tried[0]["launch"] is None and tried[1]["launch"] == NO_TILE and "failed" in tried[1]["why"]


def test_its_kinds_are_in_the_table():
    for kind in MODULES:
        assert _config.rules(kind, (9, 0))
