"""Prompt lookup against a search written out."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("torch")

from labcore.core.errors import InputError
from labcore.core.sampling_params import SamplingParams
from labcore.speculative.ngram import NgramProposer, lookup
from labcore.speculative.proposer import SpeculationRow, SpeculationStep


def by_definition(text, count, min_n, max_n, latest):
    """Try every length from the longest, every earlier place; copy, token by token, also what was just copied."""
    for n in range(min(max_n, len(text) - 1), min_n - 1, -1):
        places = [i for i in range(len(text) - n) if text[i : i + n] == text[len(text) - n :]]
        if places:
            follows = (places[-1] if latest else places[0]) + n
            copied = list(text)
            for i in range(count):
                copied.append(copied[follows + i])
            return copied[len(text) :]
    return []


@given(
    text=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    count=st.integers(1, 6),
    lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)).map(sorted),
    latest=st.booleans(),
)
@example(text=[1, 2, 3, 1, 2], count=4, lengths=[2, 3], latest=True)
@example(text=[7] * 9, count=5, lengths=[1, 4], latest=True)
def test_lookup_is_the_definition(text, count, lengths, latest):
    assert lookup(text, count, *lengths, latest) == by_definition(text, count, *lengths, latest)


def test_the_longest_suffix_wins_and_among_equals_the_latest_or_the_first():
    text = [1, 2, 3, 8, 2, 3, 9, 1, 2, 3]
    assert lookup(text, 1, 1, 3) == [8]
    assert lookup(text, 1, 1, 2) == [9]
    assert lookup(text, 1, 1, 2, latest=False) == [8]
    assert lookup([1, 2, 3, 4], 3, 1, 3) == []


def row(name, tokens, room):
    return SpeculationRow(name, tokens, 1, SamplingParams(), 0, 1, [0], [1], [0], room)


def test_only_rows_with_room_and_a_match_get_a_draft():
    step = SpeculationStep([row("a", [1, 2, 5, 1, 2], 3), row("b", [1, 2, 5, 1, 2], 0), row("c", [1, 2, 3], 3)], None)
    drafts = NgramProposer(num_tokens=3).propose(step)
    assert {name: draft.token_ids for name, draft in drafts.items()} == {"a": [5, 1, 2]}
    assert drafts["a"].parents is None and drafts["a"].laws is None


@pytest.mark.parametrize("options", [{"min_n": 0}, {"min_n": 3, "max_n": 2}, {"match": "best"}])
def test_options_that_make_no_sense(options):
    with pytest.raises(InputError, match=str(next(iter(options)))):
        NgramProposer(**options)
