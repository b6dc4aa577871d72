"""What every entry to attention shares: batches of nothing, scales that make no sense, memory that is let go."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import triton  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels._checks import descriptor_memory  # noqa: E402
from labcore.kernels.attention_decode import paged_decode  # noqa: E402
from labcore.kernels.attention_decode_one_launch import paged_decode_one_launch  # noqa: E402
from labcore.kernels.attention_ladder import attention_v0, attention_v1  # noqa: E402
from labcore.kernels.attention_paged import paged_attention  # noqa: E402
from labcore.kernels.attention_prefill import attention_varlen  # noqa: E402
from labcore.kernels.attention_unified_max import attention_unified_max  # noqa: E402
from labcore.kernels.kv_quant import paged_decode_quant  # noqa: E402
from labcore.kernels.kv_quant_cache import QuantKV  # noqa: E402
from tests.kernels.paged_cases import paged_case, queries, starts  # noqa: E402


def mixed(q, *where, **options):
    k_cache, v_cache, table, lengths = where
    return paged_attention(q, k_cache, v_cache, starts([1] * len(q)).to(q.device), lengths, table, 1, **options)


def one_launch(q, *where, **options):
    return paged_decode_one_launch(q, *where, torch.zeros(64, dtype=torch.int32, device=q.device), **options)


def coded(q, k_cache, v_cache, table, lengths, **options):
    cache = QuantKV.empty("int8", *k_cache.shape, device=q.device)
    return paged_decode_quant(q, cache, table, lengths, **options)


PAGED = {"decode": paged_decode, "one launch": one_launch, "mixed": mixed, "coded": coded}
PACKED = [attention_varlen, attention_v0, attention_v1, attention_unified_max]


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("name", PAGED)
def test_a_batch_of_no_requests_has_no_answer_and_no_complaint(device, name, backend):
    case = paged_case([40], dtype=torch.float16, device=device)
    q = queries(0, 4, dtype=torch.float16, device=device)
    assert PAGED[name](q, *case.of([]), backend=backend).shape == q.shape


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("name", PAGED)
def test_a_scale_that_is_not_positive_is_refused_by_every_paged_call(device, name, scale):
    case = paged_case([40], dtype=torch.float16, device=device)
    with pytest.raises(InputError, match=f"scale={scale}: pass a positive number"):
        PAGED[name](queries(1, 4, dtype=torch.float16, device=device), *case.where, scale=scale)


@pytest.mark.parametrize("attend", PACKED)
def test_a_scale_that_is_not_positive_is_refused_by_every_packed_call(device, attend):
    q, ends = torch.randn(3, 2, 32, device=device), starts([3]).to(device)
    with pytest.raises(InputError, match=r"scale=0\.0: pass a positive number"):
        attend(q, q, q, ends, ends, 3, 3, scale=0.0)


def test_memory_for_descriptors_holds_no_tensor():
    """Triton keeps the function that is given here for as long as the thread lives."""
    q = torch.zeros(8)
    seen = weakref.ref(q)
    descriptor_memory(q.device)
    del q
    gc.collect()
    assert seen() is None
    triton.set_allocator(triton.runtime._allocation.NullAllocator())
