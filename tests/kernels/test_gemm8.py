"""8-bit products: codes as the formats' own encoders choose them, int32 sums exact, fp8 sums within the hardware's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.kernels import gemm8
from labcore.kernels.gemm8 import (
    fp8_matmul,
    int8_matmul,
    matmul8_reference,
    quantize_rows,
    quantize_rows_reference,
)
from tests.kernels.checks import DEVICE, DTYPES, relative_error

SHAPES = [(1, 1, 16), (5, 70, 200), (70, 33, 160)]
TMA = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "BAND": 2, "TMA": 1}
E4M3 = torch.float8_e4m3fn
# an fp8 sum is exact in the interpreter; on a GPU it has fewer bits than float32 (kernels.md: 4e-3 to K = 4096)
FP8_ROWS, FP8_BLOCKS = (1e-6, 1e-6) if DEVICE == "cpu" else (4e-3, 2.5e-3)


def normal(*shape, seed=0, dtype=torch.float32, device=DEVICE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def same_bytes(found, expected):
    assert found.dtype == expected.dtype and torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


# --- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_codes_are_those_of_the_formats(device, kind, dtype):
    x = normal(6, 130) * torch.tensor([[1.0], [1e-3], [0.0], [100.0], [1.0], [3.0]], device=device)
    x[4, 7], x = 1000.0, x.to(dtype)
    found, scale = (part.cpu() for part in quantize_rows(x, kind))
    expected, exact = quantize_rows_reference(x.cpu(), kind)  # torch divides by a number inexactly on a GPU
    same_bytes(found, expected)
    assert torch.equal(scale, exact) and scale.shape == (6, 1)
    assert (found.float()[2] == 0).all() and scale[2] == 1


def test_codes_are_refused_for_what_is_no_matrix():
    with pytest.raises(InputError, match="kind='int4': choose 'fp8' or 'int8'"):
        quantize_rows(normal(2, 4), "int4")
    with pytest.raises(InputError, match=r"x is torch.float32 \(4,\): pass a matrix"):
        quantize_rows(normal(4), "fp8")


# --- sums ----------------------------------------------------------------------------------------------------------


def pair(m, n, k, kind, device, seed=0):
    return *quantize_rows(normal(m, k, seed=seed), kind), *quantize_rows(normal(n, k, seed=seed + 1), kind)


@pytest.mark.parametrize("launch", [None, TMA])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_int8_sums_are_exact(device, m, n, k, launch):
    a, sa, b, sb = pair(m, n, k, "int8", device)
    sums = int8_matmul(a, b, launch=launch)
    assert sums.dtype == torch.int32 and torch.equal(sums.double(), a.double() @ b.double().t())
    scaled = int8_matmul(a, b, sa, sb, out_dtype=torch.float32, launch=launch)
    assert relative_error(scaled, matmul8_reference(a, b, sa, sb)) < 1e-6
    assert int8_matmul(a, b, sa, sb, launch=launch).dtype == torch.bfloat16


def test_int8_sums_beyond_what_a_float_holds(device):
    a = torch.full((17, 1200), 127, dtype=torch.int8, device=device)
    a[:, ::2], a[3, 5] = -127, 126  # 1200 · 127² is more than 2^24
    assert torch.equal(int8_matmul(a, a).double(), a.double() @ a.double().t())


@pytest.mark.parametrize("launch", [None, TMA])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_fp8_with_a_scale_a_row(device, m, n, k, launch):
    a, sa, b, sb = pair(m, n, k, "fp8", device)
    exact = matmul8_reference(a, b, sa, sb)
    found = fp8_matmul(a, b, sa, sb, out_dtype=torch.float32, launch=launch)
    assert relative_error(found, exact) < FP8_ROWS
    assert relative_error(fp8_matmul(a, b, sa, sb, launch=launch), exact) < FP8_ROWS + 4e-3  # rounded to bf16


@pytest.mark.parametrize("launch", [None, TMA])
@pytest.mark.parametrize(("m", "n", "k"), [(5, 70, 200), (20, 200, 300)])
def test_fp8_with_a_scale_a_block(device, m, n, k, launch):
    a, b = (normal(rows, k, seed=rows).to(E4M3) for rows in (m, n))
    generator = torch.Generator().manual_seed(0)
    across = -(-k // 128)
    sa, sb = (torch.rand(rows, across, generator=generator).to(device) for rows in (m, -(-n // 128)))
    found = fp8_matmul(a, b, sa, sb, block=128, out_dtype=torch.float32, launch=launch)
    assert relative_error(found, matmul8_reference(a, b, sa, sb, 128)) < FP8_BLOCKS
    swapped = fp8_matmul(a, b, sa.flip(1), sb, block=128, out_dtype=torch.float32, launch=launch)
    assert across == 1 or relative_error(swapped, matmul8_reference(a, b, sa, sb, 128)) > 0.1


@settings(max_examples=4)
@given(m=st.integers(1, 70), n=st.integers(1, 70), k=st.integers(1, 200), tma=st.booleans())
def test_any_shape(m, n, k, tma):
    a, _, b, _ = pair(m, n, k, "int8", DEVICE)
    assert torch.equal(int8_matmul(a, b, launch=TMA if tma else None).double(), a.double() @ b.double().t())


def test_persistent_programs_leave_no_tile_out(device):
    """Two programs (more on a GPU) for all tiles, in bands that the last does not fill."""
    a, _, b, _ = pair(150, 60, 32, "int8", device)
    for launch in (TMA, TMA | {"TMA": 0}):
        assert torch.equal(int8_matmul(a, b, launch=launch | {"persistent": 1}), int8_matmul(a, b, backend="torch"))


def test_torch_computes_the_same(device):
    a, sa, b, sb = pair(20, 30, 64, "fp8", device)
    assert relative_error(fp8_matmul(a, b, sa, sb, backend="torch"), matmul8_reference(a, b, sa, sb)) < 4e-3
    a, sa, b, sb = pair(20, 30, 64, "int8", device)
    assert torch.equal(int8_matmul(a, b, backend="torch"), int8_matmul(a, b))
    assert relative_error(int8_matmul(a, b, sa, sb, backend="torch"), matmul8_reference(a, b, sa, sb)) < 4e-3


def test_what_does_not_fit_is_named():
    a, b = torch.zeros(4, 32, dtype=torch.int8), torch.zeros(6, 32, dtype=torch.int8)
    rows, columns = torch.ones(4, 1), torch.ones(6, 1)
    with pytest.raises(InputError, match=r"both must be torch\.float8_e4m3fn"):
        fp8_matmul(a, b, rows, columns)
    with pytest.raises(InputError, match=r"a \(4, 32\) and b \(6, 16\): pass \[M, K\] and \[N, K\]"):
        int8_matmul(a, b[:, :16], rows, columns)
    with pytest.raises(InputError, match=r"sb is torch.float32 \(4, 1\): make it contiguous torch.float32 \(6, 1\)"):
        int8_matmul(a, b, rows, rows)
    with pytest.raises(InputError, match="pass both scales, or neither"):
        int8_matmul(a, b, rows)
    with pytest.raises(InputError, match="block=64: scales cover a row"):
        fp8_matmul(a.to(E4M3), b.to(E4M3), rows, columns, block=64)


# --- what only a GPU shows -----------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="the rounding of tensor cores needs a GPU")
def test_promoted_sums_err_less_over_a_deep_k(device):
    a, sa, b, sb = pair(256, 256, 16_384, "fp8", device)
    across = 16_384 // 128
    exact = matmul8_reference(a, b, sa, sb)
    plain = relative_error(fp8_matmul(a, b, sa, sb, out_dtype=torch.float32), exact)
    blocks = sa.expand(-1, across).contiguous(), torch.ones(2, across, device=device)
    promoted = fp8_matmul(a, b, *blocks, block=128, out_dtype=torch.float32) * sb.t()
    assert relative_error(promoted, exact) < min(plain, FP8_BLOCKS) and plain < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="large products need a GPU")
@pytest.mark.parametrize(("m", "n", "k"), [(64, 5000, 4096), (17, 1024, 2048), (1000, 3000, 4096)])
def test_large_products(device, m, n, k):
    a, sa, b, sb = pair(m, n, k, "fp8", device)
    assert relative_error(fp8_matmul(a, b, sa, sb, out_dtype=torch.float32), matmul8_reference(a, b, sa, sb)) < FP8_ROWS
    a, sa, b, sb = pair(m, n, k, "int8", device)
    assert torch.equal(int8_matmul(a, b).double(), a.double() @ b.double().t())


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="other launch choices need a GPU")
@pytest.mark.parametrize("m", [64, 300])
def test_other_launch_choices(device, m):
    a, sa, b, sb = pair(m, 1000, 1024, "fp8", device)
    exact = matmul8_reference(a, b, sa, sb)
    for launch in list(gemm8.candidates("fp8_matmul", torch.cuda.get_device_capability()))[::6]:  # the sweep tries all
        found = fp8_matmul(a, b, sa, sb, out_dtype=torch.float32, launch=launch)
        assert relative_error(found, exact) < FP8_ROWS, launch


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="CUDA graphs need a GPU")
def test_a_cuda_graph_records_it(device):
    a, sa, b, sb = pair(300, 500, 512, "fp8", device)
    expected, graph = fp8_matmul(a, b, sa, sb), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fp8_matmul(a, b, sa, sb)
    graph.replay()
    assert torch.equal(out, expected)
