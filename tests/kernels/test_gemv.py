"""One token through a linear layer and its neighbours, against the specification and against the layer in parts."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kernels.activation import silu_mul_reference
from labcore.kernels.gemv import gemv, gemv_reference
from labcore.kernels.norm import rms_norm_reference
from tests.kernels.checks import DTYPES, close_as_torch, poisoned

EPS = 1e-5
FORMS = [dict(zip(("norm", "gated", "residual"), form, strict=True)) for form in itertools.product([0, 1], repeat=3)]


def case(k, n, dtype, device, norm=0, gated=0, residual=0):
    """x, weight, and the options of a form."""
    generator, shapes = torch.Generator(device).manual_seed(k + n), ((1, k), (n * (1 + gated), k), (k,), (1, n))
    x, weight, g, r = (torch.randn(shape, generator=generator, device=device) for shape in shapes)
    x, weight, g, r = (one.to(dtype) for one in (3 * x, weight.mul_(k**-0.5), 1 + 0.3 * g, r))
    return (
        x,
        weight,
        {"norm": g if norm else None, "eps": EPS, "gated": bool(gated), "residual": r if residual else None},
    )


def in_parts(x, weight, norm, eps, gated, residual):
    """As the layer does it, each part rounded."""
    y = F.linear(x if norm is None else rms_norm_reference(x, norm, eps), weight)
    y = silu_mul_reference(y) if gated else y
    return y if residual is None else residual + y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("k", "n"), [(1, 1), (100, 37)])  # interpreted: one program of one tile, three of two
def test_it_is_the_specification(device, dtype, k, n, form):
    x, weight, options = case(k, n, dtype, device, **form)
    out = poisoned(1, n, dtype=dtype, device=device)
    assert gemv(x, weight, **options, out=out) is out
    exact = gemv_reference(x, weight, **options)
    if dtype == torch.float32:
        wide = {key: value.double() if isinstance(value, torch.Tensor) else value for key, value in options.items()}
        exact = in_parts(x.double(), weight.double(), **wide)
    close_as_torch(out, in_parts(x, weight, **options), exact)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("k", "n", "form"),
    [
        *((k, n, form) for k, n in [(4096, 6144), (14336, 4096), (1024, 3072), (3072, 1024)] for form in FORMS),
        *((4096, 128256, form) for form in FORMS if not form["gated"]),  # a vocabulary
    ],
)
def test_it_is_the_specification_at_the_size_of_models(dtype, k, n, form):
    x, weight, options = case(k, n, dtype, "cuda", **form)
    close_as_torch(gemv(x, weight, **options), in_parts(x, weight, **options), gemv_reference(x, weight, **options))


def test_the_residual_may_be_the_output(device):
    x, weight, options = case(64, 24, torch.float32, device, residual=1)
    expected = gemv_reference(x, weight, **options)
    out = gemv(x, weight, **options, out=options["residual"])
    assert out is options["residual"]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_what_lies_beside_the_weight_does_not_matter(device):
    """Rows and columns are masked: past the last row lies NaN, past a row's last column the next row."""
    whole = torch.full((40, 72), torch.nan, device=device)
    weight = torch.randn(13 * 50, device=device)
    flat = whole.view(-1)
    flat[: 13 * 50] = weight
    x = torch.randn(1, 50, device=device)
    out = gemv(x, flat[: 13 * 50].view(13, 50))
    torch.testing.assert_close(out, x @ weight.view(13, 50).t(), rtol=1e-4, atol=1e-5)


def test_bad_input_is_one_sentence(device):
    x, weight = torch.ones(1, 8, device=device), torch.ones(6, 8, device=device)
    with pytest.raises(InputError, match=r"x \(2, 8\), weight \(6, 8\): pass \[1, K\]"):
        gemv(torch.ones(2, 8, device=device), weight)
    with pytest.raises(InputError, match="N even if gated"):
        gemv(x, weight[:5], gated=True)
    with pytest.raises(InputError, match=r"norm is torch.float32 \(7,\): make it contiguous torch.float32 \(8,\)"):
        gemv(x, weight, norm=torch.ones(7, device=device))
    with pytest.raises(InputError, match=r"weight is torch.float32 \(6, 8\): make it contiguous"):
        gemv(x, torch.ones(8, 6, device=device).t())
