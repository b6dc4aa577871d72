"""top-k and top-p by bracketing a threshold, against sorting."""

import pytest
import torch

from labcore.core.sampling_params import SamplingParams
from labcore.kernels.truncation import kept_reference, mask_top_k_top_p
from labcore.sampling.truncation import truncate
from tests.kernels.checks import DTYPES


def random(rows, vocab, dtype=torch.float32, device="cpu", scale=3.0, seed=0):
    return (scale * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))).to(device, dtype)


def int32(*values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)


def kept(masked, logits):
    assert torch.equal(masked[masked > -torch.inf], logits[masked > -torch.inf]), "a kept logit was changed"
    return masked > -torch.inf


def compare(logits, top_k, top_p, temperature, exactly=True):
    """Kept tokens as by sorting; not `exactly`: but for a token in few rows, where the sum is within rounding of p."""
    ours = kept(mask_top_k_top_p(logits, top_k, top_p, temperature), logits)
    theirs = kept_reference(logits, top_k, top_p, temperature) & (logits > -torch.inf)
    if exactly:
        assert ours.sum(-1).tolist() == theirs.sum(-1).tolist()
        assert torch.equal(ours, theirs)
        return
    apart = ours != theirs
    assert (apart.sum(-1) <= 1).all() and apart.any(-1).float().mean() <= 0.02


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_keeps_what_sorting_keeps(device, dtype):
    logits = random(4, 300, dtype, device)
    top_k, top_p = int32(7, 0, 40, 299, device=device), torch.tensor([1.0, 0.8, 0.6, 0.99], device=device)
    compare(logits, top_k, top_p, torch.tensor([1.0, 0.7, 1.5, 0.0], device=device))


def test_more_are_kept_than_the_first_read_holds(device):
    """Some lane has three of them, so that the row is read again."""
    logits = random(2, 900, device=device)
    compare(
        logits, int32(200, 150, device=device), torch.tensor([1.0, 0.7], device=device), torch.ones(2, device=device)
    )


def test_of_equals_the_first_are_kept(device):
    logits = random(4, 300, device=device).round()
    logits[3] = 0.0
    logits[2, ::3] = -torch.inf
    compare(logits, int32(5, 0, 20, 11, device=device), torch.tensor([1.0, 0.5, 0.7, 0.5], device=device),
            torch.ones(4, device=device))  # fmt: skip


def test_limits_that_limit_nothing_or_all_but_one(device):
    logits = random(4, 20, device=device)
    ones = torch.ones(4, device=device)
    compare(logits, int32(0, 20, 25, 1, device=device), ones, ones)
    tiny = torch.full((4,), 1e-6, device=device)
    assert kept(mask_top_k_top_p(logits, None, tiny), logits).sum(-1).tolist() == [1, 1, 1, 1]


def test_odd_logits(device):
    logits = torch.full((4, 40), -torch.inf, device=device)
    logits[0, [3, 9]] = torch.tensor([1.0, 2.0], device=device)  # fewer than k
    logits[1, [4, 5, 6]] = torch.tensor([torch.inf, torch.inf, 1.0], device=device)
    logits[2, [7, 8]] = torch.tensor([-0.0, 0.0], device=device)
    logits[3] = torch.nan
    logits[3, 5] = -1e4
    masked = mask_top_k_top_p(logits, int32(5, 2, 1, 3, device=device), None)
    assert [torch.nonzero(row > -torch.inf).flatten().tolist() for row in masked] == [[3, 9], [4, 5], [7], [5]]
    logits[1, 5], half, ones = 0.0, torch.full((3,), 0.5, device=device), torch.ones(3, device=device)
    compare(logits[:3], int32(0, 0, 0, device=device), half, ones)  # one infinity, which has all the probability
    everything = torch.full((1, 40), -torch.inf, device=device)
    assert not (mask_top_k_top_p(everything, 3, 0.5) > -torch.inf).any()


def test_the_specification_keeps_what_the_engines_own_truncation_does():
    logits = random(8, 500)
    top_k, top_p = [0, 5, 50, 0, 9, 500, 1, 20], [0.9, 1.0, 0.5, 1.0, 0.99, 0.3, 0.5, 1.0]
    params = [SamplingParams(temperature=1.0, top_k=k, top_p=p) for k, p in zip(top_k, top_p, strict=True)]
    theirs = truncate(logits - logits.amax(-1, keepdim=True), params) > -torch.inf
    ours = kept_reference(logits, torch.tensor(top_k), torch.tensor(top_p), torch.ones(8))
    assert torch.equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 2, 1000, 4096, 4097, 20_000])
def test_many_rows_of_many_kinds(dtype, vocab):
    rows = 256
    generator = torch.Generator().manual_seed(vocab)
    logits = random(rows, vocab, dtype, "cuda", seed=vocab)
    logits[::4] = logits[::4].round()
    logits[1::4, ::2] = -torch.inf
    top_k = torch.randint(0, vocab + 2, (rows,), generator=generator, dtype=torch.int32).cuda()
    top_k[::3] = top_k[::3] % 50
    top_p = torch.rand(rows, generator=generator).clamp(0.01, 1.0).cuda()
    top_p[::5] = 1.0
    temperature = (0.1 + 3 * torch.rand(rows, generator=generator)).cuda()
    compare(logits, top_k, torch.ones_like(top_p), temperature)
    compare(logits, torch.zeros_like(top_k), top_p, temperature, exactly=False)
    compare(logits, top_k, top_p, temperature, exactly=False)


@pytest.mark.gpu
def test_the_size_of_a_vocabulary():
    logits = random(64, 128_256, device="cuda")
    for top_k, top_p in [(50, 0.9), (0, 0.9), (5000, 0.5), (50, 1.0)]:
        parameters = int32(*[top_k] * 64, device="cuda"), torch.full((64,), top_p, device="cuda")
        compare(logits, *parameters, torch.ones(64, device="cuda"), exactly=False)
