"""The annexes of prefill attention give its answers: specialized warps."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.attention_prefill import attention_varlen_reference
from labcore.kernels.attention_prefill_ws import attention_varlen_ws
from tests.kernels.conftest import DEVICE, close_as_torch, poisoned
from tests.kernels.test_attention_prefill import in_dtype, inputs

ON_GPU = DEVICE == "cuda"


def specialized(arguments, **options):
    """attention_varlen_ws against the specification, in an output that held NaN. Interpreted with small tiles."""
    q, k, v, cu_q, cu_k, _, _ = arguments
    config = None if ON_GPU else {"BLOCK_M": 16, "BLOCK_N": 32}
    out = attention_varlen_ws(*arguments, out=poisoned(*q.shape, dtype=q.dtype), config=config, **options)
    expected, _ = attention_varlen_reference(q, k, v, cu_q, cu_k, **options)
    close_as_torch(out, in_dtype(q, k, v, cu_q, cu_k, **options), expected)


@pytest.mark.parametrize("window", [None, 1, 20])
def test_specialized_warps_give_the_same(device, window):
    lengths = (0, 1, 17, 5, 3), (4, 1, 17, 37, 0)
    specialized(inputs(*lengths, n_heads=2, head_dim=64, dtype=torch.float16), window=window)


@pytest.mark.parametrize(("dtype", "options"), [(torch.float16, {"causal": False}), (torch.float32, {})])
def test_specialized_warps_have_one_form(dtype, options):
    with pytest.raises(InputError, match="use attention_varlen"):
        attention_varlen_ws(*inputs((3,), (3,), head_dim=64, dtype=dtype), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 300])
def test_specialized_warps_on_hopper(dtype, window):
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("specialized warps are Hopper's")
    lengths = (1023, 0, 128, 1, 700), (1023, 5, 129, 700, 1025)
    specialized(inputs(*lengths, n_heads=8, n_kv_heads=2, head_dim=128, dtype=dtype), window=window)
