"""Verification of drafts on logits made up: matching on trees, rejection with processors at each depth, typical."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.draft import Draft  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.core.step_plan import ScheduledRequest  # noqa: E402
from labcore.engine import verify as module  # noqa: E402
from labcore.engine.tree_rows import accepted_slots, step_branches  # noqa: E402
from labcore.engine.verify import verify  # noqa: E402
from labcore.sampling.processors import adjust  # noqa: E402
from labcore.sampling.sampler import SamplingRow, law, new_generator, sample  # noqa: E402
from labcore.sampling.typical import typical_accepts  # noqa: E402

VOCAB = 4


def scheduled(name: str, params: SamplingParams, draft: Draft, prompt=(1, 2)) -> ScheduledRequest:
    """A request that computes its last known token and a draft."""
    request = Request(name, list(prompt), params)
    request.take_draft(draft, 99)
    count = len(draft.token_ids)
    return ScheduledRequest(request, len(prompt) - 1, 1 + count, [3, 1, 2, 5], 0, count, True)


class Rows:
    """What the runner's `_row` does: a generator for each request."""

    def __init__(self):
        self.generators = {}

    def __call__(self, one, accepted):
        request = one.request
        if request.request_id not in self.generators:
            self.generators[request.request_id] = new_generator(request.sampling_params)
        tokens = [*request.all_token_ids, *accepted]
        return SamplingRow(
            request.sampling_params, tokens, request.num_prompt_tokens, request.stop_ids,
            self.generators[request.request_id],
        )  # fmt: skip


def tree(draw, most=7) -> Draft:
    tokens = draw(st.lists(st.integers(0, VOCAB - 1), max_size=most))
    return Draft(tokens, [draw(st.integers(-1, node - 1)) for node in range(len(tokens))])


@st.composite
def batches(draw):
    """Requests of all kinds with trees, and their logits."""
    ones = []
    for i in range(draw(st.integers(1, 4))):
        options = draw(st.sampled_from([{"temperature": 0.0}, {"top_k": 2}, {"frequency_penalty": 1.5}, {}]))
        ones.append(scheduled(f"r{i}", SamplingParams(seed=i, logprobs=1, **options), tree(draw)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    return ones, torch.randn(sum(1 + one.num_draft_tokens for one in ones), VOCAB, generator=generator) * 2


@settings(max_examples=150, deadline=None)
@given(batches())
def test_matching_says_what_sampling_one_token_after_the_other_would(batch):
    ones, logits = batch
    verdicts, rows, first = verify(ones, logits, Rows()), Rows(), 0
    for verdict in verdicts:
        one, node, tokens = verdict.one, -1, []
        parents = one.parents or list(range(-1, one.num_draft_tokens - 1))
        path = []
        while node is not None:
            outcome = sample(logits[first + 1 + node][None], [rows(one, tokens)])[0]
            assert verdict.logprobs[len(tokens)] == outcome.logprobs
            tokens.append(outcome.token_id)
            children = [
                n for n, p in enumerate(parents) if p == node and one.request.spec_token_ids[n] == outcome.token_id
            ]
            node = children[0] if children else None
            path += children[:1]
        assert (verdict.tokens, verdict.path, verdict.error) == (tokens, path, None)
        first += 1 + one.num_draft_tokens


def test_rejection_gets_the_law_of_the_sampler_at_each_depth(monkeypatch):
    """Penalties and bad words see the drafts before them; so do temperature and truncation."""
    params = SamplingParams(temperature=0.7, top_k=3, frequency_penalty=1.0, bad_words=((2, 0),), seed=5)
    laws = torch.rand(2, VOCAB, generator=torch.Generator().manual_seed(0))
    one = scheduled("a", params, Draft([2, 0], laws=laws / laws.sum(-1, keepdim=True)))
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    seen = {}

    def accept_chain(p, q, token_ids, uniforms):
        seen.update(p=p, q=q, tokens=token_ids, uniforms=uniforms)
        return 1, 3

    monkeypatch.setattr(module, "accept_chain", accept_chain)
    rows = Rows()
    (verdict,) = verify([one], logits, rows)
    assert verdict.tokens == [2, 3] and verdict.path == [0]
    for depth, drafted in enumerate(([], [2], [2, 0])):
        expected = law(adjust(logits[depth : depth + 1].clone(), [rows(one, drafted)]), [params])[0]
        torch.testing.assert_close(seen["p"][depth], expected)
    assert seen["p"][1, 0] == 0, "a bad word is complete with this token"
    assert seen["tokens"] == [2, 0] and seen["q"].dtype == seen["p"].dtype
    expected = torch.rand(3, generator=new_generator(params), dtype=torch.float64)
    assert torch.equal(torch.as_tensor(seen["uniforms"]), expected)


def test_rejection_keeps_the_law_of_the_answer():
    """The answers' first tokens have the target's frequencies, though the drafts come from another law."""
    laws = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    logits = torch.tensor([[0.0, 1.0, 0.5, -1.0], [1.0, -1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]])
    rng, counts, total = Random(0), torch.zeros(VOCAB), 800
    for i in range(total):
        drafts = [rng.choices(range(VOCAB), one)[0] for one in laws.tolist()]
        one = scheduled("a", SamplingParams(temperature=0.8, seed=i), Draft(drafts, laws=laws))
        (verdict,) = verify([one], logits, Rows())
        counts[verdict.tokens[0]] += 1
    p = law(logits[:1], [SamplingParams(temperature=0.8)])[0]
    distance = 0.5 * (counts / total - p).abs().sum()
    assert distance < 0.07, "about (vocab / (2 pi total)) ** 0.5 = 0.03 is expected"
    assert 0.5 * (laws[0] - p).abs().sum() > 0.3


def test_typical_takes_the_longest_branch_that_passes():
    parents, tokens = [-1, -1, 0, 1, 3], [0, 1, 2, 3, 2]
    logits = torch.full((6, VOCAB), 0.0)
    for row, token in ((0, 1), (2, 3), (4, 2)):  # behind nothing, node 1 and node 3 the draft is likely
        logits[row, token] = 4.0
    logits[0, 0] = 4.0  # so is node 0, but its child is not
    logits[1] = torch.tensor([9.0, 0.0, 0.0, 0.0])
    one = scheduled("a", SamplingParams(seed=1), Draft(tokens, parents))
    (verdict,) = verify([one], logits, Rows(), "typical")
    assert verdict.path == [1, 3, 4] and verdict.tokens[:3] == [1, 3, 2] and len(verdict.tokens) == 4
    p = law(logits, [SamplingParams()] * 6)
    assert typical_accepts(p[[0, 0, 1, 2, 4]], torch.tensor(tokens)).tolist() == [True, True, False, True, True]


def test_greedy_requests_are_matched_under_every_rule():
    logits = torch.tensor([[0.0, 3.0, 2.9, 0.0], [0.0, 0.0, 0.0, 5.0]])
    one = scheduled("a", SamplingParams(temperature=0), Draft([2]))
    for acceptance in module.ACCEPTANCE:
        assert verify([one], logits, Rows(), acceptance)[0].tokens == [1]


@pytest.mark.parametrize("laws", [None, torch.full((2, VOCAB), 1 / VOCAB)])
@pytest.mark.parametrize("acceptance", ["exact", "typical"])
def test_a_broken_row_fails_alone(laws, acceptance):
    def fails(output_ids, logits):
        raise KeyError("broken processor")

    ones = [
        scheduled("a", SamplingParams(seed=0), Draft([1, 2], laws=laws)),
        scheduled("b", SamplingParams(seed=0, logits_processors=[fails]), Draft([1, 2], laws=laws)),
        scheduled("c", SamplingParams(seed=0), Draft([1, 2], laws=laws)),
    ]
    logits = torch.zeros(9, VOCAB)
    logits[6] = torch.nan
    verdicts = verify(ones, logits, Rows(), acceptance)
    assert verdicts[0].error is None and verdicts[0].tokens
    assert verdicts[1].error == "sampling raised KeyError: 'broken processor'"
    assert "the largest logit is nan" in verdicts[2].error and not verdicts[2].tokens


@pytest.mark.parametrize("laws", [None, torch.full((2, VOCAB), 1 / VOCAB)])
@pytest.mark.parametrize("acceptance", ["exact", "typical"])
def test_a_place_fails_only_if_the_answer_arrives_there(laws, acceptance):
    """A grammar that forbids a token need not know how to go on behind it, and a draft may hold that token."""

    def grammar(forbidden, output_ids, logits):
        if 2 in output_ids:
            raise KeyError("no way on")
        return logits.index_fill(0, torch.tensor(forbidden), -torch.inf)

    def silent(forbidden, output_ids, logits):
        return logits.index_fill(0, torch.tensor([0, 1, 2, 3] if 2 in output_ids else forbidden), -torch.inf)

    for refuses, text in ((grammar, "KeyError: 'no way on'"), (silent, "no token is allowed")):
        for forbidden, error in (([2], None), ([0, 1, 3], text)):
            params = SamplingParams(seed=3, logits_processors=[partial(refuses, forbidden)])
            (verdict,) = verify(
                [scheduled("a", params, Draft([2, 1], laws=laws))], torch.zeros(3, VOCAB), Rows(), acceptance
            )
            if error is None:
                assert verdict.error is None and verdict.path == [] and verdict.tokens[0] in (0, 1, 3)
            else:
                assert error in verdict.error


def test_nodes_see_their_branch_and_accepted_ones_move_up():
    one = scheduled("a", SamplingParams(), Draft([0, 1, 2, 3, 0], [-1, -1, 1, 0, 2]), prompt=(1, 2, 3))
    plain = ScheduledRequest(one.request, 0, 3, [9], 0, 0, True)
    branches = step_branches([plain, one])
    assert sorted(branches) == [4, 5, 6, 7, 8]
    assert [branches[token].places for token in sorted(branches)] == [(3,), (4,), (4, 5), (3, 6), (4, 5, 7)]
    assert [branches[token].position for token in sorted(branches)] == [3, 3, 4, 4, 5]
    assert [branches[8].place(position) for position in range(6)] == [0, 1, 2, 4, 5, 7]
    slot = lambda place: [3, 1, 2, 5][place // 2] * 2 + place % 2  # noqa: E731
    assert accepted_slots(one, [1, 2, 4], 2) == ([slot(4), slot(5), slot(7)], [slot(3), slot(4), slot(5)])
    assert accepted_slots(one, [0, 3], 2) == ([slot(6)], [slot(4)])
    assert accepted_slots(one, [], 2) == ([], [])
