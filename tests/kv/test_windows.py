"""A ring of W tokens is attention over everything with a mask of width W."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.windows import SlidingWindowKVCache, local_global  # noqa: E402
from tests.kv.lossy_caches import CAPACITY, DIM, KV_HEADS, LAYERS, random_qkv, rope, run_pass  # noqa: E402


def masked(q, k, v, window: int):
    """Attention with all scores, those outside the window at -inf: q [tokens, heads, d], k, v [tokens, kv heads, d]."""
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for one in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[2] ** 0.5
    age = torch.arange(len(q))[:, None] - torch.arange(len(q))
    scores[:, (age < 0) | (age >= window)] = -torch.inf
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v)


@settings(max_examples=50)
@given(
    windows=st.lists(st.none() | st.integers(1, 30), min_size=LAYERS, max_size=LAYERS),
    cuts=st.lists(st.integers(1, 9), max_size=8),
    seed=st.integers(0, 99),
)
def test_a_window_is_a_mask(windows, cuts, seed):
    cache = SlidingWindowKVCache(windows, KV_HEADS, DIM, slots=1, capacity=CAPACITY)
    sequence, found = random_qkv(CAPACITY, seed), []
    for count in [*cuts, CAPACITY]:
        count = min(count, CAPACITY - cache.lengths[0])
        if count:
            found.append(run_pass(cache, [(0, count)], {0: sequence}))
    found, positions = torch.cat(found, dim=1), torch.arange(CAPACITY)
    for layer, window in enumerate(windows):
        q, k, v = sequence[layer]
        expected = masked(rope(q, positions), rope(k, positions), v, window or CAPACITY)
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(windows=st.lists(st.none() | st.integers(1, 30), min_size=1, max_size=4), capacity=st.integers(1, 30))
def test_reserved_bytes_are_the_formula_of_each_layer(windows, capacity):
    cache = SlidingWindowKVCache(windows, KV_HEADS, DIM, slots=2, capacity=capacity)
    kappa = formula["kv.bytes_per_token"](n_layers=1, n_kv=KV_HEADS, d_h=DIM, b_kv=4)
    expected = sum(
        formula["kv.window_bytes"](B=2, kappa=kappa, L=capacity, W=capacity if window is None else window)
        for window in windows
    )
    assert cache.nbytes == expected


def test_a_hybrid_reserves_what_its_formula_says():
    windows = local_global(12, 5, n_local=5)
    cache = SlidingWindowKVCache(windows, KV_HEADS, DIM, slots=3, capacity=20)
    assert windows.count(None) == 2
    assert cache.nbytes == formula["kv.hybrid_bytes"](
        n_global=2, n_local=10, n_kv=KV_HEADS, d_h=DIM, b_kv=4, B=3, L=20, W=5
    )


def test_the_pattern_ends_each_group_with_a_global_layer():
    assert local_global(7, 64, n_local=5) == [64, 64, 64, 64, 64, None, 64]
    assert local_global(3, 8, n_local=0) == [None, None, None]


def test_what_lies_outside_every_window_is_forgotten_and_what_lies_inside_is_not():
    """Two texts that differ in one token give the same answer from exactly W tokens after it on, in one layer."""
    window, changed = 5, 3
    sequence = random_qkv(CAPACITY, seed=0)
    other = [tuple(one.clone() for one in layer) for layer in sequence]
    for layer in other:
        for one in layer:
            one[changed] += 1
    found = []
    for text in (sequence, other):
        cache = SlidingWindowKVCache([window] * LAYERS, KV_HEADS, DIM, slots=1, capacity=CAPACITY)
        found.append(run_pass(cache, [(0, CAPACITY)], {0: text})[0])
    differs = [token for token in range(CAPACITY) if not torch.equal(found[0][token], found[1][token])]
    assert differs == list(range(changed, changed + window))


def test_a_window_without_tokens_is_refused():
    with pytest.raises(InputError, match="a window of 0 tokens; it holds at least the newest one"):
        SlidingWindowKVCache([4, 0], KV_HEADS, DIM, slots=1, capacity=9)
