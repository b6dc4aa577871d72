"""Quest: its bounds bound, its choice is the greatest of them, and what it does not read is the only thing it loses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.sparse import ClairvoyantKVCache, QuestKVCache  # noqa: E402
from tests.kv.lossy_caches import (  # noqa: E402
    CAPACITY,
    DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    SHAPE,
    attention,
    decode,
    random_qkv,
    rope,
)

GROUP = HEADS // KV_HEADS


def new_cache(page_size: int, pages: int, dense_layers: int = 0, capacity: int = CAPACITY) -> QuestKVCache:
    size = {"slots": 1, "capacity": capacity}
    return QuestKVCache(*SHAPE, page_size=page_size, pages=pages, dense_layers=dense_layers, **size)


def by_definition(q, keys, values, page_size: int, pages: int):
    """One query [HEADS, DIM] over keys, values [tokens, KV_HEADS, DIM]: page by page, channel by channel."""
    out, split = torch.empty_like(q), [range(i, min(i + page_size, len(keys))) for i in range(0, len(keys), page_size)]
    for head in range(KV_HEADS):
        mine = slice(head * GROUP, (head + 1) * GROUP)
        bounds = []
        for page in split:
            low, high = keys[page, head].min(0).values, keys[page, head].max(0).values
            bound = torch.maximum(q[mine] * low, q[mine] * high).sum(-1)
            assert (keys[page, head] @ q[mine].T <= bound + 1e-4).all()
            bounds.append(float(bound.sum()))
        best = sorted(range(len(split) - 1), key=lambda i: -bounds[i])[: pages - 1]
        read = [token for i in (*best, len(split) - 1) for token in split[i]]
        out[mine] = attention(q, keys[read], values[read])[mine]
    return out


@settings(max_examples=8)
@given(page_size=st.integers(1, 7), pages=st.integers(1, 4), seed=st.integers(0, 99))
def test_quest_is_its_rule(page_size, pages, seed):
    sequence, positions = random_qkv(CAPACITY, seed), torch.arange(CAPACITY)
    found = decode(new_cache(page_size, pages), sequence)
    for layer, (q, k, v) in enumerate(sequence):
        q, k = rope(q, positions), rope(k, positions)
        for token in range(0, CAPACITY, 3):
            expected = by_definition(q[token], k[: token + 1], v[: token + 1], page_size, pages)
            torch.testing.assert_close(found[layer, token], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=8)
@given(page_size=st.integers(1, 7), pages=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_clairvoyant_reads_the_pages_with_most_attention(page_size, pages, seed):
    sequence, positions, size = random_qkv(CAPACITY, seed), torch.arange(CAPACITY), {"slots": 1, "capacity": CAPACITY}
    cache = ClairvoyantKVCache(*SHAPE, page_size=page_size, pages=pages, dense_layers=0, **size)
    found = decode(cache, sequence)
    for layer, (q, k, v) in enumerate(sequence):
        q, k = rope(q, positions), rope(k, positions)
        for token in range(0, CAPACITY, 3):
            split = list(torch.arange(token + 1).split(page_size))
            for head in range(KV_HEADS):
                mine = slice(head * GROUP, (head + 1) * GROUP)
                weights = (q[token, mine] @ k[: token + 1, head].T * DIM**-0.5).softmax(-1).sum(0)
                best = sorted(range(len(split) - 1), key=lambda i: -float(weights[split[i]].sum()))[: pages - 1]
                read = torch.cat([split[i] for i in (*best, len(split) - 1)])
                expected = attention(q[token], k[read], v[read])[mine]
                torch.testing.assert_close(found[layer, token, mine], expected, rtol=1e-4, atol=1e-5)


def test_the_first_layers_read_everything():
    sequence = random_qkv(CAPACITY, seed=0)
    sparse, half = decode(new_cache(3, 2), sequence), decode(new_cache(3, 2, dense_layers=1), sequence)
    whole = decode(new_cache(3, 2, dense_layers=LAYERS), sequence)
    torch.testing.assert_close(half[0], whole[0])
    torch.testing.assert_close(half[1], sparse[1])
    assert not torch.allclose(whole[1], sparse[1], atol=1e-2)


def test_a_key_that_matters_is_read_however_old_it_is():
    """The answer to a query that means token 1 alone is that token's value, from two of eight pages."""
    cache, (_, k, v) = new_cache(3, 2), random_qkv(CAPACITY, seed=6)[0]
    k[1] = 9 * torch.eye(DIM)[0]
    attend = cache.extend([(0, CAPACITY)])
    q = torch.eye(DIM)[0].expand(CAPACITY, HEADS, DIM) * 99
    expected = v[1].repeat_interleave(GROUP, dim=0)
    torch.testing.assert_close(attend(0, q, k, v)[-1], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("capacity", [24, 25])
def test_it_reserves_the_whole_cache_and_two_vectors_a_page(capacity):
    kappa = formula["kv.bytes_per_token"](n_layers=LAYERS, n_kv=KV_HEADS, d_h=DIM, b_kv=4)
    pages = -(-capacity // 4)
    assert new_cache(4, 2, capacity=capacity).nbytes == kappa * (capacity + pages)


@pytest.mark.parametrize(("page_size", "pages"), [(0, 2), (3, 0)])
def test_an_impossible_choice_is_refused(page_size, pages):
    with pytest.raises(InputError, match=f"page_size={page_size}, pages={pages}: a query reads 1 or more pages"):
        new_cache(page_size, pages)
