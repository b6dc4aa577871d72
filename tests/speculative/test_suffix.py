"""The suffix trie and its draft trees against counts written out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble
from labcore.speculative.proposer import SpeculationRow, SpeculationStep
from labcore.speculative.suffix import NOTHING, SuffixProposer, SuffixTrie, grow
from tests.speculative.serving import MODEL, greedy

TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=14), min_size=1, max_size=4)


def paths(node, before=()):
    """Every path of a trie and its count."""
    for token, child in node.children.items():
        yield (*before, token), child.count
        yield from paths(child, (*before, token))


def counted(texts, depth, capacity):
    """How often each run occurs that begins with one of the latest `capacity` tokens."""
    total = sum(map(len, texts))
    counts, place = {}, 0
    for text in texts:
        for start in range(len(text)):
            place += 1
            if place <= total - capacity:
                continue
            for end in range(start + 1, min(start + depth, len(text)) + 1):
                run = tuple(text[start:end])
                counts[run] = counts.get(run, 0) + 1
    return counts


@settings(deadline=None)
@given(texts=TEXTS, depth=st.integers(2, 5), spare=st.integers(0, 40), pieces=st.integers(1, 4))
def test_a_trie_counts_every_run_and_forgets_the_oldest(texts, depth, spare, pieces):
    trie = SuffixTrie(depth, depth + spare)
    for tokens in texts:
        text = trie.new_text()
        for begin in range(0, len(tokens), pieces):
            trie.extend(text, tokens[begin : begin + pieces])
    assert dict(paths(trie.roots[""])) == counted(texts, depth, depth + spare)
    assert trie.num_tokens == min(sum(map(len, texts)), depth + spare)


@settings(deadline=None)
@given(texts=TEXTS, salts=st.lists(st.sampled_from("ab"), min_size=4, max_size=4), spare=st.integers(0, 20))
def test_texts_of_different_salts_share_the_capacity_and_nothing_else(texts, salts, spare):
    trie = SuffixTrie(3, 3 + spare)
    for tokens, salt in zip(texts, salts, strict=False):
        trie.extend(trie.new_text(salt), tokens)
    latest, room = {"a": [], "b": []}, 3 + spare
    for tokens, salt in reversed(list(zip(texts, salts, strict=False))):
        latest[salt].insert(0, tokens[max(0, len(tokens) - room) :])
        room = max(0, room - len(tokens))
    for salt, own in latest.items():
        found = dict(paths(trie.roots[salt])) if salt in trie.roots else {}
        assert found == counted(own, 3, 3 + spare)
        assert found or trie.longest([0, 1, 2], salt) == (NOTHING, 0)


@given(texts=TEXTS, depth=st.integers(2, 5), query=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_the_longest_continued_suffix(texts, depth, query):
    trie = SuffixTrie(depth, 1000)
    for tokens in texts:
        trie.extend(trie.new_text(), tokens)
    counts = counted(texts, depth, 1000)
    continued = [
        length
        for length in range(1, min(depth - 1, len(query)) + 1)
        if any(run[:-1] == tuple(query[-length:]) for run in counts if len(run) == length + 1)
    ]
    node, length = trie.longest(query)
    assert length == max(continued, default=0)
    if length:
        assert {token: child.count for token, child in node.children.items()} == {
            run[-1]: count for run, count in counts.items() if run[:-1] == tuple(query[-length:])
        }


@given(texts=TEXTS, most=st.integers(1, 8), least=st.sampled_from([0.01, 0.2, 0.5, 1.0]))
def test_a_tree_holds_the_likeliest_continuations(texts, most, least):
    """Every continuation's probability from the counts; the tree is the `most` likeliest that reach `least`."""
    trie = SuffixTrie(5, 1000)
    for tokens in texts:
        trie.extend(trie.new_text(), tokens)
    probability = {(): 1.0}
    for run, count in sorted(counted(texts, 5, 1000).items(), key=lambda item: len(item[0])):
        siblings = sum(c for other, c in counted(texts, 5, 1000).items() if other[:-1] == run[:-1])
        siblings = siblings if len(run) > 1 else sum(map(len, texts))
        probability[run] = probability[run[:-1]] * count / siblings
    del probability[()]
    draft, score = grow(trie.roots[""], most, least)
    found = []
    for token, parent in zip(draft.token_ids, draft.parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    assert len(set(found)) == len(found)
    expected = sorted((p for p in probability.values() if p >= least), reverse=True)[:most]
    assert sorted((probability[path] for path in found), reverse=True) == pytest.approx(expected)
    assert score == pytest.approx(sum(expected))


def test_without_branches_the_likeliest_path():
    trie = SuffixTrie(4, 100)
    trie.extend(trie.new_text(), [1, 2, 3, 1, 2, 4, 1, 2, 3])
    node, length = trie.longest([9, 1, 2])
    assert length == 2
    draft, score = grow(node, 3, 0.01, branches=False)
    assert draft.token_ids == [3, 1] and draft.parents is None and score == pytest.approx(2 / 3 + 2 / 3)


def step(*rows):
    return SpeculationStep(
        [SpeculationRow(name, tokens, 2, SamplingParams(), 0, 1, [0], [1], [0], room) for name, tokens, room in rows],
        None,
    )


def test_a_request_is_drafted_from_its_own_text_or_from_finished_answers():
    proposer = SuffixProposer(num_tokens=4)
    assert proposer.propose(step(("a", [1, 2, 3, 4, 5, 6], 4))) == {}
    assert proposer.propose(step(("b", [8, 9, 3, 4], 4))) == {}
    proposer.forget(["a"])
    assert proposer.propose(step(("b", [8, 9, 3, 4], 4)))["b"].token_ids == [5, 6]
    assert proposer.propose(step(("b", [8, 9, 3, 4], 0))) == {}
    assert proposer.propose(step(("c", [7, 8, 9, 7, 8], 4)))["c"].token_ids == [9, 7]


def test_finished_answers_serve_requests_of_the_same_salt_only():
    proposer = SuffixProposer(num_tokens=4)
    one = step(("a", [1, 2, 3, 4, 5, 6], 4))
    one.rows[0].cache_salt = "tenant 1"
    assert proposer.propose(one) == {}
    proposer.forget(["a"])
    for salt, expected in (("", None), ("tenant 2", None), ("tenant 1", [5, 6])):
        other = step((f"b{salt}", [8, 9, 3, 4], 4))
        other.rows[0].cache_salt = salt
        draft = proposer.propose(other).get(f"b{salt}")
        assert (draft and draft.token_ids) == expected


def test_the_engine_tells_a_proposer_the_salt():
    core = assemble(MODEL, speculative={"method": "suffix"})
    for salt in ("tenant 1", "tenant 2"):
        core.add_request(Request(salt, [1, 2, 3], greedy(6), cache_salt=salt))
    while core.has_unfinished_requests():
        core.step()
    core.step()  # tells what finished
    assert set(core.runner.proposer.shared.roots) == {"tenant 1", "tenant 2"}


def test_what_is_forgotten_leaves_nothing_behind():
    proposer = SuffixProposer(shared_capacity=0)
    proposer.propose(step(("a", [1, 2, 3, 4], 4)))
    proposer.forget(["a", "unknown"])
    assert proposer.own == {} and proposer.shared is None


@pytest.mark.parametrize("options", [{"factor": 0}, {"min_probability": 0.0}, {"depth": 1}, {"capacity": 3}])
def test_options_that_make_no_sense(options):
    with pytest.raises(InputError, match=next(iter(options))):
        proposer = SuffixProposer(**options)
        proposer.propose(step(("a", [1, 2, 3, 4], 4)))


def test_requests_without_an_answer_leave_nothing():
    proposer = SuffixProposer()
    for name in "abc":
        row = SpeculationRow(name, [1, 2, 3], 3, SamplingParams(), 0, 3, [0, 1, 2], [1], [], 0)
        proposer.propose(SpeculationStep([row], None))
        proposer.forget([name])
    assert not proposer.shared.texts and not proposer.own
