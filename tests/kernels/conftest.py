"""The same kernel tests on two machines: interpreted on a CPU in three dtypes, compiled on a GPU in the same three.

@pytest.mark.parametrize("dtype", DTYPES)
def test_it(device, dtype):
    x = torch.randn(4, 64, device=device).to(dtype)
    out = poisoned(4, 64, dtype=dtype, device=device)
    kernel(x, out=out)
    close_as_torch(out, torch_way(x), torch_way(x.float()))
"""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from tests.kernels.checks import DEVICE, DTYPES, close_as_torch, poisoned, relative_error  # noqa: E402

__all__ = ["DEVICE", "DTYPES", "close_as_torch", "poisoned", "relative_error"]


@pytest.fixture
def device():
    """Where the kernels run: "cuda" if there is one, else "cpu", interpreted, with bf16 put right."""
    from labcore.kernels._interpreter import bf16_shim

    with bf16_shim() if DEVICE == "cpu" else nullcontext():
        yield DEVICE
