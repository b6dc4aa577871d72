"""EAGLE: the proposer beside an oracle without a cache, trees beside a definition, answers as without speculation."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.kv.contiguous import causal_attention  # noqa: E402
from labcore.speculative.build import METHODS  # noqa: E402
from labcore.speculative.draft_tree import GrowingTree  # noqa: E402
from labcore.speculative.eagle import EagleProposer  # noqa: E402
from labcore.speculative.eagle_head import EagleHead, eagle_config, tap_layers  # noqa: E402
from labcore.speculative.reduced_head import ReducedHead  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.speculative.serving import answers, greedy, serve  # noqa: E402
from tests.speculative.test_identity import CONFIGURATIONS, PROMPTS  # noqa: E402

TARGET = tiny_model(n_layers=6)
VOCABULARY = torch.arange(0, 256, 2)
SHAPES = {"chain": (3, 3, 1), "tree": (6, 3, 2), "wide": (7, 2, 5)}  # num_tokens, depth, width


def head(fused: bool) -> EagleHead:
    torch.manual_seed(3)
    return EagleHead(eagle_config(TARGET.config, 32), fused).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _eagle(monkeypatch):
    def make(target, fused: bool = False, num_tokens: int = 3, depth: int = 3, width: int = 1) -> EagleProposer:
        return EagleProposer(target, head(fused), ReducedHead(TARGET, VOCABULARY), num_tokens, depth, width)

    monkeypatch.setitem(METHODS, "small_eagle", make)


def option(shape: str, fused: bool = False) -> dict:
    return {"method": "small_eagle", "fused": fused} | dict(
        zip(("num_tokens", "depth", "width"), SHAPES[shape], strict=True)
    )


@pytest.mark.parametrize("config", ["two at a time", "chunks of 2", "preempted, swapped", "a window of 8"])
@pytest.mark.parametrize("shape, fused", [("chain", True), ("wide", False)])
def test_answers_are_those_without_speculation(shape, fused, config):
    options = CONFIGURATIONS[config]
    params = [greedy()] * len(PROMPTS)
    plain, _ = answers(PROMPTS, params, model=TARGET, **options)
    found, core = answers(PROMPTS, params, model=TARGET, speculative=option(shape, fused), **options)
    assert found == plain
    assert core.stats.total("verified") > 0


class Recorder(EagleProposer):
    """Keeps every draft together with the tokens it was made for."""

    def propose(self, step):
        drafts = super().propose(step)
        self.made = getattr(self, "made", [])
        self.made += [(row.token_ids, drafts[row.request_id]) for row in step.rows if row.request_id in drafts]
        return drafts


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_drafts_are_those_of_the_layer_run_over_everything_anew(shape, fused, monkeypatch):
    """No cache, no batch, no slots: each branch of the tree is a sequence of its own."""
    recorders = []

    def make(target, **options):
        recorders.append(Recorder(target, head(fused), ReducedHead(TARGET, VOCABULARY), *SHAPES[shape]))
        return recorders[0]

    monkeypatch.setitem(METHODS, "recorder", make)
    core = assemble(TARGET, speculative={"method": "recorder"}, block_size=4, enable_prefix_caching=False)
    serve(core, PROMPTS, [greedy(20)] * len(PROMPTS))
    assert len(recorders[0].made) > 20
    checked = 0
    for token_ids, draft in recorders[0].made[::6]:
        expected = _tree_without_cache(token_ids, head(fused), *SHAPES[shape])
        if len(draft.token_ids) == SHAPES[shape][0]:  # there are fewer near the end of an answer
            assert (draft.token_ids, draft.parents) == (expected.token_ids, expected.parents)
            checked += 1
    assert checked > 3


def _tree_without_cache(token_ids: list[int], layer: EagleHead, num_tokens: int, depth: int, width: int):
    reduced, tree = ReducedHead(TARGET, VOCABULARY), GrowingTree(width)

    def attend(_, q, k, v):
        return causal_attention(q, k.transpose(0, 1), v.transpose(0, 1))

    known = torch.tensor(token_ids[:-1])
    x, taps = TARGET.run(known, torch.arange(len(known)), attend, tap_layers(6))
    features = layer.features(TARGET.norm(x), [taps[tap] for tap in tap_layers(6)])

    def output(branch: list[int]):
        """What the layer puts out after the known tokens and the tokens of a branch."""
        ids, inputs = torch.tensor(token_ids[1:] + branch), features
        for end in range(len(features), len(ids) + 1):
            out = layer(TARGET.embed_tokens(ids[:end]), inputs, torch.arange(end), attend)
            inputs = torch.cat((inputs, out[-1:]))
        return out[-1]

    for _ in range(depth):
        branches = [[tree.token_ids[node] for node in tree.branch(leaf)] if leaf >= 0 else [] for leaf in tree.frontier]
        outs = torch.stack([output(branch) for branch in branches])
        tokens, values = reduced.likeliest(layer.ready(outs), max(width, -(-num_tokens // depth)))
        tree.grow(tokens.tolist(), values.tolist())
    return tree.draft(num_tokens)


def test_drafts_of_one_prompt_do_not_depend_on_its_company():
    _, one = answers(PROMPTS[:1], [greedy()], model=TARGET, speculative=option("tree"))
    _, many = answers(PROMPTS[:1] * 3, [greedy()] * 3, model=TARGET, speculative=option("tree"))
    assert many.stats.total("accepted") == 3 * one.stats.total("accepted")


@given(st.lists(st.lists(st.floats(0.05, 0.9), min_size=2, max_size=2), min_size=3, max_size=3), st.integers(1, 14))
def test_the_draft_holds_the_likeliest_branches_of_all_that_were_seen(probabilities, num_tokens):
    """Against the definition: all branches of the full binary tree, sorted by probability."""
    tree = GrowingTree(width=8)  # wider than any depth: nothing is left out
    for one in torch.tensor(probabilities).log().tolist():
        tree.grow([[0, 1]] * len(tree.frontier), [one] * len(tree.frontier))
    draft = tree.draft(num_tokens)
    values = sorted(
        (
            torch.tensor([probabilities[d][choice] for d, choice in enumerate(path)]).prod().item()
            for length in (1, 2, 3)
            for path in itertools.product((0, 1), repeat=length)
        ),
        reverse=True,
    )
    found = []
    for node in range(len(draft.token_ids)):
        value, depth = 1.0, []
        while node >= 0:
            depth.append(draft.token_ids[node])
            node = draft.parents[node]
        for d, choice in enumerate(reversed(depth)):
            value *= probabilities[d][choice]
        found.append(value)
    assert sorted(found, reverse=True) == pytest.approx(values[:num_tokens], rel=1e-5)


@pytest.mark.parametrize("name", ["num_tokens", "depth", "width"])
def test_an_option_below_1_is_refused(name):
    with pytest.raises(InputError, match=f"{name}=0"):
        assemble(TARGET, speculative=option("chain") | {name: 0})
