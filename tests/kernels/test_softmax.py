"""Online softmax of long rows against torch's."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.softmax import softmax, softmax_reference
from tests.kernels.checks import DTYPES


def random(rows, columns, dtype, device, scale=4.0):
    return (scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))).to(device, dtype)


def assert_close(ours, logits, temperature):
    exact = softmax_reference(logits.double().float(), temperature)
    assert ours.dtype == torch.float32 and not ours.isnan().any()
    torch.testing.assert_close(ours, exact, rtol=2e-5, atol=1e-7)
    total = ours.double().sum(-1)  # as close to 1 as a float32 sum of all weights and a GPU's exp2 are
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 63), (2, 64), (2, 65), (2, 300)])
def test_it_is_torchs(device, dtype, rows, columns):
    logits = random(rows, columns, dtype, device)
    temperature = torch.tensor([0.5, 1.0, 7.0][:rows], device=device)
    assert_close(softmax(logits, temperature), logits, temperature)


@pytest.mark.gpu
def test_the_size_of_a_vocabulary():
    for dtype in DTYPES:
        logits = random(64, 128_256, dtype, "cuda")
        assert_close(softmax(logits, 0.7), logits, torch.full((64,), 0.7, device="cuda"))


def test_a_maximum_that_grows_tile_after_tile(device):
    logits = torch.arange(200.0, device=device)[None] * torch.tensor([[1.0], [-1.0]], device=device)
    assert_close(softmax(logits), logits, 1.0)
    assert_close(softmax(logits * 1e3), logits * 1e3, 1.0)


def test_masked_logits_have_probability_zero(device):
    logits = random(2, 130, torch.float32, device)
    logits[:, :70] = -torch.inf  # a whole tile and a bit
    ours = softmax(logits)
    assert not ours[:, :70].any()
    assert_close(ours, logits, 1.0)


def test_a_slice_and_nothing_and_what_does_not_fit(device):
    logits = random(4, 100, torch.float32, device)
    assert_close(softmax(logits[::2, :90]), logits[::2, :90], 1.0)
    assert softmax(logits[:0]).shape == (0, 100)
    for wrong, temperature, message in [
        (logits.t(), 1.0, "contiguous rows"),
        (logits[0], 1.0, r"\(100,\)"),
        (logits.int(), 1.0, "torch.int32"),
        (logits, torch.ones(3, device=device), r"temperature is torch.float32 \(3,\)"),
    ]:
        with pytest.raises(InputError, match=message):
            softmax(wrong, temperature)
