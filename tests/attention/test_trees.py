"""Draft trees: a node attends to what is known and to its own branch, in every backend, under every window."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.attention.reference import ReferenceAttention  # noqa: E402
from labcore.attention.tree import node_mask  # noqa: E402
from labcore.core.draft import Branch, branches  # noqa: E402
from tests.attention.test_conformance import BACKENDS, CompiledAttention, step  # noqa: E402


@st.composite
def rows(draw):
    """Rows (new tokens, length with them, parents of the drafts among the new or None for a plain row)."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        parents = [draw(st.integers(-1, node - 1)) for node in range(draw(st.integers(0, 12)))]
        new = len(parents) + draw(st.integers(1, 4))
        found.append((new, new + draw(st.integers(0, 20)), parents or None))
    return found


def with_trees(rows, **options):
    """`step` with branches for the rows that have a tree."""
    shape, metadata, *tensors = step([row[:2] for row in rows], **options)
    found, end = {}, 0
    for new, length, parents in rows:
        end += new
        if parents:
            known, first = length - len(parents), end - len(parents)
            for node, branch in enumerate(branches(parents)):
                found[first + node] = Branch(known, tuple(known + ancestor for ancestor in branch))
    return shape, replace(metadata, branches=found), *tensors


def by_definition(shape, metadata, q, key_cache, value_cache, rows):
    """Every row alone with a dense mask: who may see whom, straight from the parents."""
    out = torch.empty_like(q)
    starts, group = metadata.query_start_loc.tolist(), q.shape[1] // shape.n_kv_heads
    for i, (new, length, parents) in enumerate(rows):
        parents = parents or []
        known = length - len(parents)
        depth, sees = list(range(known)), [set(range(place + 1)) for place in range(known)]
        for node, parent in enumerate(parents):
            above = known - 1 if parent < 0 else known + parent
            depth.append(depth[above] + 1)
            sees.append(sees[above] | {known + node})
        oldest = [0 if shape.window is None else position - shape.window + 1 for position in depth]
        keys, values = (
            cache[metadata.block_table[i].long()].flatten(0, 1)[:length] for cache in (key_cache, value_cache)
        )
        for token in range(length - new, length):
            visible = sorted(place for place in sees[token] if depth[place] >= oldest[token])
            k, v = (part[visible].repeat_interleave(group, 1) for part in (keys, values))
            query = starts[i] + token - (length - new)
            weights = (torch.einsum("hd,thd->ht", q[query], k) * shape.scale).softmax(-1)
            out[query] = torch.einsum("ht,thd->hd", weights, v)
    return out


@settings(max_examples=80, deadline=None)
@given(rows=rows(), size=st.sampled_from([1, 3, 16]), window=st.sampled_from([None, None, 1, 3, 7]))
@example(rows=[(7, 12, [-1, -1, 0, 0, 1, 4])], size=4, window=3)
def test_the_reference_is_the_definition(rows, size, window):
    shape, metadata, *tensors = with_trees(rows, block_size=size, window=window)
    expected = by_definition(shape, metadata, *tensors, rows)
    torch.testing.assert_close(ReferenceAttention(metadata, shape)(*tensors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    rows=rows(),
    size=st.sampled_from([1, 4, 16]),
    heads=st.sampled_from([(4, 4), (6, 2), (5, 1)]),
    window=st.sampled_from([None, None, 1, 3, 8]),
)
@example(rows=[(13, 13, [-1] * 12), (1, 9, None)], size=4, heads=(6, 2), window=None)
def test_every_backend_is_the_reference(backend, rows, size, heads, window):
    window = None if backend is CompiledAttention else window
    options = {"block_size": size, "n_heads": heads[0], "n_kv_heads": heads[1], "window": window}
    shape, metadata, *tensors = with_trees(rows, **options)
    expected = ReferenceAttention(metadata, shape)(*tensors)
    assert not expected.isnan().any()
    torch.testing.assert_close(backend(metadata, shape)(*tensors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", [ReferenceAttention, *BACKENDS])
def test_a_sibling_is_not_seen(backend):
    """The checks above would pass if nobody looked at branches; a node that changes must change nobody's output but
    that of its own branch."""
    shape, metadata, q, keys, values = with_trees([(5, 9, [-1, -1, 1, 0])])
    attend = backend(metadata, shape)
    before = attend(q, keys, values).clone()
    for cache in (keys, values):
        cache.flatten(0, 1)[metadata.slot_mapping[1]] += 10
    changed = (attend(q, keys, values) - before).abs().flatten(1).amax(1) > 1e-3
    assert changed.tolist() == [False, True, False, False, True]


def test_a_chain_as_a_tree_is_the_chain():
    shape, metadata, *tensors = with_trees([(6, 11, [-1, 0, 1, 2])])
    plain = ReferenceAttention(replace(metadata, branches={}), shape)(*tensors)
    assert torch.equal(ReferenceAttention(metadata, shape)(*tensors), plain)


def test_the_mask_of_a_small_tree():
    shape, _, *_ = step([(1, 1)])
    nodes = [Branch(2, (2,)), Branch(2, (3,)), Branch(2, (2, 4))]
    assert node_mask(nodes, 0, 5, shape).int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 0, 1]]
