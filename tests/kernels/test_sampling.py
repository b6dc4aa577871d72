"""Sampling: the random numbers, the draw against its specification, its law, and what it must not depend on."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels import sampling
from labcore.kernels.sampling import OF_TILES, OF_TOKENS, TILE, gumbel_reference, philox, sample, sample_reference
from tests.kernels.checks import DTYPES


def random(rows, vocab, dtype=torch.float32, device="cpu", scale=3.0, seed=0):
    return (scale * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))).to(device, dtype)


def integers(*values, device="cpu"):
    return torch.tensor(values, dtype=torch.int64, device=device)


def test_philox_is_random123s():
    """A known answer of Random123 (kat_vectors, philox4x32-10): the words for a zero key and counter."""
    words = philox(integers(0), integers(0), 0, integers(0))
    assert words.flatten().tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_philox_depends_on_each_of_its_words():
    base = philox(integers(5), integers(9), OF_TOKENS.value, integers(3))
    for other in [
        philox(integers(6), integers(9), OF_TOKENS.value, integers(3)),
        philox(integers(5 + 2**32), integers(9), OF_TOKENS.value, integers(3)),
        philox(integers(5), integers(10), OF_TOKENS.value, integers(3)),
        philox(integers(5), integers(9), OF_TILES.value, integers(3)),
        philox(integers(5), integers(9), OF_TOKENS.value, integers(4)),
    ]:
        assert (other != base).all()
    words = philox(integers(1), integers(1), OF_TOKENS.value, torch.arange(5000))
    bits = words.flatten()[:, None] >> torch.arange(32) & 1
    assert ((bits.double().mean(0) - 0.5).abs() < 0.02).all()


def test_gumbel_numbers_have_their_law():
    """Mean 0.5772, variance π²/6, and the tail that small exponentials make."""
    numbers = gumbel_reference(integers(3), integers(4), OF_TOKENS.value, 200_000)
    assert abs(numbers.mean() - 0.57722) < 0.01 and abs(numbers.var() - 1.64493) < 0.03
    assert numbers.isfinite().all() and numbers.max() > 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 111, TILE, TILE + 1, 3 * TILE - 7])
def test_it_is_the_specification_with_the_same_numbers(device, dtype, vocab):
    rows = 6
    logits = random(rows, vocab, dtype, device)
    temperature = torch.tensor([1.0, 0.0, 0.3, 2.0, 0.0, 1e-3], device=device)
    seed, position = integers(0, 1, 2**40, -5, 7, 7, device=device), integers(0, 3, 5, 2**20, 1, 2, device=device)
    ours = sample(logits, temperature, seed=seed, position=position)
    assert ours.dtype == torch.int64
    assert ours.tolist() == sample_reference(logits, temperature, seed, position).tolist()


def test_the_smallest_of_uniform_numbers(device):
    """Words of 12, 23 and 37 of 2^32: 1 - u would be 1 in float32, and the noise infinite, whatever the logits."""
    for position, place in ((16_944, 198), (147_185, 155), (259_308, 144)):
        logits = torch.zeros(1, 256, device=device)
        logits[0, place], logits[0, 7] = -5.0, 15.0  # some 15 for 3: no draw of `place` is likely
        assert (
            int(philox(integers(0), integers(position), OF_TOKENS.value, integers(place // 4))[0, 0, place % 4]) < 128
        )
        assert sample(logits, 1.0, seed=0, position=position).tolist() == [7]


def test_a_vocabulary_that_is_too_large_is_refused(device):
    with pytest.raises(InputError, match="a vocabulary of 2097153: at most 2097152"):
        sample(torch.zeros(1, sampling.LARGEST_VOCABULARY + 1, device=device), 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_k_and_top_p_are_applied_first(device, dtype):
    logits = random(4, 200, dtype, device)
    top_k = torch.tensor([3, 0, 10, 0], dtype=torch.int32, device=device)
    top_p = torch.tensor([1.0, 0.5, 0.7, 1.0], device=device)
    arguments = (logits, 0.9, top_k, top_p, 11, integers(1, 2, 3, 4, device=device))
    assert sample(*arguments).tolist() == sample(*arguments, backend="torch").tolist()


def test_a_token_does_not_depend_on_the_batch(device):
    logits, seed, position = (
        random(5, 2500, device=device),
        integers(*range(5), device=device),
        integers(*range(5), device=device),
    )
    together = sample(logits, 1.0, seed=seed, position=position)
    order = integers(3, 0, 4, 1, 2, device=device)
    assert torch.equal(sample(logits[order], 1.0, seed=seed[order], position=position[order]), together[order])
    alone = [sample(logits[i : i + 1], 1.0, seed=seed[i : i + 1], position=position[i : i + 1]) for i in range(5)]
    assert torch.equal(torch.cat(alone), together)
    same = random(1, 2500, device=device, scale=1.0).expand(8, -1)
    assert len(set(sample(same, 1.0, seed=1, position=torch.arange(8, device=device)).tolist())) > 4
    assert len(set(sample(same, 1.0, seed=torch.arange(8, device=device), position=1).tolist())) > 4


def test_the_law_of_the_specification():
    """Two tiles, three heavy tokens in each: frequencies of 1200 draws against probabilities (chi squared)."""
    logits = torch.full((1, TILE + 40), -9.0)
    heavy = [5, 100, TILE - 1, TILE, TILE + 7, TILE + 39]
    logits[0, heavy] = torch.tensor([2.0, 1.0, 0.0, 1.5, 0.5, 2.5])
    draws, temperature = 1200, torch.tensor([1.3])
    tokens = torch.cat([
        sample_reference(logits.expand(400, -1), temperature.expand(400), torch.full((400,), 17), torch.arange(400) + i)
        for i in range(0, draws, 400)
    ])  # fmt: skip
    p = (logits[0].double() / 1.3).softmax(-1)[heavy]
    expected = draws * torch.cat((p, 1 - p.sum(0, keepdim=True)))
    seen = torch.tensor([float((tokens == token).sum()) for token in heavy])
    seen = torch.cat((seen, draws - seen.sum(0, keepdim=True)))
    assert ((seen - expected) ** 2 / expected).sum() < 22.5  # p > 1e-3 at 6 degrees of freedom


@pytest.mark.gpu
@pytest.mark.parametrize("top_k", [None, 20])
def test_the_law_of_a_million_draws(top_k):
    vocab, draws = 111, 1_000_000
    logits = random(1, vocab, device="cuda", scale=1.0)
    logits[0, 50] = -torch.inf
    rows = torch.arange(draws, device="cuda")
    tokens = sample(logits.expand(draws, -1), 1.0, top_k, None, seed=rows % 1000, position=rows // 1000)
    p = sampling.mask_top_k_top_p(logits, top_k, None).double().softmax(-1)[0]
    seen = torch.bincount(tokens, minlength=vocab)
    assert not seen[p == 0].any(), "a token of probability zero was drawn"
    expected = draws * p[p > 0]
    freedom = len(expected) - 1
    statistic = float(((seen[p > 0] - expected) ** 2 / expected).sum())
    assert statistic < freedom + 3.3 * (2 * freedom) ** 0.5 + 4  # p > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_size_of_a_vocabulary(dtype):
    rows = 64
    logits, seed = random(rows, 128_256, dtype, "cuda"), torch.arange(rows, device="cuda")
    temperature = torch.linspace(0, 2, rows, device="cuda")
    ours = sample(logits, temperature, seed=seed, position=9)
    theirs = sample(logits, temperature, seed=seed, position=9, backend="torch")
    assert (ours != theirs).sum() <= 1  # a near-tie may fall the other way in float32


@pytest.mark.gpu
def test_it_runs_in_a_cuda_graph():
    logits, seed = random(8, 5000, device="cuda"), torch.arange(8, device="cuda")
    position, temperature = torch.zeros(8, dtype=torch.int64, device="cuda"), torch.ones(8, device="cuda")
    top_k, top_p = torch.full((8,), 40, dtype=torch.int32, device="cuda"), torch.full((8,), 0.9, device="cuda")
    arguments = (logits, temperature, top_k, top_p, seed, position)
    sample(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sample(*arguments)
    for step in range(3):
        position.fill_(step)
        graph.replay()
        assert torch.equal(out, sample(*arguments))


def test_masked_tokens_are_never_drawn_and_nothing_allowed_is_said(device):
    logits = torch.full((4, 300), -torch.inf, device=device)
    logits[0, 77], logits[1, 299], logits[2, 3] = -1e30, 5.0, torch.nan
    for temperature in (0.0, 1.0):
        assert sample(logits, temperature, seed=3, position=5).tolist() == [77, 299, -1, -1]


def test_infinite_and_equal_logits(device):
    logits = torch.zeros(3, 3000, device=device)
    logits[0, 2500] = torch.inf
    logits[1, [40, 2600]] = 1.0
    logits[2, [41, 50]] = torch.inf
    assert sample(logits, 0.0).tolist() == [2500, 40, 41]
    assert sample(logits[::2], 1.0).tolist() in ([2500, 41], [2500, 50])


def test_nothing_and_what_does_not_fit(device):
    logits = random(2, 10, device=device)
    assert sample(logits[:0], 1.0).shape == (0,)
    for named, message in [
        ({"temperature": torch.ones(3, device=device)}, r"temperature is torch.float32 \(3,\)"),
        ({"temperature": 1.0, "seed": integers(1, 2, device=device).int()}, "seed is torch.int32"),
        ({"temperature": 1.0, "top_k": integers(1, 2, device=device)}, "top_k is torch.int64"),
    ]:
        with pytest.raises(InputError, match=message):
            sample(logits, **named)
