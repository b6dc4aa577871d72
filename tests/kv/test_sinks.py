"""Attention sinks: which tokens are held, at which positions, against attention written out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.sinks import AttentionSinkKVCache  # noqa: E402
from tests.kv.lossy_caches import CAPACITY, DIM, KV_HEADS, LAYERS, SHAPE, attention, decode, random_qkv, rope  # noqa: E402


def new_cache(sinks: int, recent: int, slots: int = 1) -> AttentionSinkKVCache:
    size = {"slots": slots, "capacity": CAPACITY}
    return AttentionSinkKVCache(*SHAPE, sinks=sinks, recent=recent, rotate=rope, **size)


@settings(max_examples=100)
@given(sinks=st.integers(0, 6), recent=st.integers(1, 12), seen=st.integers(1, 60))
def test_the_keep_set(sinks, recent, seen):
    cache = new_cache(sinks, recent)
    tokens = cache.held(seen).tolist()
    assert tokens == sorted(set(range(min(sinks, seen))) | set(range(max(0, seen - recent), seen)))
    assert len(tokens) == min(seen, sinks + recent)
    places = cache.index(cache.held(seen)).tolist()
    assert len(set(places)) == len(places) and max(places) < sinks + recent, "two tokens share a place"


@settings(max_examples=6)
@given(sinks=st.integers(0, 4), recent=st.integers(1, 7), seed=st.integers(0, 99))
def test_positions_are_counted_inside_the_cache(sinks, recent, seed):
    sequence = random_qkv(CAPACITY, seed)
    found = decode(new_cache(sinks, recent), sequence)
    for layer in range(LAYERS):
        q, k, v = sequence[layer]
        for token in range(CAPACITY):
            kept = [t for t in range(token + 1) if t < sinks or t > token - recent]
            positions = torch.arange(len(kept))
            expected = attention(rope(q[token : token + 1], positions[-1:])[0], rope(k[kept], positions), v[kept])
            torch.testing.assert_close(found[layer, token], expected, rtol=1e-4, atol=1e-5)


def test_a_position_in_the_text_never_matters_once_the_window_is_full():
    """The same recent tokens behind a longer middle give the same answer: only the cache's own distances count."""
    sinks, recent = 2, 5
    start, middle, end = (random_qkv(n, seed=n) for n in (sinks, 9, recent))
    joined = [
        [tuple(torch.cat(parts) for parts in zip(*layers, strict=True)) for layers in zip(*texts, strict=True)]
        for texts in ((start, middle, end), (start, [tuple(x[:4] for x in layer) for layer in middle], end))
    ]
    long, short = (decode(new_cache(sinks, recent), text)[:, -1] for text in joined)
    torch.testing.assert_close(long, short, rtol=1e-4, atol=1e-5)


def test_the_decoder_is_told_not_to_rotate():
    cache = new_cache(1, 3, slots=2)
    decode(cache, random_qkv(7, seed=0))
    assert cache.extend([(0, 2), (1, 3)]).positions.tolist() == [0] * 5


def test_reserved_bytes_are_the_formula():
    kappa = formula["kv.bytes_per_token"](n_layers=LAYERS, n_kv=KV_HEADS, d_h=DIM, b_kv=4)
    assert new_cache(2, 5, slots=3).nbytes == formula["kv.window_bytes"](B=3, kappa=kappa, L=CAPACITY, W=7)


@pytest.mark.parametrize(("sinks", "recent"), [(-1, 4), (4, 0)])
def test_an_impossible_budget_is_refused(sinks, recent):
    with pytest.raises(InputError, match=f"sinks={sinks}, recent={recent}: need 0 or more sinks"):
        new_cache(sinks, recent)
