"""Medusa: the tree against brute force, the proposer against a definition, answers as without speculation."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.draft import branches  # noqa: E402
from labcore.speculative.build import METHODS  # noqa: E402
from labcore.speculative.medusa import MedusaHeads, MedusaProposer, SparseTree, sparse_tree  # noqa: E402
from labcore.speculative.reduced_head import ReducedHead  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.speculative.serving import answers, greedy  # noqa: E402
from tests.speculative.test_identity import CONFIGURATIONS, PROMPTS  # noqa: E402

TARGET = tiny_model()
HEAD = ReducedHead(TARGET, torch.arange(0, 256, 2))
TREE = sparse_tree([[0.6, 0.2, 0.1], [0.4, 0.2], [0.3]], 7)


def heads() -> MedusaHeads:
    module = MedusaHeads(32, 3)
    generator = torch.Generator().manual_seed(5)
    for one in module.heads:
        one.inner.weight.data.normal_(generator=generator)
    return module.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _medusa(monkeypatch):
    monkeypatch.setitem(METHODS, "small_medusa", lambda target: MedusaProposer(heads(), HEAD, TREE))


def test_untrained_heads_say_what_the_lm_head_says():
    hidden = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    guesses = MedusaHeads(32, 3)(hidden)
    assert guesses.shape == (4, 3, 32)
    for guess in guesses.unbind(1):
        assert torch.equal(HEAD(guess).argmax(-1), HEAD(hidden).argmax(-1))


accuracy = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3).map(lambda some: sorted(some, reverse=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(accuracy, min_size=1, max_size=3), st.integers(1, 4))
def test_no_tree_of_as_many_nodes_is_expected_to_accept_more(accuracies, nodes):
    """Against every set of branches that is closed under taking the last node away."""
    every = [
        path
        for length in range(1, len(accuracies) + 1)
        for path in itertools.product(*(range(len(one)) for one in accuracies[:length]))
    ]

    def value(path):
        return torch.tensor([accuracies[d][rank] for d, rank in enumerate(path)], dtype=torch.float64).prod().item()

    best = max(
        sum(map(value, some))
        for some in itertools.combinations(every, min(nodes, len(every)))
        if all(len(path) == 1 or path[:-1] in some for path in some)
    )
    tree = sparse_tree(accuracies, nodes)
    assert len(tree.parents) == min(nodes, len(every))
    paths = [tuple(tree.ranks[node] for node in branch) for branch in branches(tree.parents)]
    assert len(set(paths)) == len(paths)
    assert tree.expected == pytest.approx(best) == pytest.approx(sum(map(value, paths)))


def test_a_draft_holds_the_guesses_that_the_tree_names():
    """With heads that repeat the LM head every depth has the same candidates: those of the target itself."""

    made = []

    class Kept(MedusaProposer):
        def propose(self, step):
            drafts = super().propose(step)
            for row in step.rows:
                if row.request_id in drafts:
                    logits = TARGET.lm_head(step.hidden[row.kept[-1]])[HEAD.token_ids]
                    made.append((HEAD.token_ids[logits.topk(3).indices].tolist(), drafts[row.request_id]))
            return drafts

    METHODS["small_medusa"] = lambda target: Kept(MedusaHeads(32, 3), HEAD, TREE)  # undone by the fixture
    found, _ = answers(PROMPTS, [greedy()] * len(PROMPTS), speculative={"method": "small_medusa"})
    assert found == answers(PROMPTS, [greedy()] * len(PROMPTS))[0]
    assert len(made) > 20
    for best, draft in made:
        assert draft.parents == TREE.parents[: len(draft.parents)]
        assert draft.token_ids == [best[rank] for rank in TREE.ranks[: len(draft.parents)]]


@pytest.mark.parametrize("config", ["two at a time", "chunks of 2", "preempted, swapped"])
def test_answers_are_those_without_speculation(config):
    params, options = [greedy()] * len(PROMPTS), CONFIGURATIONS[config]
    plain, _ = answers(PROMPTS, params, **options)
    found, core = answers(PROMPTS, params, speculative={"method": "small_medusa"}, **options)
    assert found == plain and core.stats.total("verified") > 0


def test_one_node_is_the_likeliest_guess():
    assert sparse_tree([[0.5, 0.3], [0.9]], 1) == SparseTree([-1], [0], 0.5)
    assert sparse_tree([[0.5, 0.3], [0.9]], 2) == SparseTree([-1, 0], [0, 0], 0.95)
