"""The walks through the tiles compute attention, and the bytes they count are those of the formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.formulas import formula
from labcore.learn.player import Player
from labcore.learn.tiles import (
    SlowMemory,
    State,
    combine,
    keys_outer,
    queries_outer,
    split_keys,
    standard,
    tile_trace,
    tree_mask,
    visible_share,
)


def inputs(T, L, d=16, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((n, d)).astype(dtype) for name, n in (("q", T), ("k", L), ("v", L))}


def exact(q, k, v, causal=False):
    """softmax(QKᵀ/√d)V in float64, 0 for a query that sees nothing."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ k.T / np.sqrt(q.shape[1])
    if causal:
        scores[~np.tri(len(q), len(k), len(k) - len(q), dtype=bool)] = -np.inf
    weights = np.exp(scores - np.maximum(scores.max(axis=1, keepdims=True), -1e300))
    total = weights.sum(axis=1, keepdims=True)
    return weights @ v / np.where(total > 0, total, 1)


SIZES = [(1, 1), (1, 40), (40, 1), (33, 65), (64, 64), (17, 100)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("T, L", SIZES)
def test_every_walk_is_attention(T, L, causal):
    given_ = inputs(T, L)
    wanted = exact(**given_, causal=causal)
    walks = [lambda m: standard(m, causal=causal)]
    walks += [
        lambda m, r=r, c=c: queries_outer(m, r, c, causal=causal) for r, c in ((1, 1), (16, 16), (7, 13), (99, 8))
    ]
    walks += [] if causal else [lambda m: keys_outer(m, 16, 8), lambda m: keys_outer(m, 5, 99)]
    for walk in walks:
        np.testing.assert_allclose(walk(SlowMemory(**given_)), wanted, atol=2e-6)


def test_the_stored_lse_is_the_log_of_the_sum_of_exponentials():
    given_ = inputs(9, 30)
    memory = SlowMemory(**given_)
    queries_outer(memory, 4, 8)
    scores = given_["q"].astype(np.float64) @ given_["k"].T / 4
    np.testing.assert_allclose(memory.matrices["lse"], np.log(np.exp(scores).sum(axis=1)), atol=1e-5)


def test_a_query_that_sees_nothing_answers_zero_with_lse_minus_infinity():
    memory = SlowMemory(**inputs(5, 2))
    out = queries_outer(memory, 2, 2, causal=True)
    assert not out[:3].any() and np.isneginf(memory.matrices["lse"][:3]).all()
    assert out[3:].any() and np.isfinite(memory.matrices["lse"][3:]).all()


@pytest.mark.parametrize("dtype, b_act", [(np.float16, 2), (np.float32, 4)])
@pytest.mark.parametrize("T, L", SIZES)
def test_bytes_are_those_of_the_formulas(T, L, dtype, b_act):
    moved = {}
    for name, walk in {
        "standard": standard,
        "tiled": lambda m: queries_outer(m, 16, 8),
        "keys_outer": lambda m: keys_outer(m, 16, 8),
    }.items():
        memory = SlowMemory(**inputs(T, L, dtype=dtype))
        walk(memory)
        moved[name] = memory.read + memory.written
    sizes = {"T": T, "L": L, "d_h": 16, "b_act": b_act}
    assert moved["standard"] == formula["attention.standard_io"](**sizes)
    assert moved["tiled"] == formula["attention.tiled_io"](**sizes, B_r=16, b_acc=4)
    assert moved["keys_outer"] == formula["attention.keys_outer_io"](**sizes, B_c=8, b_acc=4)


@pytest.mark.parametrize("rows", [4, 16, 64])
def test_causal_bytes_are_those_of_the_formula(rows):
    memory = SlowMemory(**inputs(64, 64, dtype=np.float16))
    queries_outer(memory, rows, rows, causal=True)
    wanted = formula["attention.tiled_io_causal"](L=64, d_h=16, B_r=rows, b_act=2, b_acc=4)
    assert memory.read + memory.written == wanted


def state(draw_seed, queries, keys):
    rng = np.random.default_rng(draw_seed)
    scores = rng.standard_normal((queries, keys)) * 30
    scores[rng.random((queries, keys)) < 0.3] = -np.inf
    return State.of(scores, rng.standard_normal((keys, 3)))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_merging_is_associative_commutative_and_has_an_identity(seed, keys):
    a, b, c = (state(seed + i, 4, n) for i, n in enumerate(keys))
    empty = State.empty(4, 3, np.float64)
    pairs = [
        (a.merge(b).merge(c), a.merge(b.merge(c))),
        (a.merge(b), b.merge(a)),
        (empty.merge(a), a),
        (a.merge(empty), a),
    ]
    for one, other in pairs:
        for field in "mlo":
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-12, atol=1e-12)
        assert not np.isnan(one.output()).any() and not np.isnan(one.lse()).any()


@pytest.mark.parametrize("splits", [1, 2, 3, 7, 50])
def test_splits_combine_to_the_whole(splits):
    given_ = {name: x.astype(np.float64) for name, x in inputs(3, 50).items()}
    whole = combine(split_keys(**given_, splits=splits))
    np.testing.assert_allclose(whole.output(), exact(**given_), atol=1e-12)


@pytest.mark.parametrize("splits", [0, -3])
def test_no_splits_are_refused(splits):
    with pytest.raises(InputError, match=f"splits={splits}: .* give 1 or more"):
        split_keys(**inputs(3, 50), splits=splits)


def test_the_trace_ends_at_the_formula_and_says_what_was_skipped():
    given_ = inputs(24, 24, 8, np.float16)
    trace = tile_trace(**given_, rows=4, columns=4, causal=True, title="causal", source="this test")
    last = trace["steps"][-1]["counters"]
    wanted = formula["attention.tiled_io_causal"](L=24, d_h=8, B_r=4, b_act=2, b_acc=4)
    assert last["read"] + last["written"] == wanted
    assert (last["computed"], last["skipped"]) == (21, 15) and len(trace["steps"]) == 36
    assert "skipped: masked" in Player(trace).html()


@pytest.mark.parametrize("rows", [0, -4])
def test_tiles_of_no_rows_are_refused(rows):
    with pytest.raises(InputError, match=f"tiles of {rows} rows; give 1 or more"):
        queries_outer(SlowMemory(**inputs(4, 4)), rows, 4)


def test_matrices_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"need \[T, d\], \[L, d\], \[L, d\]"):
        SlowMemory(q=np.zeros((2, 4)), k=np.zeros((3, 5)), v=np.zeros((3, 5)))


def test_a_draft_sees_its_own_branch():
    mask = tree_mask(3, 2)  # preorder: root 0; 1 with 2, 3; 4 with 5, 6; a padding row 7
    wanted = {0: {0}, 1: {0, 1}, 2: {0, 1, 2}, 3: {0, 1, 3}, 4: {0, 4}, 5: {0, 4, 5}, 6: {0, 4, 6}, 7: {7}}
    assert mask.shape == (8, 10) and mask[:, :2].all()
    assert {node: set(np.flatnonzero(mask[node, 2:])) for node in range(8)} == wanted


def test_shares_of_tiles():
    share = visible_share(np.tri(4, 6, dtype=bool), 2)
    np.testing.assert_array_equal(share, [[0.75, 0, 0], [1, 0.75, 0]])
