"""The annexes of prefill attention give its answers: specialized warps."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.attention_prefill import attention_varlen
from labcore.kernels.attention_prefill_ws import TILES
from tests.kernels.conftest import DEVICE
from tests.kernels.test_attention_prefill import agrees, inputs

ON_GPU = DEVICE == "cuda"


def specialized(*arguments, **options):
    """attention_varlen with specialized warps; interpreted, with small tiles."""
    config = TILES[0] if ON_GPU else {"WS": 1, "BLOCK_M": 16, "BLOCK_N": 32}
    return attention_varlen(*arguments, config=config, **options)


@pytest.mark.parametrize("window", [None, 1, 20])
def test_specialized_warps_give_the_same(device, window):
    lengths = (0, 1, 17, 5, 3), (4, 1, 17, 37, 0)
    agrees(specialized, inputs(*lengths, n_heads=2, head_dim=64, dtype=torch.float16), window=window)


@pytest.mark.parametrize(("dtype", "options"), [(torch.float16, {"causal": False}), (torch.float32, {})])
def test_specialized_warps_have_one_form(dtype, options):
    with pytest.raises(InputError, match="warps are specialized for"):
        specialized(*inputs((3,), (3,), head_dim=64, dtype=dtype), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 300])
def test_specialized_warps_on_hopper(dtype, window):
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("specialized warps are Hopper's")
    lengths = (1023, 0, 128, 1, 700), (1023, 5, 129, 700, 1025)
    agrees(specialized, inputs(*lengths, n_heads=8, n_kv_heads=2, head_dim=128, dtype=dtype), window=window)
