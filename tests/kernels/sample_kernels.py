"""A kernel module as `labcore.kernels._compile` expects one: for tests of the compile check itself."""

import triton
import triton.language as tl

from labcore.kernels._compile import Variant


@triton.jit
def product(a_ptr, b_ptr, out_ptr, scale, K, N: tl.constexpr):
    at = tl.arange(0, N)
    tile = at[:, None] * N + at[None, :]
    acc = tl.zeros([N, N], tl.float32)
    for k in range(0, K, N):
        acc += tl.dot(tl.load(a_ptr + tile + k), tl.load(b_ptr + tile + k * N))
    tl.store(out_ptr + tile, (acc * scale).to(tl.bfloat16))


@triton.jit
def overlapped(a_ptr, b_ptr, out_ptr, steps, N: tl.constexpr):
    """A left operand that has to be converted is in registers, and its product goes on past the end of the loop."""
    at = tl.arange(0, N)
    tile = at[:, None] * N + at[None, :]
    acc = tl.zeros([N, N], tl.float32)
    tl.assume(steps > 0)
    for step in range(steps):
        a = tl.load(a_ptr + step * N * N + tile).to(tl.bfloat16)
        acc = tl.dot(a, tl.load(b_ptr + step * N * N + tile), acc)
    tl.store(out_ptr + tile, acc)


SIGNATURE = {"a_ptr": "*bf16", "b_ptr": "*bf16", "out_ptr": "*bf16", "scale": "fp32", "K": "i32:16"}


def variants(cc):
    good = {"N": 64, "num_warps": 4, "num_stages": 3}
    yield Variant.of("good", product, SIGNATURE, good, ["wgmma", "cp.async"])
    yield Variant.of("spills", product, SIGNATURE, {"N": 32, "num_warps": 1, "num_stages": 3, "maxnreg": 32})
    yield Variant.of("no wgmma", product, SIGNATURE, good | {"N": 16}, ["wgmma"])
    yield Variant.of("does not compile", product, SIGNATURE | {"a_ptr": "*fp32"}, good)
    yield Variant.of("too much shared memory", product, SIGNATURE, {"N": 128, "num_warps": 8, "num_stages": 5})
    signature = {"a_ptr": "*i8", "b_ptr": "*bf16", "out_ptr": "*fp32", "steps": "i32"}
    yield Variant.of("gives registers away", overlapped, signature, good, ["wgmma"])
