"""Low-rank caches: exact when the rank suffices, the best possible below it; and MLA's two forms are one function."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.latent import LatentKVCache, principal_basis  # noqa: E402
from labcore.kv.mla import random_latent_attention  # noqa: E402
from tests.kv.lossy_caches import CAPACITY, DIM, KV_HEADS, LAYERS, decode, exact, full_basis, random_qkv, rope  # noqa: E402

SIZE = 2 * KV_HEADS * DIM


def low_rank(sequence, basis):
    """The sequence with each token's keys and values projected onto the basis of its layer."""
    out = []
    for (q, k, v), columns in zip(sequence, basis, strict=True):
        both = torch.cat((k.flatten(1), v.flatten(1)), dim=1) @ columns @ columns.T
        out.append((q, *(one.unflatten(1, (KV_HEADS, DIM)) for one in both.split(KV_HEADS * DIM, dim=1))))
    return out


@settings(max_examples=8)
@given(rank=st.integers(1, SIZE), seed=st.integers(0, 99))
def test_what_is_attended_to_is_the_projection_onto_the_basis(rank, seed):
    sequence, basis = random_qkv(CAPACITY, seed), full_basis(rank)
    cache = LatentKVCache(basis, KV_HEADS, DIM, rotate=rope, slots=1, capacity=CAPACITY)
    torch.testing.assert_close(
        decode(cache, sequence), decode(exact(), low_rank(sequence, basis)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("rotate", "holds"), [(rope, True), (None, False)])
def test_keys_of_low_rank_keep_it_before_rotation_and_lose_it_after(rotate, holds):
    basis = full_basis(5)
    sequence = low_rank(random_qkv(CAPACITY, seed=1), basis)
    cache = LatentKVCache(basis, KV_HEADS, DIM, rotate=rotate, slots=1, capacity=CAPACITY)
    found, expected = decode(cache, sequence), decode(exact(), sequence)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4) == holds


def test_the_principal_basis_is_the_best_of_its_rank():
    data = torch.randn(LAYERS, 40, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 13)
    covariance = data.transpose(1, 2) @ data
    for rank in (1, 4, 12):
        basis = principal_basis(covariance, rank)
        torch.testing.assert_close(
            basis.transpose(1, 2) @ basis, torch.eye(rank).expand(LAYERS, -1, -1), atol=1e-5, rtol=0
        )
        lost = (data - data @ basis @ basis.transpose(1, 2)).square().sum((1, 2))
        best = torch.linalg.svdvals(data)[:, rank:].square().sum(-1)
        torch.testing.assert_close(lost, best, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("rank", [0, 13])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(InputError, match=f"rank={rank}: must be 1 to 12"):
        principal_basis(torch.eye(12), rank)


def test_a_basis_of_other_heads_is_refused():
    with pytest.raises(InputError, match=r"basis of shape \(2, 32, 4\); 3 heads of 8 need \[n_layers, 48, rank\]"):
        LatentKVCache(full_basis(4), 3, DIM, rotate=None, slots=1, capacity=4)


def test_reserved_bytes_are_the_formula():
    cache = LatentKVCache(full_basis(6), KV_HEADS, DIM, rotate=rope, slots=3, capacity=CAPACITY)
    kappa = formula["kv.latent_bytes_per_token"](n_layers=LAYERS, d_c=6, b_kv=4)
    assert cache.nbytes == formula["kv.bytes"](kappa=kappa, L=CAPACITY, B=3)


SHAPES = {"hidden": 24, "n_heads": 3, "d_h": 6, "d_c": 10, "d_r": DIM}


def mla_by_definition(mla, h, total: int):
    """Equations 9 to 19 of DeepSeek-V2 for the last tokens of h [tokens, hidden], one head and one token at a time."""
    positions, outputs = torch.arange(len(h)), []
    rotary_keys = rope((h @ mla.w_kr.T)[:, None], positions)[:, 0]
    for t in range(total, len(h)):
        heads = []
        for i in range(SHAPES["n_heads"]):
            q = mla.w_q[i] @ h[t]
            q_r = rope((mla.w_qr[i] @ h[t])[None, None], positions[t : t + 1])[0, 0]
            scores, values = [], []
            for j in range(t + 1):
                c = mla.w_dkv @ h[j]
                scores.append((q @ (mla.w_uk[i] @ c) + q_r @ rotary_keys[j]) / math.sqrt(SHAPES["d_h"] + SHAPES["d_r"]))
                values.append(mla.w_uv[i] @ c)
            heads.append(sum(p * v for p, v in zip(torch.stack(scores).softmax(0), values, strict=True)))
        outputs.append(mla.w_o @ torch.cat(heads))
    return torch.stack(outputs)


@settings(max_examples=8)
@given(tokens=st.integers(1, 9), data=st.data(), seed=st.integers(0, 99))
def test_absorbed_and_expanded_attention_are_the_definition(tokens, data, seed):
    past = data.draw(st.integers(0, tokens - 1))
    mla = random_latent_attention(**SHAPES, rotate=rope, seed=seed)
    h = torch.randn(tokens, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    positions = torch.arange(tokens)
    cached = mla.compress(h, positions)
    assert [tuple(one.shape) for one in cached] == [(tokens, 10), (tokens, DIM)]
    expected = mla_by_definition(mla, h, past)
    for form in (mla.expanded, mla.absorbed):
        torch.testing.assert_close(form(h[past:], positions[past:], *cached), expected, rtol=1e-12, atol=1e-12)


def test_a_rotated_latent_key_cannot_be_absorbed():
    """With rotation between the two projections their product depends on the distance, so no matrix stands for all."""
    mla = random_latent_attention(**(SHAPES | {"d_h": DIM}), rotate=rope)
    products = []
    for distance in (0, 1, 5):
        turned = rope(mla.w_uk[0].T[:, None], torch.full((10,), distance))[:, 0]  # every column of W by one angle
        products.append(mla.w_q[0].T @ turned.T)
    torch.testing.assert_close(products[0], mla.w_q[0].T @ mla.w_uk[0], rtol=1e-12, atol=1e-12)
    assert min((products[0] - other).norm() / products[0].norm() for other in products[1:]) > 0.1
