"""Drafts as trees: what a well-formed one is, its depths and branches, and its first nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.draft import Branch, Draft, branches, depths, is_chain
from labcore.core.errors import InputError


@st.composite
def parents(draw):
    return [draw(st.integers(-1, node - 1)) for node in range(draw(st.integers(0, 12)))]


@given(parents())
def test_a_branch_is_the_way_from_the_root(parents):
    for node, (branch, depth) in enumerate(zip(branches(parents), depths(parents), strict=True)):
        way, at = [], node
        while at >= 0:
            way.insert(0, at)
            at = parents[at]
        assert branch == way and depth == len(way) - 1
    assert is_chain(parents) == (depths(parents) == list(range(len(parents))))


@given(parents(), st.integers(0, 14))
def test_the_first_nodes_of_a_draft_are_a_draft(parents, count):
    draft = Draft(list(range(len(parents))), parents)
    first = draft.first(count)
    assert first.token_ids == draft.token_ids[:count] and first.parents == parents[:count]
    assert Draft([1, 2, 3], laws=[[1.0]] * 3).first(2) == Draft([1, 2], laws=[[1.0]] * 2)


def test_a_place_on_a_branch():
    assert [Branch(3, (4, 7)).place(position) for position in range(5)] == [0, 1, 2, 4, 7]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"parents": [-1]}, "1 parents for 2 draft tokens"),
        ({"parents": [-1, 1]}, "draft node 1 has parent 1"),
        ({"parents": [-2, 0]}, "draft node 0 has parent -2"),
        ({"parents": [-1, 0], "laws": [[1.0]] * 2}, "only a chain may be drawn"),
        ({"laws": [[1.0]]}, "1 laws for 2 draft tokens"),
    ],
)
def test_what_is_no_draft(options, text):
    with pytest.raises(InputError, match=text):
        Draft([1, 2], **options)
