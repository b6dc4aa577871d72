"""The interpreter's bf16 and 8-bit floats, with the shim and (to see the tests can fail) without it."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from labcore.kernels._compat import interpreting  # noqa: E402
from labcore.kernels._interpreter import bf16_shim  # noqa: E402

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: kernels run on the GPU")

N = 64
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@triton.jit
def elementwise(a, b, out, op: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x, y = tl.load(a + at), tl.load(b + at)
    if op == "add":
        z = x + y
    elif op == "sub":
        z = x - y
    elif op == "mul":
        z = x * y
    elif op == "div":
        z = x / y
    elif op == "maximum":
        z = tl.maximum(x, y)
    elif op == "neg":
        z = -x
    elif op == "abs":
        z = tl.abs(x)
    elif op == "where":
        z = tl.where(x > y, x, y * 2)
    elif op == "scale":
        z = x * 0.3 + tl.full([N], 1.5, tl.bfloat16)
    tl.store(out + at, z.to(out.dtype.element_ty))


@triton.jit
def product(a, b, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tile = at[:, None] * N + at[None, :]
    tl.store(out + tile, tl.dot(tl.load(a + tile), tl.load(b + tile), input_precision="ieee"))


@triton.jit
def reduce(a, out, op: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(a + at[:, None] * N + at[None, :])
    if op == "sum":
        r = tl.sum(x, 1)
    elif op == "max":
        r = tl.max(x, 1)
    elif op == "cumsum":
        r = tl.sum(tl.where(at[None, :] == N - 1, tl.cumsum(x.to(tl.float32), 1), 0.0), 1)
    tl.store(out + at, r.to(out.dtype.element_ty))


@triton.jit
def cast(a, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(a + at).to(out.dtype.element_ty))


def normal(*shape, dtype=torch.bfloat16, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


TORCH = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "maximum": torch.maximum,
    "neg": lambda x, y: -x,
    "abs": lambda x, y: x.abs(),
    "where": lambda x, y: torch.where(x > y, x, y * 2),
    "scale": lambda x, y: x * torch.tensor(0.3, dtype=x.dtype) + 1.5,
}


def run_elementwise(op):
    x, y, out = normal(N), normal(N, seed=1), torch.full((N,), torch.nan).bfloat16()
    elementwise[(1,)](x, y, out, op, N)
    return out, TORCH[op](x, y)


@pytest.mark.parametrize("op", TORCH)
def test_arithmetic_in_bf16_is_torchs_bit_for_bit(op):
    with bf16_shim():
        ours, expected = run_elementwise(op)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("op", ["add", "mul"])
def test_without_the_shim_it_is_not(op):
    ours, expected = run_elementwise(op)
    assert not torch.equal(ours, expected)


@pytest.mark.parametrize(("shim", "right"), [(bf16_shim, True), (nullcontext, False)], ids=["with", "without"])
def test_a_dot_of_bf16_is_exact_in_float32_only_with_the_shim(shim, right):
    a, b, out = normal(N, N), normal(N, N, seed=1), torch.full((N, N), torch.nan)
    with shim():
        product[(1,)](a, b, out, N)
    error = (out.double() - a.double() @ b.double()).abs().max()
    assert (error < 1e-5) == right, error


@pytest.mark.parametrize("op", ["sum", "max", "cumsum"])
def test_reductions_of_bf16(op):
    x, out = normal(N, N), torch.full((N,), torch.nan).bfloat16()
    with bf16_shim():
        reduce[(1,)](x, out, op, N)
    expected = x.amax(1) if op == "max" else x.float().sum(1).bfloat16()
    assert (out.float() - expected.float()).abs().max() <= 2**-7 * expected.float().abs().max()
    if op == "max":
        assert torch.equal(out, expected)


def run_cast(x, dtype):
    out = torch.zeros(len(x), dtype=dtype)
    cast[(1,)](x, out, len(x))
    return out


def awkward(dtype, scale):
    """Ties in both directions, subnormals, zeros of both signs, the largest numbers; 4096 in all."""
    grid = torch.arange(-2048, 2048).float() / 2048 * scale
    grid[:16] = torch.tensor(
        [0.0, -0.0, 2**-7, 2**-9, 2**-10, 2**-11, 3 * 2**-10, 1e-3, 448, 240, 1.0625, 1.1875, 1, -1, 17, 19]
    )
    return grid.to(dtype)


@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", [torch.float32, torch.float16, torch.bfloat16, *FLOAT8])
def test_casts_round_to_nearest_even_like_torchs(source, target):
    x = awkward(source, 440.0)
    with bf16_shim():
        ours = run_cast(x, target)
    assert torch.equal(ours.float(), x.to(target).float())


def test_without_the_shim_casts_truncate_or_do_not_carry():
    x = awkward(torch.float32, 440.0)
    assert not torch.equal(run_cast(x, torch.bfloat16), x.bfloat16())
    assert not torch.equal(run_cast(x, torch.float8_e4m3fn).float(), x.to(torch.float8_e4m3fn).float())


def test_a_cast_to_e4m3_saturates_and_keeps_nan():
    x = torch.tensor([1000.0, -1e9, torch.inf, torch.nan])
    with bf16_shim():
        assert run_cast(x, torch.float8_e4m3fn).float().tolist()[:3] == [448, -448, 448]
        assert run_cast(x, torch.float8_e4m3fn).float().isnan().tolist() == [False, False, False, True]
        assert run_cast(x, torch.bfloat16).float().isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize("dtype", FLOAT8)
def test_every_8_bit_float_reads_back_right(dtype):
    codes = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(dtype)
    with bf16_shim():
        ours = run_cast(codes, torch.float32)
    assert torch.equal(ours.nan_to_num(nan=7777.0), codes.float().nan_to_num(nan=7777.0))


def test_integers_become_bf16_and_come_back():
    x = torch.arange(-128, 128, dtype=torch.int8)
    with bf16_shim():
        assert torch.equal(run_cast(x, torch.bfloat16), x.bfloat16())
        assert torch.equal(run_cast(x.bfloat16(), torch.int8), x)


def test_float16_and_float32_are_what_they_were():
    x, out = normal(N, N, dtype=torch.float16), torch.full((N, N), torch.nan)
    product[(1,)](x, x, out, N)
    with bf16_shim():
        again = torch.full((N, N), torch.nan)
        product[(1,)](x, x, again, N)
    assert torch.equal(out, again)


def test_nothing_stays_patched_behind_the_block():
    before = run_elementwise("add")[0]
    with pytest.raises(ZeroDivisionError), bf16_shim():
        raise ZeroDivisionError
    assert torch.equal(run_elementwise("add")[0].view(torch.int16), before.view(torch.int16))
