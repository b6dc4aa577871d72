"""What every lossy cache owes: the exact answer while it has room, and the same answer in whatever company."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kv.lossy import masked_attention  # noqa: E402
from tests.kv.lossy_caches import (  # noqa: E402
    CAPACITY,
    LARGE,
    LAYERS,
    SMALL,
    attention,
    decode,
    exact,
    random_qkv,
    run_pass,
)

close = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("kind", LARGE)
def test_a_cache_with_room_for_everything_is_exact(kind):
    sequence = random_qkv(CAPACITY, seed=3)
    cache = LARGE[kind](slots=1, capacity=CAPACITY)
    torch.testing.assert_close(decode(cache, sequence), decode(exact(), sequence), **close)


@pytest.mark.parametrize("kind", SMALL)
def test_a_cache_that_is_too_small_is_not(kind):
    sequence = random_qkv(CAPACITY, seed=3)
    cache = SMALL[kind](slots=1, capacity=CAPACITY)
    assert not torch.allclose(decode(cache, sequence), decode(exact(), sequence), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", SMALL)
@settings(max_examples=6)
@given(
    passes=st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 7), min_size=1), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 99),
)
def test_neither_batch_mates_nor_the_cut_into_passes_change_a_result(kind, passes, order, seed):
    sequences = {slot: random_qkv(CAPACITY, seed + slot) for slot in range(3)}
    alone = [decode(SMALL[kind](slots=1, capacity=CAPACITY), sequences[slot], 0) for slot in range(3)]
    cache = SMALL[kind](slots=3, capacity=CAPACITY)
    for step in passes:
        done = list(cache.lengths)
        plan = [(slot, min(count, CAPACITY - done[slot])) for slot, count in step.items() if done[slot] < CAPACITY]
        if not plan:
            continue
        order.shuffle(plan)
        found = run_pass(cache, plan, sequences)
        expected = torch.cat([alone[slot][:, done[slot] : done[slot] + count] for slot, count in plan], dim=1)
        torch.testing.assert_close(found, expected, **close)


@pytest.mark.parametrize("kind", SMALL)
def test_an_emptied_slot_decodes_as_a_new_one_and_its_neighbour_does_not_notice(kind):
    first, second = random_qkv(CAPACITY, seed=1), random_qkv(CAPACITY, seed=2)
    expected = decode(SMALL[kind](slots=1, capacity=CAPACITY), second)
    cache = SMALL[kind](slots=2, capacity=CAPACITY)
    decode(cache, first, slot=0)
    begun = run_pass(cache, [(1, 9)], {1: second})
    cache.truncate(0, 0)
    torch.testing.assert_close(decode(cache, second, slot=0), expected, **close)
    rest = run_pass(cache, [(1, CAPACITY - 9)], {1: second})
    torch.testing.assert_close(torch.cat((begun, rest), dim=1), expected, **close)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("seen", [4, 12])
def test_a_truncated_slot_goes_on_as_if_it_had_never_seen_more_or_refuses(kind, seen):
    sequence, other = random_qkv(CAPACITY, seed=1), random_qkv(CAPACITY, seed=2)
    allowed = []
    for length in range(seen + 1):
        cache = SMALL[kind](slots=1, capacity=CAPACITY)
        run_pass(cache, [(0, seen)], {0: [tuple(one[:seen] for one in layer) for layer in sequence]})
        joined = [
            tuple(torch.cat((a[:length], b[length:])) for a, b in zip(sequence[layer], other[layer], strict=True))
            for layer in range(LAYERS)
        ]
        try:
            cache.truncate(0, length)
        except InputError as refused:
            assert f"the {seen} tokens it has seen cannot be truncated to {length}" in str(refused)
            continue
        allowed.append(length)
        if length == seen:
            joined = [
                tuple(torch.cat((a[:seen], b[seen:])) for a, b in zip(x, y, strict=True))
                for x, y in zip(sequence, other, strict=True)
            ]
        found = run_pass(cache, [(0, CAPACITY - length)], {0: joined})
        expected = decode(SMALL[kind](slots=1, capacity=CAPACITY), joined)[:, length:]
        torch.testing.assert_close(found, expected, **close)
    assert {0, seen} <= set(allowed)


@pytest.mark.parametrize("kind", SMALL)
def test_truncating_to_more_than_was_seen_is_refused(kind):
    cache = SMALL[kind](slots=1, capacity=CAPACITY)
    run_pass(cache, [(0, 2)], {0: random_qkv(2, seed=0)})
    with pytest.raises(InputError):
        cache.truncate(0, 3)
    assert cache.lengths == [2]


@pytest.mark.parametrize("kind", SMALL)
def test_an_impossible_pass_or_size_is_refused(kind):
    cache = SMALL[kind](slots=2, capacity=CAPACITY)
    with pytest.raises(InputError, match=f"slot 1: 25 new tokens after 0; .* a slot holds {CAPACITY}"):
        cache.extend([(0, 1), (1, 25)])
    assert cache.lengths == [0, 0]
    with pytest.raises(InputError, match="slots=0, capacity=24: a cache needs 1 or more of each"):
        SMALL[kind](slots=0, capacity=CAPACITY)


def test_masked_attention_is_its_definition():
    (q, k, v), _ = random_qkv(6, seed=5)
    visible = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    visible[:, 2] = True
    expected = torch.stack([attention(q[i], k[visible[i]], v[visible[i]]) for i in range(6)])
    torch.testing.assert_close(masked_attention(q, k.transpose(0, 1), v.transpose(0, 1), visible), expected, **close)
