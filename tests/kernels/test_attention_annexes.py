"""The annexes of prefill attention give its answers: specialized warps, and one maximum for all."""

import pytest
import torch

from labcore.core.errors import InputError
from labcore.kernels.attention_prefill import attention_varlen
from labcore.kernels.attention_prefill_ws import TILE
from labcore.kernels.attention_unified_max import attention_unified_max
from tests.kernels.conftest import DEVICE, DTYPES
from tests.kernels.test_attention_prefill import agrees, inputs

ON_GPU = DEVICE == "cuda"


def specialized(*arguments, **options):
    """attention_varlen with specialized warps; interpreted, with small tiles."""
    config = TILE if ON_GPU else {"WS": 1, "BLOCK_M": 16, "BLOCK_N": 32}
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


LENGTHS = (0, 1, 65, 33, 3), (4, 1, 65, 97, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_maximum_for_all_gives_the_same(device, dtype):
    agrees(attention_unified_max, inputs(*LENGTHS, dtype=dtype))


def recomputed(arguments, phi=0.0, **expected) -> int:
    """How many tiles were; the answer is right in any case."""
    count = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    agrees(lambda *a, **o: attention_unified_max(*a, phi=phi, recomputed=count, **o), arguments, **expected)
    return int(count)


overflows = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@overflows  # on purpose
@pytest.mark.parametrize("phi", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_wrong_guess_costs_time_and_no_digit(device, dtype, phi):
    arguments = inputs((65, 20), (65, 20), dtype=dtype)
    tiles_of_two_heads = 6  # of 64 queries: 2 and 1
    assert recomputed(arguments, phi=phi) == tiles_of_two_heads
    assert recomputed(arguments, phi=0.0) == 0


@overflows
def test_only_the_tiles_that_fail_are_computed_again(device):
    q, *rest = inputs((128,), (128,))
    q[:64] *= 40
    assert recomputed((q, *rest), lse_error=1e-3) == 2  # the first tile of both heads
    assert recomputed(inputs((20,), (4,))) == 2  # queries that see no key: their sum is 0


@pytest.mark.parametrize("phi", [5.0, 8.0])
def test_many_weights_that_are_small_together_keep_their_digits(device, phi):
    """Equal scores of 0: in fp16 each weight is e^-phi, and with 2^-10 or less of a subnormal's digits left."""
    q, k, v, *rest = inputs((300,), (300,), dtype=torch.float16)
    agrees(lambda *a, **o: attention_unified_max(*a, phi=phi, **o), (q * 0, k, v, *rest))
