"""Products with 4-bit weights: every layout read back exactly, and sums as right as torch's in the same dtype."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.formats.awq_checkpoint import pack_awq
from labcore.formats.block_encode import quantize as encode_blocks
from labcore.formats.blocks import dequantize as dequantize_blocks
from labcore.formats.blocks import named
from labcore.formats.gptq_checkpoint import pack_gptq, unpack_gptq
from labcore.formats.group_codes import GroupCodes
from labcore.kernels import w4a16
from labcore.kernels._config import pick
from labcore.kernels.w4_weight import repack, repack_awq, repack_gguf_q4_0, repack_gptq, tiled
from labcore.kernels.w4a16 import dequantized, splits_of_k, w4a16_linear, w4a16_reference
from tests.kernels.checks import DEVICE, DTYPES, close_as_torch

HALVES = [torch.float16, torch.bfloat16]


def codes(n, k, group, *, symmetric=False, shuffled=False, zeros=(0, 17), bits=4, seed=0) -> GroupCodes:
    """Random codes with scales as fp16 keeps them; zeros in range(*zeros)."""
    generator = torch.Generator().manual_seed(seed + n + k + group)
    number = torch.randint(0, 2**bits, (n, k), generator=generator).to(torch.uint8)
    scale = (torch.rand(n, k // group, generator=generator) + 0.1).half().float()
    zero = torch.randint(*zeros, scale.shape, generator=generator).float()
    shuffle = torch.randperm(k, generator=generator)
    g_idx = (torch.arange(k) // group)[shuffle] if shuffled else None
    return GroupCodes(number, scale, torch.full_like(zero, 8) if symmetric else zero, bits, g_idx)


def normal(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def layouts():
    """name -> (the repacked weight, float32 [N, K] as the format's own reader has it)."""
    n, k = 40, 256
    v1, act = codes(n, k, 128, zeros=(1, 17)), codes(n, k, 64, shuffled=True, zeros=(0, 16))
    awq, symmetric = codes(n, k, 32, zeros=(0, 16)), codes(n, k, 128, symmetric=True)
    raw = encode_blocks(normal(n, k).numpy(), named("Q4_0"))
    return {
        "GPTQ version 1": (repack_gptq(pack_gptq(v1, 1), 1), v1.dequantize()),
        "GPTQ version 2, act-order": (repack_gptq(pack_gptq(act, 2), 2), act.dequantize()),
        "GPTQ, symmetric": (repack_gptq(pack_gptq(symmetric)), symmetric.dequantize()),
        "AWQ": (repack_awq(pack_awq(awq)), awq.dequantize()),
        "Q4_0": (repack_gguf_q4_0(raw), torch.from_numpy(dequantize_blocks(raw, named("Q4_0")))),
    }


LAYOUTS = layouts()


def read_back(weight, dtype, rows, device=DEVICE):
    """What the product says the columns `rows` of the weight are: one product an output, so no error can hide."""
    hot = torch.eye(weight.shape[1], device=device, dtype=dtype)[rows]
    return w4a16_linear(hot, weight.to(device)).t().cpu()


# --- every layout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_repacking_keeps_every_weight(name):
    weight, exact = LAYOUTS[name]
    assert torch.equal(weight.dequantize(), exact)
    n, k = exact.shape
    assert weight.shape == (n, k) and weight.grid.shape == (k // weight.group, n)
    assert weight.nbytes == weight.data.nbytes + weight.grid.nbytes + (0 if weight.columns is None else 8 * k)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_one_hot_inputs_read_the_weight_back(device, name, dtype):
    """By one token (gemv), by 16 (sums scaled) and by all 256 at once (weights scaled)."""
    weight, exact = LAYOUTS[name]
    exact = exact.to(dtype)
    for column in (0, 31, 64, 255):
        assert torch.equal(read_back(weight, dtype, [column]), exact[:, [column]]), column
    some = torch.arange(3, 256, 17)
    assert torch.equal(read_back(weight, dtype, some), exact[:, some])
    assert torch.equal(read_back(weight, dtype, slice(None)), exact)


@pytest.mark.parametrize("dtype", HALVES)
def test_wrong_layouts_do_not_read_back(device, dtype):
    """What the test above is worth: mistakes of order and of zeros show in every path."""
    weight, exact = LAYOUTS["GPTQ version 1"]
    parts = pack_gptq(codes(40, 256, 128, zeros=(1, 17)), 1)
    number = repack(unpack_gptq(parts, 4, 1)).codes
    neighbours = torch.stack((number[:, ::4] | number[:, 1::4] << 4, number[:, 2::4] | number[:, 3::4] << 4), 2)
    by_row = weight.data.transpose(1, 2).flatten(0, 1).view(weight.data.shape)
    wrong = {
        "nibbles swapped": dataclasses.replace(weight, data=weight.data >> 4 | weight.data << 4),
        "bytes swapped": dataclasses.replace(weight, data=weight.data.unflatten(3, (-1, 2)).flip(4).flatten(3)),
        "neighbours in a word": dataclasses.replace(weight, data=tiled(neighbours.view(40, -1, 64))),
        "rows one after the other": dataclasses.replace(weight, data=by_row),
        "zeros off by one": repack_gptq(parts, 2),
        "stretches of half the length": dataclasses.replace(weight, group=64, grid=weight.grid.repeat_interleave(2, 0)),
    }
    for name, broken in wrong.items():
        for rows in ([70], torch.arange(6, 256, 16), slice(None)):
            assert not torch.equal(read_back(broken, dtype, rows), exact.to(dtype)[:, rows]), (name, rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_dequantized_weight_is_rounded_once(device, name, dtype):
    weight, exact = LAYOUTS[name]
    found = dequantized(weight.to(device), dtype).cpu()
    assert torch.equal(found, (exact if weight.columns is None else exact[:, weight.columns]).to(dtype))


# --- sums ----------------------------------------------------------------------------------------------------------


def check(n, k, group, tokens, dtype, device, *, bias=True, vector=None, launch=None, x=None, **how):
    weight = repack(codes(n, k, group, **how)).to(device)
    x = normal(tokens, k, dtype=dtype, device=device, seed=tokens) if x is None else x
    bias = normal(n, dtype=dtype, device=device, seed=1) if bias else None
    wide = torch.float32 if dtype != torch.float32 else torch.float64
    exact = F.linear(x.to(wide), weight.dequantize().to(wide), None if bias is None else bias.to(wide))
    both = tokens == 1 and dtype != torch.float32 and launch is None  # one token has a kernel without tensor cores, too
    for way in (True, False) if both else (vector,):
        ours = w4a16_linear(x, weight, bias, vector=way, launch=launch)
        close_as_torch(ours, F.linear(x, weight.dequantize().to(dtype), bias), exact)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("n", "k", "group", "tokens"),
    [
        (48, 256, 128, 1), (37, 192, 32, 1), (17, 192, 64, 1), (33, 1152, 128, 1),
        (37, 192, 32, 2), (33, 1152, 128, 7), (48, 256, 128, 16), (70, 640, 128, 17), (50, 192, 64, 33),
        (64, 128, 128, 65), (40, 64, 32, 129), (20, 128, 64, 300), (20, 128, 64, 400),
    ],
)  # fmt: skip
def test_sums_are_as_right_as_torchs(device, n, k, group, tokens, dtype):
    check(n, k, group, tokens, dtype, device, bias=dtype == torch.float16, symmetric=k == 192)


@pytest.mark.parametrize("tokens", [1, 5, 20])
def test_float32_inputs_are_multiplied_in_float32(device, tokens):
    check(37, 256, 64, tokens, torch.float32, device, shuffled=True)


@pytest.mark.parametrize("group", [128, 64, 32])
@pytest.mark.parametrize("join", [0, 1])
def test_every_way_to_multiply_says_the_same(device, join, group):
    launch = {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": join, "PTX": 0, "num_warps": 4}
    weight = repack(codes(48, 256, group)).to(device)
    hot = torch.eye(256, device=device, dtype=torch.bfloat16)[::17]
    found = w4a16_linear(hot, weight, launch=launch)
    assert torch.equal(found, weight.dequantize().bfloat16().t()[::17])
    check(48, 256, group, 9, torch.bfloat16, device, launch=launch)


@settings(max_examples=8)
@given(
    n=st.integers(1, 70),
    stretches=st.integers(1, 4),
    group=st.sampled_from([32, 64, 128]),
    tokens=st.integers(1, 70),
    how=st.fixed_dictionaries({"symmetric": st.booleans(), "shuffled": st.booleans(), "bits": st.sampled_from([2, 4])}),
)
def test_any_shape(n, stretches, group, tokens, how):
    check(n, stretches * max(group, 64), group, tokens, torch.float16, DEVICE, **how)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("tokens", [1, 3, 70])
def test_a_large_mean_of_the_inputs_does_not_drown_the_differences(device, tokens, dtype):
    """The kernel of one token subtracts what an exponent added, a sum over x: that must cancel."""
    x = (100 + normal(tokens, 512)).to(device, dtype)
    check(24, 512, 128, tokens, dtype, device, x=x, zeros=(7, 9))


def test_groups_of_a_whole_row_repeat_their_scale(device):
    source = codes(16, 192, 192)
    weight = repack(source)
    assert weight.group == 64 and weight.grid.shape == (3, 16)
    assert torch.equal(read_back(weight, torch.float16, slice(None)), source.dequantize().half())


def test_leading_dimensions_and_views(device):
    weight = repack(codes(24, 128, 64, shuffled=True)).to(device)
    x = normal(2, 3, 256, dtype=torch.float16, device=device)[..., ::2]
    assert torch.equal(w4a16_linear(x, weight), w4a16_linear(x.reshape(6, 128), weight).view(2, 3, 24))
    assert w4a16_linear(x[0, 0], weight).shape == (24,) and w4a16_linear(x[:0], weight).shape == (0, 3, 24)


# --- splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [2, 5])
def test_splits_add_up_and_say_the_same_twice(device, splits):
    weight, x = repack(codes(40, 640, 128)).to(device), normal(9, 640, dtype=torch.float16, device=device)
    bias = normal(40, dtype=torch.float16, device=device)
    tile = {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": 0, "PTX": 0, "num_warps": 4, "num_stages": 2}
    whole = w4a16_linear(x, weight, bias, launch=tile | {"splits": 1})
    parts = [w4a16_linear(x, weight, bias, launch=tile | {"splits": splits}) for _ in range(2)]
    assert torch.equal(parts[0], parts[1])
    torch.testing.assert_close(parts[0].float(), whole.float(), rtol=2e-3, atol=2e-3)


def test_a_launch_of_the_other_kernel_is_named(device):
    weight, x = repack(codes(8, 64, 32)).to(device), torch.zeros(1, 64, device=device).half()
    for vector, kind in ((True, "w4_gemm"), (False, "w4_gemv")):
        launch = next(iter(w4a16.candidates(kind, (9, 0))))
        with pytest.raises(InputError, match=f"vector={vector} and launch=.*the other kernel"):
            w4a16_linear(x, weight, vector=vector, launch=launch)


def test_one_token_is_one_of_a_tile_on_hopper_only():
    assert [w4a16.sums_plainly(cc) for cc in (None, (7, 5), (8, 0), (8, 9), (9, 0), (10, 0))] == [True] * 4 + [
        False
    ] * 2


def test_tiles_of_tokens():
    sizes = [w4a16.tile_of_tokens(tokens) for tokens in (1, 8, 9, 33, 64, 65, 256, 511)]
    assert sizes == [8, 8, 16, 64, 64, 128, 256, 256]
    few, many = (pick("w4_gemm", (9, 0), tokens=8, few_rows=few, wide=False) for few in (True, False))
    assert (few["BLOCK_N"], many["BLOCK_N"]) == (64, 128)  # fewer outputs, smaller tiles


def test_splits_fill_the_slots_and_no_more():
    assert splits_of_k(tiles=896, stretches=64, slots=264) == 1
    assert splits_of_k(tiles=64, stretches=32, slots=264) == 4
    assert splits_of_k(tiles=1, stretches=112, slots=264) == 16
    assert splits_of_k(tiles=1, stretches=3, slots=264) == 1


@pytest.mark.parametrize(("many", "some"), [(16, 9), (8, 5)])
def test_a_token_does_not_depend_on_its_companions(device, many, some):
    weight, x = repack(codes(40, 256, 128)).to(device), normal(many, 256, dtype=torch.bfloat16, device=device)
    together = w4a16_linear(x, weight)
    assert torch.equal(w4a16_linear(x[:some], weight), together[:some])
    assert torch.equal(w4a16_linear(x.flip(0), weight), together.flip(0))


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_cannot_be_repacked_is_named():
    with pytest.raises(InputError, match="codes of 8 bits"):
        repack(codes(8, 64, 32, bits=8))
    with pytest.raises(InputError, match="96 columns in 2 groups: each must have a multiple of 32"):
        repack(codes(8, 96, 48))
    with pytest.raises(InputError, match="96 columns: the kernels take a multiple of 64"):
        repack(codes(8, 96, 32))
    with pytest.raises(InputError, match="zeros from 17 to 17"):
        repack(codes(8, 64, 32, zeros=(17, 18)))
    uneven = dataclasses.replace(codes(8, 64, 32), g_idx=(torch.arange(64) < 10).long())
    with pytest.raises(InputError, match="g_idx gives groups 10 to 54 columns"):
        repack(uneven)


def test_inputs_that_do_not_fit_are_named(device):
    weight = repack(codes(8, 64, 32))
    with pytest.raises(InputError, match=r"x is torch.float32 \(2, 32\): the weight needs floats \[..., 64\]"):
        w4a16_linear(torch.zeros(2, 32), weight)
    with pytest.raises(InputError, match=r"x is torch.int64"):
        w4a16_linear(torch.zeros(2, 64, dtype=torch.int64), weight)
    with pytest.raises(InputError, match=r"bias has shape \(7,\): pass \[8\]"):
        w4a16_linear(torch.zeros(2, 64), weight, torch.zeros(7))
    with pytest.raises(InputError, match=r"vector=True of x \(2, 64\) in torch\.float16: it takes one token"):
        w4a16_linear(torch.zeros(2, 64, device=device).half(), weight.to(device), vector=True)


def test_torch_computes_the_same(device):
    weight = repack(codes(24, 128, 64, shuffled=True)).to(device)
    x, bias = normal(5, 128, device=device), normal(24, device=device)
    found = w4a16_linear(x, weight, bias, backend="torch")
    torch.testing.assert_close(found, w4a16_reference(x, weight, bias), rtol=1e-5, atol=1e-5)
    assert torch.equal(dequantized(weight, torch.float16, backend="torch"), dequantized(weight, torch.float16))


# --- sizes that only a GPU is quick enough for ---------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="large products need a GPU")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("tokens", [1, 7, 32, 64, 100, 256, 511, 600])
@pytest.mark.parametrize(("n", "k", "group"), [(2048, 4096, 128), (1500, 7168, 64), (20_000, 512, 32)])
def test_large_products(device, n, k, group, tokens, dtype):
    check(n, k, group, tokens, dtype, device)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="other launch choices need a GPU")
@pytest.mark.parametrize(("kind", "tokens"), [("w4_gemv", 1), ("w4_gemm", 16), ("w4_gemm", 200)])
def test_other_launch_choices(device, kind, tokens):
    for launch in list(w4a16.candidates(kind, torch.cuda.get_device_capability()))[::6]:  # the sweep tries all
        if tokens == 1 or (launch["BLOCK_M"] <= 64) == (tokens <= 64):
            check(1000, 2048, 128, tokens, torch.bfloat16, device, vector=kind == "w4_gemv", launch=launch)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("tokens", [1, 16, 200, 512])
def test_a_cuda_graph_records_it(device, tokens):
    weight = repack(codes(512, 1024, 128, shuffled=True)).to(device)
    x, bias = normal(tokens, 1024, dtype=torch.bfloat16, device=device), normal(512, device=device).bfloat16()
    expected = w4a16_linear(x, weight, bias)
    still, graph = torch.zeros_like(x), torch.cuda.CUDAGraph()
    w4a16_linear(still, weight, bias)
    with torch.cuda.graph(graph):
        out = w4a16_linear(still, weight, bias)
    still.copy_(x)
    graph.replay()
    assert torch.equal(out, expected)
