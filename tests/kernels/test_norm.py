"""RMSNorm against the specification, which is compared with transformers' and torch's."""

import pytest
import torch
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kernels.norm import WIDEST, rms_norm, rms_norm_reference
from tests.kernels.checks import DTYPES, poisoned
from tests.kernels.roundings import same_roundings

EPS = 1e-5


def inputs(rows, width, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, residual, weight = (torch.randn(size, generator=generator) for size in ((rows, width), (rows, width), (width,)))
    return ((3 * x).to(device, dtype), residual.to(device, dtype), (1 + 0.3 * weight).to(device, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 64), (9, 100), (3, 257), (1, 1024), (2, 2049)])
def test_it_is_the_specification(device, dtype, rows, width):
    x, residual, weight = inputs(rows, width, dtype, device)
    out = poisoned(rows, width, dtype=dtype, device=device)
    assert rms_norm(x, weight, EPS, out=out) is out
    same_roundings(out, rms_norm_reference(x, weight, EPS), rms_norm_reference(x.double(), weight.double(), EPS), 2)

    stream = residual.clone()
    summed = rms_norm(x, weight, EPS, stream)
    assert torch.equal(stream, x + residual)
    wide = stream.double()  # the sum as it was rounded is what is normalized
    same_roundings(summed, rms_norm_reference(stream, weight, EPS), rms_norm_reference(wide, weight.double(), EPS), 2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width"), [(8192, 4096), (1, 4096), (64, 8192), (33, WIDEST), (2000, 1024), (40, 128)]
)
def test_it_is_the_specification_at_the_size_of_models(dtype, rows, width):
    x, residual, weight = inputs(rows, width, dtype, "cuda")
    stream = residual.clone()
    out = rms_norm(x, weight, EPS, stream)
    assert torch.equal(stream, x + residual)
    exact = rms_norm_reference(stream.double(), weight.double(), EPS)
    same_roundings(out, rms_norm_reference(stream, weight, EPS), exact, 2)


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    rows, width = 2**31 // 4096 + 3, 4096
    x = torch.zeros(rows, width, dtype=torch.bfloat16, device="cuda")
    x[-1] = torch.randn(width, device="cuda")
    weight = torch.ones(width, dtype=torch.bfloat16, device="cuda")
    out = rms_norm(x, weight, EPS, out=x)
    assert out[-1].float().square().mean().sub(1).abs() < 1e-2 and not out[:-1].any()


def test_the_specification_is_torchs_and_transformers():
    x, _, weight = inputs(4, 96, torch.float32, "cpu")
    ours = rms_norm_reference(x, weight, EPS)
    torch.testing.assert_close(ours, F.rms_norm(x, (96,), weight, EPS), rtol=1e-6, atol=1e-6)
    llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="the oracle needs transformers")
    norm = llama.LlamaRMSNorm(96, EPS).to(torch.bfloat16)
    norm.weight.data = weight.to(torch.bfloat16)
    x = x.to(torch.bfloat16)
    assert torch.equal(rms_norm_reference(x, norm.weight.data, EPS), norm(x))


def test_rows_of_a_view_and_in_place(device):
    x, _, weight = inputs(6, 40, torch.float32, device)
    expected = rms_norm_reference(x[:, :24].contiguous(), weight[:24], EPS)
    joint = x.clone()
    torch.testing.assert_close(rms_norm(joint[:, :24], weight[:24], EPS), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(joint, x)
    heads = x.view(2, 3, 40)
    torch.testing.assert_close(rms_norm(heads, weight, EPS).view(6, 40), rms_norm_reference(x, weight, EPS))
    whole = rms_norm_reference(x, weight, EPS)
    torch.testing.assert_close(rms_norm(x, weight, EPS, out=x), whole)
    assert rms_norm(x[:0], weight, EPS).shape == (0, 40)


def test_a_large_row_and_a_zero_row_stay_finite(device):
    x = torch.zeros(2, 8, device=device)
    x[0] = 1e15
    out = rms_norm(x, torch.ones(8, device=device), EPS)
    torch.testing.assert_close(out, torch.tensor([[1.0], [0.0]], device=device).expand(2, 8))


def test_what_does_not_fit_is_named(device):
    x, residual, weight = inputs(4, 32, torch.float32, device)
    for arguments, message in [
        ((x, weight[:8], EPS), r"weight is torch.float32 \(8,\)"),
        ((x, weight.half(), EPS), "weight is torch.float16"),
        ((x.t(), torch.ones(4, device=device), EPS), r"strides \(1, 32\)"),
        ((x.view(2, 2, 32)[:, :1].expand(2, 2, 32), weight, EPS), "evenly spaced"),
        ((x, weight, EPS, residual[:2]), r"residual is torch.float32 \(2, 32\)"),
        ((torch.zeros(1, WIDEST + 1, device=device), torch.zeros(WIDEST + 1, device=device), EPS), "at most 16384"),
    ]:
        with pytest.raises(InputError, match=message):
            rms_norm(*arguments)
