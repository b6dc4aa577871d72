"""Draft lengths in a world where acceptance, load and costs are what the test says."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labcore.attention.metadata import StepInputs  # noqa: E402
from labcore.core.draft import Draft  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.formulas.speculation import best_length  # noqa: E402
from labcore.speculative.adaptive import Adaptive, Stopwatch, expected_gain  # noqa: E402
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep  # noqa: E402
from tests.speculative.serving import MODEL  # noqa: E402


class Inner(Proposer):
    """Drafts as long as it may, at `seconds` a token; or one tree of 6 nodes, 3 deep."""

    def __init__(self, world, tree=False):
        self.world, self.tree, self.num_tokens = world, tree, 6 if tree else 8
        self.num_lookahead_tokens, self.taps, self.nbytes_per_token = 8, (1,), 12

    def propose(self, step):
        rows = [row for row in step.rows if row.room]
        self.world.now += self.world.draft * max((3 if self.tree else row.room for row in rows), default=0)
        parents = [-1, -1, 0, 1, 2, 3] if self.tree else None
        return {row.request_id: Draft([0] * row.room, parents and parents[: row.room]) for row in rows}


class World:
    """alpha: acceptance of a drafted token; cost: seconds of a pass by its tokens; draft: seconds of a draft step."""

    def __init__(self, alpha, cost, draft, tree=False, seed=0):
        self.alpha, self.cost, self.draft, self.now = alpha, cost, draft, 0.0
        self.random = np.random.default_rng(seed)
        self.proposer = Adaptive(Inner(self, tree), probe=16, clock=lambda: self.now)
        self.drafts = {}

    def steps(self, count, batch):
        """Mean draft length of each of `count` steps of `batch` requests."""
        return [self.step(batch) for _ in range(count)]

    def step(self, batch):
        rows, end = [], 0
        for i in range(batch):
            draft = self.drafts.get(str(i))
            nodes = len(draft.token_ids) if draft else 0
            depth = nodes if draft is None or draft.parents is None else 3
            right = self.random.random(depth) < self.alpha
            accepted = depth if right.all() else int(right.argmin())
            kept = list(range(end, end + 1 + accepted))
            begin, end = end, end + 1 + nodes
            params = SamplingParams()
            rows.append(SpeculationRow(str(i), [1, 2], 1, params, begin, end, kept, [], [0] * (1 + nodes), room=8))
        self.now += self.cost(end)
        zeros = torch.zeros(end, dtype=torch.int64)
        self.drafts = self.proposer.propose(SpeculationStep(rows, StepInputs(zeros, zeros, zeros, None)))
        return sum(len(draft.token_ids) for draft in self.drafts.values()) / batch


def flat(tokens):
    return 1.0


def ridge(tokens):
    """Free up to 8 tokens, then in proportion."""
    return max(1.0, tokens / 8)


@pytest.mark.parametrize("alpha, draft", [(0.8, 0.02), (0.8, 0.1), (0.6, 0.05), (0.5, 0.2), (0.9, 0.2)])
def test_it_finds_the_best_length(alpha, draft):
    """Within one token of K*, where the gain is nearly the same: alpha is an estimate."""
    lengths = World(alpha, flat, draft).steps(600, 1)[200:]
    best = best_length(lambda k: formula["speculation.speedup"](alpha=alpha, K=k, c=draft), longest=8)
    assert abs(np.mean(lengths) - best) < 1
    if best < 8:
        assert np.mean(lengths) < 7.5


def test_drafts_that_never_pay_are_not_made():
    world = World(0.1, flat, 0.5)
    assert np.mean(world.steps(300, 1)[100:]) < 0.15  # one probe in 17 steps


def test_it_switches_off_under_load_and_comes_back():
    world = World(0.8, ridge, 0.05)
    alone = np.mean(world.steps(100, 1)[50:])
    crowd = np.mean(world.steps(100, 16)[50:])
    after = np.mean(world.steps(100, 1)[50:])
    assert alone > 2 and after > 2
    assert crowd < 0.2


def test_a_request_whose_drafts_get_better_is_noticed():
    world = World(0.0, flat, 0.1)
    assert np.mean(world.steps(200, 1)[100:]) < 0.2
    world.alpha = 0.95
    assert np.mean(world.steps(300, 1)[200:]) > 3


def test_of_a_tree_it_wants_all_or_nothing():
    world = World(0.8, flat, 0.05, tree=True)
    assert set(world.steps(60, 1)[30:]) == {6.0}
    world.cost = ridge
    assert np.mean(world.steps(300, 16)[200:]) < 0.5


def test_the_gain_is_the_registered_formula():
    alpha, lengths, costs = np.array([0.1, 0.7, 0.99]), np.array([1, 3, 8]), np.array([1.0, 1.3, 2.0])
    found = expected_gain(alpha, lengths, costs, 0.07)
    wanted = formula["speculation.gain"](alpha=alpha[:, None], K=lengths, v=costs, c=0.07)
    assert np.allclose(found, wanted, rtol=1e-12)
    assert np.allclose(expected_gain(np.array([1.0]), np.array([4]), np.array([1.0]), 0.0), 5)


def test_a_stopwatch_between_and_beyond_what_it_measured():
    watch = Stopwatch()
    assert watch.seconds(3) == 0
    for size, seconds in [(2, 1.0), (2, 99.0), (2, 1.0), (6, 3.0)]:  # one interruption
        watch.observe(size, seconds)
    assert [watch.seconds(size) for size in (1, 2, 4, 6, 12)] == [1, 1, 2, 3, 6]


def test_it_stands_in_for_what_it_wraps():
    world = World(0.5, flat, 0.1)
    inner, proposer = world.proposer.inner, world.proposer
    for name in ("num_tokens", "num_lookahead_tokens", "taps", "reads_hidden", "nbytes_per_token"):
        assert getattr(proposer, name) == getattr(inner, name)
    with pytest.raises(InputError, match="probe=0"):
        Adaptive(inner, probe=0)
    with pytest.raises(InputError, match="draft=None: adaptive wraps another method"):
        assemble(MODEL, speculative={"method": "adaptive"})
    with pytest.raises(InputError, match="speculative method"):
        assemble(MODEL, speculative={"method": "adaptive", "draft": {"method": "oracle"}})


def test_chunks_of_prompts_are_not_timed():
    world = World(0.8, flat, 0.05)
    world.steps(5, 1)
    known = dict(world.proposer.passes.medians)
    zeros = torch.zeros(40, dtype=torch.int64)
    chunk = SpeculationRow("chunk", [1] * 90, 90, SamplingParams(), 0, 40, list(range(40)), [], [], room=0)
    world.now += 77.0
    world.proposer.propose(SpeculationStep([chunk], StepInputs(zeros, zeros, zeros, None)))
    assert world.proposer.passes.medians == known
