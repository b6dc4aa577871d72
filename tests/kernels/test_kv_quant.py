"""Decode attention over INT8, FP8 and INT4 caches against attention on the numbers that their codes stand for."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.fp8 import E4M3  # noqa: E402
from labcore.formats.uniform import Uniform  # noqa: E402
from labcore.kernels._interpreter import bf16_shim  # noqa: E402
from labcore.kernels.attention_decode import paged_decode_reference  # noqa: E402
from labcore.kernels.kv_quant import QuantKV, paged_decode_quant, write_kv_quant  # noqa: E402
from labcore.kernels.kv_quant_cache import KINDS, quantize_heads, write_kv_quant_reference  # noqa: E402
from tests.kernels.checks import DEVICE, DTYPES, close_as_torch, poisoned, relative_error  # noqa: E402


def random_cache(kind, lengths, page, n_kv_heads, size, device, seed=0):
    """A cache in which the pages of `lengths` hold quantized noise and all else is NaN; and its block table."""
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-length // page) for length in lengths]
    pages = sum(counts) + 2
    order = torch.randperm(pages, generator=generator)
    table = torch.full((len(lengths), max(counts, default=0) + 1), -1, dtype=torch.int32)
    cache = QuantKV.empty(kind, pages, page, n_kv_heads, size, device=device)
    cache.data.view(torch.uint8).fill_(0x7F)  # NaN in e4m3
    cache.parameters.fill_(torch.nan)
    slots, begin = [], 0
    for i, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[i, :count] = order[begin : begin + count]
        position = torch.arange(length)
        slots.append(table[i, position // page].long() * page + position % page)
        begin += count
    k, v = torch.randn(2, sum(lengths), n_kv_heads, size, generator=generator)
    k += 2 * torch.randn(n_kv_heads, size, generator=generator)  # keys have channels of their own
    write_kv_quant_reference(k.to(device), v.to(device), cache, torch.cat(slots).to(device))
    return cache, table.to(device)


def check_decode(kind, lengths, *, heads=(4, 2), size=64, page=16, dtype=torch.float32, device=DEVICE, **options):
    size = max(size, 64) if kind == "int4" else size  # the least
    cache, table = random_cache(kind, lengths, page, heads[1], size, device)
    seq_lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    q = torch.randn(len(lengths), heads[0], size, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    out = poisoned(*q.shape, dtype=dtype, device=device)
    ours, lse = paged_decode_quant(q, cache, table, seq_lens, out=out, return_lse=True, **options)
    assert ours is out
    rest = {"window": options.get("window"), "scale": options.get("scale")}
    keys, values = cache.numbers()
    same_dtype, _ = paged_decode_reference(q, keys.to(dtype), values.to(dtype), table, seq_lens, **rest)
    wide = torch.float64
    o, exact_lse = paged_decode_reference(q.to(wide), keys.to(wide), values.to(wide), table, seq_lens, **rest)
    close_as_torch(out, same_dtype, o)
    assert torch.equal(lse.isinf(), exact_lse.isinf())
    some = exact_lse.isfinite()
    assert not some.any() or (lse[some] - exact_lse[some]).abs().max() < (1e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_attention_on_the_dequantized_cache(device, kind, dtype):
    check_decode(kind, [0, 1, 15, 16, 17, 70], heads=(2, 1), dtype=dtype, device=device)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize(
    ("kind", "heads"), [("int8", (1, 1)), ("int8", (16, 1)), ("fp8", (5, 1)), ("int4", (7, 1)), ("int4", (6, 3))]
)
def test_every_ratio_of_heads_with_and_without_tensor_cores(device, kind, heads, vector):
    check_decode(kind, [17, 5], heads=heads, size=32, device=device, vector=vector, num_splits=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vector", [False, True])
def test_splits_and_windows(device, kind, vector):
    check_decode(kind, [70, 3, 0], heads=(2, 1), size=32, device=device, num_splits=3, vector=vector)
    check_decode(
        kind, [70, 20], heads=(2, 1), size=32, device=device, num_splits=2, vector=vector, window=21, scale=0.3
    )


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_larger_heads_and_pages(device, kind, size):
    check_decode(kind, [65], heads=(2, 1), size=size, page=64, device=device, dtype=torch.float16)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(list(KINDS)), st.lists(st.integers(0, 60), min_size=1, max_size=3), st.sampled_from([1, 4, 16, 32])
)
def test_any_lengths_and_pages(kind, lengths, page):
    with bf16_shim():
        check_decode(kind, lengths, heads=(2, 1), page=page, size=32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_long_contexts_on_a_gpu(device, kind, size, dtype):
    check_decode(kind, [4097, 1, 300, 8192, 2048], heads=(32, 8), size=size, dtype=dtype, device=device)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_cuda_graph_records_it(device, kind):
    cache, table = random_cache(kind, [900, 77], 16, 2, 128, device)
    seq_lens = torch.tensor([500, 7], dtype=torch.int32, device=device)
    q = torch.randn(2, 8, 128, device=device).bfloat16()
    out, graph = torch.empty_like(q), torch.cuda.CUDAGraph()
    paged_decode_quant(q, cache, table, seq_lens, out=out)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        paged_decode_quant(q, cache, table, seq_lens, out=out)
    seq_lens.copy_(torch.tensor([900, 77]))
    graph.replay()
    assert torch.equal(out, paged_decode_quant(q, cache, table, seq_lens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_writing_stores_the_specified_bytes(device, kind, dtype):
    generator = torch.Generator().manual_seed(2)
    k, v = (torch.randn(2, 9, 3, 64, generator=generator) * torch.tensor([1e-4, 1.0, 300.0])[:, None]).to(device, dtype)
    k[0, 0], k[1, 1], v[2, 2] = 0.0, 0.75, -1.0  # without spread
    k[3, 0, 5], v[4, 1, 60], v[5, 2, 0] = torch.nan, torch.inf, 40000.0 if dtype == torch.float16 else 1e9
    slots = torch.tensor([31, 2, -1, 3, 17, 16, 0, 30, 9], device=device)
    ours, expected = (QuantKV.empty(kind, 2, 16, 3, 64, device=device) for _ in range(2))
    for cache in (ours, expected):
        cache.data.view(torch.uint8).fill_(0xAB)
        cache.parameters.fill_(-7.0)
    write_kv_quant(k, v, ours, slots)
    write_kv_quant_reference(k, v, expected, slots)
    assert torch.equal(ours.data.view(torch.uint8), expected.data.view(torch.uint8))
    assert torch.equal(ours.parameters.nan_to_num(nan=-3.0), expected.parameters.nan_to_num(nan=-3.0))
    assert expected.parameters.isnan().sum() == (6 if kind == "int4" else 3)  # three heads, no more
    assert (expected.parameters == -7.0).any()  # and what no slot names stays


@pytest.mark.parametrize(("kind", "worst"), [("int8", 1 / 254), ("fp8", 1 / 16), ("int4", 1 / 30)])
def test_numbers_come_back_within_half_a_step(kind, worst):
    k, v = torch.randn(2, 32, 2, 64, generator=torch.Generator().manual_seed(3))
    cache = QuantKV.empty(kind, 2, 16, 2, 64)
    write_kv_quant(k, v, cache, torch.arange(32), backend="torch")
    keys, values = cache.numbers().flatten(1, 2)
    for x, back in ((k, keys), (v, values)):
        spread = x.amax(-1) - x.amin(-1) if kind == "int4" else x.abs().amax(-1)
        error = (back - x).abs()
        step = x.abs() * worst + spread[..., None] / 448 * 2**-9 if kind == "fp8" else spread[..., None] * worst
        assert (error <= step * 1.01).all()
        assert relative_error(back, x) > worst / 100  # it is not the identity


def test_the_numbers_are_those_of_labcores_formats():
    x = torch.randn(5, 3, 64, generator=torch.Generator().manual_seed(4))
    data, (scale,) = quantize_heads(x, "int8")
    codes, parameter = Uniform(8, symmetric=True).quantize(x, -1, 64)
    assert torch.equal(data.int() + 127, codes.int()) and torch.equal(scale, parameter[..., 0])
    data, (scale, zero) = quantize_heads(x, "int4")
    codes, *parameters = Uniform(4).quantize(x, -1, 64)
    assert torch.equal(torch.cat((data & 15, data >> 4), -1), codes)
    assert torch.equal(scale, parameters[0][..., 0]) and torch.equal(zero, parameters[1][..., 0])
    data, (scale,) = quantize_heads(x, "fp8")
    assert torch.equal(data.view(torch.uint8), E4M3.encode(x / scale.float()[..., None]))


def test_a_broken_token_spoils_its_own_request_only(device):
    cache, table = random_cache("int8", [20, 20], 16, 1, 32, device)
    bad = torch.full((1, 1, 32), torch.inf, device=device)
    write_kv_quant(bad, bad, cache, table[0, :1].long() * 16 + 3)
    seq_lens = torch.tensor([20, 20], dtype=torch.int32, device=device)
    out = paged_decode_quant(torch.ones(2, 2, 32, device=device), cache, table, seq_lens)
    assert out[0].isnan().all() and out[1].isfinite().all()


def test_bytes_and_bad_input():
    per_head = {kind: QuantKV.empty(kind, 1, 16, 1, 128).nbytes / 32 for kind in KINDS}
    assert per_head == {"int8": 130, "fp8": 130, "int4": 68}  # of 256 in bf16
    cache = QuantKV.empty("int8", 4, 16, 2, 64)
    table, seq_lens = torch.zeros(1, 4, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    with pytest.raises(InputError, match="kind='int2': choose int8, fp8, int4"):
        QuantKV.empty("int2", 1, 16, 1, 64)
    with pytest.raises(InputError, match="the cache has 2 heads of 64"):
        paged_decode_quant(torch.zeros(1, 3, 64), cache, table, seq_lens)
    with pytest.raises(InputError, match="head_dim=32 in int4: the kernels take powers of two from 64"):
        paged_decode_quant(torch.zeros(1, 4, 32), QuantKV.empty("int4", 4, 16, 2, 32), table, seq_lens)
    with pytest.raises(InputError, match="pass int32"):
        paged_decode_quant(torch.zeros(1, 4, 64), cache, table, seq_lens.long())
    with pytest.raises(InputError, match="1 queries, 1 tables, 2 lengths"):
        paged_decode_quant(torch.zeros(1, 4, 64), cache, table, torch.ones(2, dtype=torch.int32))
    with pytest.raises(InputError, match="num_splits=0: pass a positive number"):
        paged_decode_quant(torch.zeros(1, 4, 64), cache, table, seq_lens, num_splits=0)
    with pytest.raises(InputError, match=r"out is torch\.float16"):
        paged_decode_quant(torch.zeros(1, 4, 64), cache, table, seq_lens, out=torch.zeros(1, 4, 64).half())
    with pytest.raises(InputError, match=r"this cache takes \[tokens, 2, 64\]"):
        write_kv_quant(torch.zeros(3, 2, 32), torch.zeros(3, 2, 32), cache, torch.arange(3))
    with pytest.raises(InputError, match=r"make it contiguous torch\.int64"):
        write_kv_quant(torch.zeros(3, 2, 64), torch.zeros(3, 2, 64), cache, torch.arange(3).int())


@pytest.mark.parametrize("kind", KINDS)
def test_torch_and_triton_agree(device, kind):
    cache, table = random_cache(kind, [40], 16, 2, 64, device)
    q, seq_lens = torch.randn(1, 4, 64, device=device), torch.tensor([40], dtype=torch.int32, device=device)
    ours, theirs = (paged_decode_quant(q, cache, table, seq_lens, backend=b) for b in ("triton", "torch"))
    assert relative_error(ours, theirs) < 1e-5 and math.isfinite(theirs.sum())
