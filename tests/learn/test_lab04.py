"""The speculation lab's references against the engine and the library, and what its tools promise."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labcore.attention.metadata import AttentionShape  # noqa: E402
from labcore.attention.tree import node_mask  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.core.step_plan import ScheduledRequest  # noqa: E402
from labcore.engine.tree_rows import accepted_slots, step_branches  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.learn.labs import lab04_references as ref  # noqa: E402
from labcore.learn.labs.lab04_rule import chain_of, drawn_chain, drawn_one, one  # noqa: E402
from labcore.learn.labs.lab04_tools import (  # noqa: E402
    MISTAKES,
    LookupDraft,
    Watched,
    drawn_law,
    draws,
    laws,
    pair_with_acceptance,
    speculate,
)
from labcore.learn.labs.lab04_tree import drawn_path, drawn_tree  # noqa: E402
from labcore.sampling.rejection import accept_chain, acceptance_rate  # noqa: E402
from labcore.sampling.typical import typical_law  # noqa: E402
from tests.sampling.laws import cuts_of, integral  # noqa: E402


def verified(parents, known, table):
    """A request whose draft tree is verified behind `known` tokens, the last of which is computed with it."""
    request = Request("a", list(range(known)), SamplingParams(max_tokens=4))
    request.spec_token_ids, request.spec_parents = list(range(100, 100 + len(parents))), parents
    count = 1 + len(parents)
    return ScheduledRequest(request, known - 1, count, table, 0, len(parents), True)


def test_the_copies_are_the_engines():
    generator = np.random.default_rng(5)
    for _ in range(50):
        path, known, table, size = drawn_path(generator)
        if known == 0:
            continue
        parents = list(range(-1, max(path)))  # any tree with that many nodes: slots depend on the number alone
        sources, targets = accepted_slots(verified(parents, known, table), path, size)
        assert ref.slot_copies(path, known, table, size) == list(zip(sources, targets, strict=True))


def test_mask_and_positions_are_the_engines():
    generator = np.random.default_rng(6)
    shape = AttentionShape(1, 1, 4, 8, 4, None)
    for _ in range(30):
        parents, known = drawn_tree(generator)
        known = known + 1
        branches = step_branches([verified(parents, known, [0, 1, 2, 3])])
        if not branches:
            continue  # a chain is an ordinary row
        nodes = [branches[token] for token in sorted(branches)]
        positions, mask = ref.tree_inputs(parents, known)
        assert [node.position for node in nodes] == positions.tolist()
        assert torch.equal(node_mask(nodes, 0, known + len(parents), shape), mask)


def test_the_parts_that_are_got_wrong_on_purpose_are_right_without_it():
    generator = np.random.default_rng(7)
    for _ in range(60):
        args = drawn_one(generator)
        assert one(*args) == ref.accept_or_replace(*args)
        args = drawn_chain(generator)
        assert chain_of(*args) == accept_chain(*args)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistakes_law_is_what_its_sampler_says(name):
    """Integrated over both random numbers and summed over the drafts."""
    from labcore.sampling.rejection import accepts, residual

    upside = lambda p, q, t, u: u * float(p[t]) < float(q[t])  # noqa: E731
    difference = lambda p, q: (p - q).abs() / (p - q).abs().sum()  # noqa: E731
    parts = {
        "the rule": (accepts, residual),
        "resamples from p after a rejection": (accepts, lambda p, q: p),
        "keeps every draft": (lambda p, q, t, u: True, residual),
        "keeps with min(1, q/p)": (upside, residual),
        "residual |p - q|": (accepts, difference),
    }
    keep, instead = parts[name]
    p, q = drawn_law(3, 4, 1.5), drawn_law(4, 4, 1.5)
    found, cuts = torch.zeros(4, dtype=torch.float64), [cuts_of(p, q), cuts_of(instead(p, q))]
    for token in range(4):
        said = lambda u, token=token: one(p, q, token, u[0], u[1], keep=keep, instead=instead)[1]  # noqa: E731
        for outcome, weight in integral(said, cuts).items():
            found[outcome] += q[token] * weight
    torch.testing.assert_close(MISTAKES[name](p, q), found, rtol=0, atol=1e-12)


def test_the_test_of_distributions_raises_no_false_alarm():
    laws_ = [drawn_law(seed, 5, sharpness, zeros=True) for seed, sharpness in itertools.product(range(10), (0.3, 3.0))]
    assert not any(ref.is_biased(draws(p, n, 3), p) for p in laws_ for n in (20, 500, 20_000))


def test_a_pair_overlaps_as_asked_and_its_chains_yield_what_the_formula_says():
    p, q = pair_with_acceptance(0.75)
    assert abs(float(acceptance_rate(p, q)) - 0.75) < 1e-12
    kept = speculate(accept_chain, p, q, 4, 2_000)
    expected = formula["speculation.expected_tokens"](alpha=0.75, K=4)
    assert abs(1 + np.mean(kept) - expected) < 5 * np.std(kept) / len(kept) ** 0.5
    assert abs(ref.estimate_alpha(kept, 4) - 0.75) < 0.05


def test_the_bias_of_typical_acceptance_is_the_librarys():
    p, q = laws((0.4, 0.35, 0.25), (0.2, 0.2, 0.6))
    assert ref.typical_bias(p, q, 0.3, 0.09) == pytest.approx(float((typical_law(p, q, 0.3, 0.09) - p).abs().sum() / 2))


def row(tokens, prompt, room, chosen=()):
    return SimpleNamespace(request_id="a", token_ids=tokens, num_prompt_tokens=prompt, room=room, chosen=list(chosen))


def test_a_watched_proposer_counts_whole_drafts_only():
    inner = LookupDraft(None, ref.prompt_lookup, num_tokens=2)
    watched = Watched(inner)
    seen = []
    for tokens, chosen in (([5, 6, 5, 6], [5]), ([5, 6, 5, 6, 5, 6, 9], [5, 6, 9]), ([5, 6, 5, 6, 5, 6, 9, 1], [1])):
        seen.append(watched.propose(SimpleNamespace(rows=[row(tokens, 1, 2, chosen)])))
    assert watched.kept == {"a": [2]} and watched.num_tokens == 2
    assert seen[0]["a"].token_ids == [5, 6] and seen[1] == {}
