"""Layers that share a cache: who reads whose keys, and what that weighs."""

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.cross_layer import SharedKVCache, cla_owners  # noqa: E402
from tests.kv.lossy_caches import CAPACITY, DIM, HEADS, KV_HEADS, exact, random_qkv, run_pass  # noqa: E402


def new_cache(owners, slots: int = 1) -> SharedKVCache:
    return SharedKVCache(owners, KV_HEADS, DIM, slots=slots, capacity=CAPACITY)


def test_groups_of_consecutive_layers():
    assert cla_owners(5, 2) == [0, 0, 2, 2, 4]
    assert cla_owners(4, 1) == [0, 1, 2, 3]


def test_a_sharing_layer_attends_to_its_owners_keys_and_values():
    sequence = random_qkv(7, seed=0)
    given_them = [sequence[0], (sequence[1][0], *sequence[0][1:])]  # the second layer brings the first one's keys
    found = run_pass(new_cache([0, 0]), [(0, 7)], {0: sequence})
    torch.testing.assert_close(found, run_pass(exact(), [(0, 7)], {0: given_them}), rtol=1e-5, atol=1e-6)


def test_what_a_sharing_layer_brings_is_never_read():
    cache, (q, k, v) = new_cache([0, 0]), random_qkv(5, seed=0)[0]
    attend = cache.extend([(0, 5)])
    attend(0, q, k, v)
    unread = torch.full_like(k, torch.nan)
    assert attend(1, q, unread, unread).isfinite().all()


@pytest.mark.parametrize("n_share", [1, 2, 3, 7])
def test_reserved_bytes_are_the_formula(n_share):
    cache = new_cache(cla_owners(7, n_share), slots=2)
    per_token = formula["kv.cla_bytes_per_token"](n_layers=7, n_share=n_share, n_kv=KV_HEADS, d_h=DIM, b_kv=4)
    assert cache.nbytes == formula["kv.bytes"](kappa=per_token, L=CAPACITY, B=2)


@pytest.mark.parametrize(("owners", "layer", "owner"), [([0, 2, 2], 1, 2), ([0, 0, 1], 2, 1), ([-1, 0], 0, -1)])
def test_a_layer_can_only_share_with_an_earlier_owner(owners, layer, owner):
    with pytest.raises(InputError, match=f"layer {layer} shares with {owner}; name an earlier layer, or itself"):
        new_cache(owners)


def test_query_heads_are_not_touched():
    q, k, v = random_qkv(3, seed=1)[0]
    assert new_cache([0, 0]).extend([(0, 3)])(0, q, k, v).shape == (3, HEADS, DIM)
