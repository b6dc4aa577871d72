"""Stamps against a model that keeps whole prefixes."""

import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.draft import branches
from labcore.core.step_plan import BlockMove, Move
from labcore.speculative.lookahead import trie
from labcore.speculative.stamps import ROOT, Stamps, extend

BLOCKS, HOST, SIZE = 5, 3, 2
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)
TABLES = st.permutations(range(1, BLOCKS))
WRITES = st.tuples(st.just("write"), TOKENS, TABLES, st.integers(0, 7))
MOVES = st.one_of(
    st.tuples(st.just(Move.COPY), st.integers(1, BLOCKS - 1), st.integers(1, BLOCKS - 1)),
    st.tuples(st.just(Move.SWAP_OUT), st.integers(1, BLOCKS - 1), st.integers(0, HOST - 1)),
    st.tuples(st.just(Move.SWAP_IN), st.integers(0, HOST - 1), st.integers(1, BLOCKS - 1)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(WRITES, MOVES), max_size=12), TOKENS, TABLES)
def test_the_first_wrong_slot_is_found(events, tokens, table):
    stamps = Stamps(BLOCKS, HOST, SIZE)
    held = {False: [()] * (BLOCKS * SIZE), True: [()] * (HOST * SIZE)}  # on the host?
    for kind, *event in events:
        if kind == "write":
            written, places, start = event
            start = min(start, len(written) - 1)
            prefix = ROOT
            for token in written[:start]:
                prefix = extend(prefix, token)
            slots = [places[p // SIZE] * SIZE + p % SIZE for p in range(start, len(written))]
            stamps.write(prefix, written[start:], slots)
            for p, slot in zip(range(start, len(written)), slots, strict=True):
                held[False][slot] = tuple(written[: p + 1])
        else:
            source, target = event
            stamps.move([BlockMove(kind, source, target)])
            reads, writes = held[kind is Move.SWAP_IN], held[kind is Move.SWAP_OUT]
            writes[target * SIZE : (target + 1) * SIZE] = reads[source * SIZE : (source + 1) * SIZE]
    slots = [table[p // SIZE] * SIZE + p % SIZE for p in range(len(tokens))]
    right = [held[False][slot] == tuple(tokens[: p + 1]) for p, slot in enumerate(slots)]
    expected = right.index(False) if False in right else len(tokens)
    assert stamps.lag("r", tokens, table, len(tokens))[0] == expected
    stamps.clear()
    assert stamps.lag("r", tokens, table, len(tokens)) == (0, ROOT)


def test_what_is_right_is_not_looked_at_again_until_the_request_leaves():
    stamps = Stamps(BLOCKS, 0, SIZE)
    stamps.write(ROOT, [7, 8], [2, 3])
    assert stamps.lag("r", [7, 8, 9], [1, 2], 3)[0] == 2
    stamps.device[2] = 0
    assert stamps.lag("r", [7, 8, 9], [1, 2], 3)[0] == 2
    stamps.forget(["r"])
    assert stamps.lag("r", [7, 8, 9], [1, 2], 3)[0] == 0


def test_a_block_that_a_window_forgot_is_as_good_as_right():
    stamps = Stamps(BLOCKS, 0, SIZE)
    assert stamps.lag("r", [7, 8, 9], [0, 2], 3)[0] == 2


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=5))
def test_every_guess_is_a_branch_of_the_trie_once(grams):
    tokens, parents = trie(grams)
    found = [tuple(tokens[node] for node in branch) for branch in branches(parents)]
    assert len(set(found)) == len(found)
    assert set(found) == {gram[:length] for gram in grams for length in range(1, len(gram) + 1)}
