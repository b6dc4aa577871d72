"""The contiguous cache: attention through it equals attention written out, however the tokens arrive."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kv.contiguous import ContiguousKVCache, causal_attention  # noqa: E402

HEADS, KV_HEADS, DIM, LAYERS = 6, 2, 8, 2


def by_definition(q, keys, values):
    """softmax(q·k/√d)·v of each query over the keys up to its own: q [n, heads, d], keys, values [t, kv heads, d]."""
    n, tokens, group = q.shape[0], keys.shape[0], q.shape[1] // keys.shape[1]
    out = torch.empty_like(q)
    for i in range(n):
        visible = tokens - n + i + 1
        for head in range(q.shape[1]):
            k, v = keys[:visible, head // group], values[:visible, head // group]
            out[i, head] = (k @ q[i, head] / math.sqrt(q.shape[2])).softmax(0) @ v
    return out


def random_qkv(tokens: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(tokens, HEADS, DIM, generator=generator)
    k, v = (torch.randn(tokens, KV_HEADS, DIM, generator=generator) for _ in range(2))
    return q, k, v


def new_cache(slots: int = 3, capacity: int = 12) -> ContiguousKVCache:
    return ContiguousKVCache(LAYERS, KV_HEADS, DIM, slots=slots, capacity=capacity)


@pytest.mark.parametrize(("new", "tokens"), [(1, 1), (1, 7), (5, 5), (3, 7)])
def test_causal_attention_is_its_definition(new, tokens):
    q, k, v = random_qkv(tokens, seed=new)
    found = causal_attention(q[-new:], k.transpose(0, 1), v.transpose(0, 1))
    torch.testing.assert_close(found, by_definition(q[-new:], k, v), rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    passes=st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 4), min_size=1), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 1000),
)
def test_any_interleaving_of_sequences_attends_as_each_would_alone(passes, order, seed):
    cache, capacity = new_cache(), 12
    sequences = [random_qkv(capacity, seed + slot) for slot in range(3)]
    done = [0, 0, 0]
    for step in passes:
        plan = [(slot, min(count, capacity - done[slot])) for slot, count in step.items() if done[slot] < capacity]
        order.shuffle(plan)
        if not plan:
            continue
        attend = cache.extend(plan)
        parts = [slice(done[slot], done[slot] + count) for slot, count in plan]
        q, k, v = (
            torch.cat([sequences[slot][i][part] for (slot, _), part in zip(plan, parts, strict=True)]) for i in range(3)
        )
        expected = [
            by_definition(sequences[slot][0][part], sequences[slot][1][: part.stop], sequences[slot][2][: part.stop])
            for (slot, _), part in zip(plan, parts, strict=True)
        ]
        for layer in range(LAYERS):
            torch.testing.assert_close(attend(layer, q, k, v), torch.cat(expected), rtol=1e-5, atol=1e-6)
        assert attend.positions.tolist() == [i for part in parts for i in range(part.start, part.stop)]
        ends = [sum(count for _, count in plan[: i + 1]) - 1 for i in range(len(plan))]
        assert attend.last.tolist() == ends
        for slot, count in plan:
            done[slot] += count
        assert cache.lengths == done


def test_layers_do_not_share_storage():
    cache = new_cache()
    q, k, v = random_qkv(2, seed=0)
    attend = cache.extend([(0, 2)])
    attend(0, q, k, v)
    attend(1, q, -k, -v)
    torch.testing.assert_close(cache.keys[0, 0, :, :2], k.transpose(0, 1))
    torch.testing.assert_close(cache.keys[1, 0, :, :2], -k.transpose(0, 1))


def test_truncate_forgets_and_the_slot_is_filled_anew():
    cache = new_cache()
    q, k, v = random_qkv(8, seed=0)
    cache.extend([(1, 5)])(0, q[:5], k[:5], v[:5])
    cache.truncate(1, 2)
    attend = cache.extend([(1, 3)])
    assert attend.positions.tolist() == [2, 3, 4]
    found = attend(0, q[5:], k[5:], v[5:])
    kept = [0, 1, 5, 6, 7]
    torch.testing.assert_close(found, by_definition(q[5:], k[kept], v[kept]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("plan", [[(0, 13)], [(0, 0)], [(0, 1), (0, 1)], [(1, 2), (0, 13)]])
def test_an_impossible_pass_is_refused_and_reserves_nothing(plan):
    cache = new_cache()
    with pytest.raises(InputError, match=r"slot 0: .* a slot holds 12"):
        cache.extend(plan)
    assert cache.lengths == [0, 0, 0]


def test_truncating_to_more_than_is_there_is_refused():
    with pytest.raises(InputError, match="slot 0 holds 0 tokens; cannot truncate it to 1"):
        new_cache().truncate(0, 1)


def test_reserved_bytes_are_the_formula():
    assert new_cache().nbytes == 2 * LAYERS * 3 * KV_HEADS * 12 * DIM * 4
