"""Rotation in place and the fused form that writes the cache, against their specifications and against the model's."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.norm import rms_norm_reference
from labcore.kernels.rope import rope_, rope_write_kv, rope_write_kv_reference, rotate_reference
from tests.kernels.checks import DTYPES, poisoned
from tests.kernels.roundings import same_roundings

POSITIONS = 50
SHAPES = [(3, 9, 3, 64), (3, 4, 4, 16), (2, 5, 1, 80), (1, 16, 2, 8), (2, 1, 1, 2)]  # tokens, heads, kv heads, D


def random(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def angles(dim, dtype, device, tokens):
    turn = torch.arange(POSITIONS)[:, None] * 10_000.0 ** -(torch.arange(dim // 2) / (dim // 2))
    positions = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(1))[:tokens]
    return turn.cos().to(device, dtype), turn.sin().to(device, dtype), positions.to(device)


def wide(*tensors):
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "n_q", "n_kv", "dim"), SHAPES)
def test_queries_and_keys_are_turned_in_place(device, dtype, tokens, n_q, n_kv, dim):
    cos, sin, positions = angles(dim, dtype, device, tokens)
    q, k = (random(tokens, n, dim, dtype=dtype, device=device, seed=n) for n in (n_q, n_kv))
    before = q.clone(), k.clone()
    assert rope_(q, k, cos, sin, positions)[0] is q
    for after, x in zip((q, k), before, strict=True):
        exact = rotate_reference(*wide(x, cos, sin), positions)
        same_roundings(after, rotate_reference(x, cos, sin, positions), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("tokens", "n_q", "n_kv", "dim"), SHAPES)
def test_the_fused_form_writes_the_cache(device, dtype, normalized, tokens, n_q, n_kv, dim):
    cos, sin, positions = angles(dim, dtype, device, tokens)
    qkv = random(tokens, n_q + 2 * n_kv, dim, dtype=dtype, device=device)
    weights = [1 + 0.2 * random(dim, dtype=dtype, device=device, seed=seed) for seed in (7, 8)] if normalized else []
    slots = torch.randperm(12, generator=torch.Generator().manual_seed(2))[:tokens].to(device)
    slots[0] = -1
    caches = [poisoned(4, 3, n_kv, dim, dtype=dtype, device=device) for _ in range(4)]
    expected = qkv.clone()
    exact, before = qkv.double(), qkv.clone()
    names = dict(zip(("q_weight", "k_weight"), weights, strict=False))

    q = rope_write_kv(qkv, cos, sin, positions, *caches[:2], slots, **names)
    expected_q = rope_write_kv_reference(expected, cos, sin, positions, *caches[2:], slots, *weights)
    exact_caches = [cache.double() for cache in caches[2:]]
    exact_q = rope_write_kv_reference(exact, *wide(cos, sin), positions, *exact_caches, slots, *wide(*weights))
    assert q.data_ptr() == qkv.data_ptr()
    close(q, expected_q, exact_q)
    assert torch.equal(qkv[:, n_q:], before[:, n_q:]), "k and v of the product were changed"
    for ours, theirs, reference in zip(caches[:2], caches[2:], exact_caches, strict=True):
        written = ~theirs.isnan()
        assert torch.equal(~ours.isnan(), written), "written where it should not be, or not where it should"
        if written.any():
            close(ours[written], theirs[written], reference[written])
    used = slots[slots >= 0]
    assert torch.equal(caches[1].flatten(0, 1)[used], before[slots >= 0, n_q + n_kv :]), "v is stored as it was"


def close(ours, specification, exact):
    """Of the specification in the same dtype, at most twice its own error; sums of products cancel, so by norm."""
    if not ours.numel():
        return
    eps = torch.finfo(ours.dtype).eps
    error, torchs = ((x.double() - exact).norm() / exact.norm() for x in (ours, specification))
    assert error <= 2 * torchs + eps / 4, f"error {error:.2e}, torch's own {torchs:.2e}"
    assert (ours.double() - specification.double()).abs().max() <= 8 * eps * specification.double().abs().max()


def test_the_specification_is_the_models_own_rotation():
    from labcore.model.config import DecoderConfig
    from labcore.model.llama import RotaryEmbedding, rotate

    config = DecoderConfig("llama", 1, 32, 2, 1, 16, 8, 8, 64, rope_theta=10_000.0, norm_eps=1e-5)
    tables = [table[:, 0] for table in RotaryEmbedding(config)(torch.arange(64))]
    positions, x = torch.tensor([3, 60, 0]), random(3, 2, 16)
    theirs = rotate(x, RotaryEmbedding(config)(positions))
    assert torch.equal(rotate_reference(x, *tables, positions), theirs)


def test_heads_of_a_joint_product_are_turned_where_they_lie(device):
    cos, sin, positions = angles(8, torch.float32, device, 3)
    qkv = random(3, 8, 8, device=device)
    before, q, k = qkv.clone(), qkv[:, :4], qkv[:, 4:6]
    rope_(q, k, cos, sin, positions.int())
    turned = rotate_reference(before[:, :6], cos, sin, positions)
    torch.testing.assert_close(qkv, torch.cat((turned, before[:, 6:]), 1))
    assert rope_(q[:0], k[:0], cos, sin, positions[:0])[0].shape == (0, 4, 8)


@pytest.mark.gpu
def test_a_cache_slot_past_two_to_the_31_elements():
    pages, page, n_kv, dim = 2**31 // (16 * 8 * 128) + 2, 16, 8, 128
    caches = [torch.zeros(pages, page, n_kv, dim, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    cos, sin, positions = angles(dim, torch.bfloat16, "cuda", 1)
    qkv = random(1, 32 + 16, dim, dtype=torch.bfloat16, device="cuda")
    rope_write_kv(qkv, cos, sin, positions, *caches, torch.tensor([pages * page - 1], device="cuda"))
    assert torch.equal(caches[1][-1, -1], qkv[0, 40:]) and not caches[1][:-1].any()


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 64, 8192])
def test_the_size_of_models(tokens):
    cos, sin = (random(8192, 64, seed=seed).to("cuda", torch.bfloat16) for seed in (0, 1))
    positions = torch.randperm(8192, device="cuda")[:tokens]
    q, k = (random(tokens, n, 128, dtype=torch.bfloat16, device="cuda", seed=n) for n in (32, 8))
    expected = [rotate_reference(x, cos, sin, positions) for x in (q, k)]
    exact = [rotate_reference(*wide(x, cos, sin), positions) for x in (q, k)]
    rope_(q, k, cos, sin, positions)
    for ours, theirs, reference in zip((q, k), expected, exact, strict=True):
        same_roundings(ours, theirs, reference)


def test_the_norm_comes_before_the_turn_and_spares_v(device):
    cos, sin = torch.ones(1, 4, device=device), torch.zeros(1, 4, device=device)  # no turn: what is left is the norm
    qkv, weight = random(2, 4, 8, device=device), 1 + random(8, device=device, seed=3)
    before, caches = qkv.clone(), [torch.zeros(1, 2, 1, 8, device=device) for _ in range(2)]
    slots = torch.arange(2, device=device)
    rope_write_kv(qkv, cos, sin, 0 * slots, *caches, slots, q_weight=weight, k_weight=2 * weight, eps=1e-3)
    torch.testing.assert_close(qkv[:, :2], rms_norm_reference(before[:, :2], weight, 1e-3))
    torch.testing.assert_close(caches[0][0], rms_norm_reference(before[:, 2:3], 2 * weight, 1e-3))
    assert torch.equal(caches[1][0], before[:, 3:])


def test_what_does_not_fit_is_named(device):
    cos, sin, positions = angles(8, torch.float32, device, 3)
    q, k = random(3, 4, 8, device=device), random(3, 2, 8, device=device)
    cache, slots = torch.zeros(2, 4, 1, 8, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    fused = (cos, sin, positions, cache, cache)
    gaps = torch.ones(8, 2, device=device)[:, 0]
    for function, arguments, named, message in [
        (rope_, (q[..., :7], k, cos, sin, positions), {}, "even D"),
        (rope_, (q.transpose(0, 1), k, cos, sin, positions), {}, "must be contiguous"),
        (rope_, (q, k[:2], cos, sin, positions), {}, "needs the tokens, D and dtype of q"),
        (rope_, (q, k, cos[:, :2], sin, positions), {}, r"cos is \(50, 2\)"),
        (rope_, (q, k, cos, sin, positions[:2]), {}, r"positions is torch.int64 \(2,\)"),
        (rope_write_kv, (q, *fused, slots.int()), {}, "slots is torch.int32"),
        (rope_write_kv, (q[:, :2], *fused, slots), {}, "do not fit qkv"),
        (rope_write_kv, (q, *fused[:3], cache.half(), cache, slots), {}, "k_cache is torch.float16"),
        (rope_write_kv, (q, *fused, slots), {"q_weight": cos[0]}, "normalizes both"),
        (rope_write_kv, (q, *fused, slots), {"q_weight": cos[0], "k_weight": cos[0]}, r"q_weight is .*\(4,\)"),
        (rope_write_kv, (q, *fused, slots), {"q_weight": gaps, "k_weight": gaps}, "q_weight is .*contiguous"),
    ]:
        with pytest.raises(InputError, match=message):
            function(*arguments, **named)
