"""SwiGLU against the specification, which is Llama's."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.activation import silu_mul, silu_mul_reference
from tests.kernels.checks import DTYPES, poisoned
from tests.kernels.roundings import same_roundings


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 126), (2, 3, 130), (1, 1536)])
def test_it_is_the_specification(device, dtype, shape):
    gate_up = (4 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(device, dtype)
    out = poisoned(*shape[:-1], shape[-1] // 2, dtype=dtype, device=device)
    assert silu_mul(gate_up, out=out) is out
    same_roundings(out, silu_mul_reference(gate_up), silu_mul_reference(gate_up.double()), 2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_size_of_models(dtype):
    gate_up = 4 * torch.randn(2048, 2 * 14336, device="cuda").to(dtype)
    same_roundings(silu_mul(gate_up), silu_mul_reference(gate_up), silu_mul_reference(gate_up.double()), 2)


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    gate_up = torch.zeros(2**31 // 16384 + 2, 16384, dtype=torch.bfloat16, device="cuda")
    gate_up[-1] = 2.0
    out = silu_mul(gate_up)
    assert torch.equal(out[-1], silu_mul_reference(gate_up[-1])) and not out[:-1].any()


def test_extremes_stay_finite(device):
    gate_up = torch.tensor([[-1e4, 1e4, 0.0, 2.0, 2.0, 2.0]], device=device)
    torch.testing.assert_close(silu_mul(gate_up), torch.tensor([[0.0, 2e4, 0.0]], device=device))


def test_nothing_and_what_does_not_fit(device):
    assert silu_mul(torch.zeros(0, 8, device=device)).shape == (0, 4)
    for gate_up, out, message in [
        (torch.zeros(2, 7), None, r"gate_up is \(2, 7\)"),
        (torch.zeros(8, 2).t(), None, "contiguous"),
        (torch.zeros(2, 8), torch.zeros(2, 8), r"out is torch.float32 \(2, 8\)"),
    ]:
        with pytest.raises(InputError, match=message):
            silu_mul(gate_up.to(device), out=out)
