"""Rows d1–d5 of `labcore bench --device cuda`: products with 4-bit weights beside torch's with bf16 ones.

The weights are those of gate and up of Llama 3 70B and, for d5, of a layer of Llama 3 8B, in groups of 128 with zeros.
bytes_ratio, in a row's config, is what the baseline reads over what we read: at a bandwidth both reach, the speedup.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from labcore.bench.cuda_rows import bars, both, close, floor, measured, sets
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels._compat import capability
from labcore.kernels.bench_inputs import BF16, normal
from labcore.kernels.w4_weight import W4Weight, grid_of, tiled
from labcore.kernels.w4a16 import sums_plainly, w4a16_linear

GROUP = 128
LARGE = (57_344, 8192)  # outputs, inputs
LAYER = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28_672, 4096), "down": (4096, 14_336)}
TOKENS = {  # row: tokens, bars
    "d1": (1, (2.6, 3.2, 3.5)),
    "d2": (16, (2.2, 2.9, 3.3)),
    "d3": (64, (1.3, 1.8, 2.2)),
    "d4.m256": (256, (0.60, 0.80, 0.95)),
    "d4.m4096": (4096, (0.60, 0.80, 0.95)),
}
BAR = 4e-3


def suite(run: CudaRun) -> None:
    """Rows gpu.d1 to gpu.d5, gpu.d1.vector (on Hopper)."""
    run.attempt_all(ROWS)


def random_weight(run: CudaRun, n: int, k: int, seed: int = 0) -> W4Weight:
    """Random codes, scales and zeros, as a checkpoint's."""
    generator = torch.Generator(run.device).manual_seed(seed)
    options = {"generator": generator, "device": run.device}
    data = tiled(torch.randint(256, (n, k // GROUP, GROUP // 2), dtype=torch.uint8, **options))
    scale = (0.005 + 0.01 * torch.rand(k // GROUP, n, **options)).half()
    zero = torch.randint(6, 11, (k // GROUP, n), dtype=torch.uint8, **options)
    return W4Weight(data, grid_of(scale, zero), GROUP)


class Product:
    """x [tokens, K] times one weight, 4-bit and dequantized."""

    def __init__(self, run: CudaRun, n: int, k: int, tokens: int, seed: int = 0):
        self.weight, self.x = random_weight(run, n, k, seed), normal(run, tokens, k, seed=seed + 1)
        self.out = self.x.new_empty(tokens, n)

    @cached_property
    def plain(self) -> Tensor:
        """The weight in sixteen bits."""
        return self.weight.dequantize().to(self.x.dtype)

    def ours(self) -> Tensor:
        """From four bits."""
        return w4a16_linear(self.x, self.weight)

    def without_tensor_cores(self) -> Tensor:
        """The same of one token."""
        return w4a16_linear(self.x, self.weight, vector=True)

    def with_tensor_cores(self) -> Tensor:
        """The same, whatever the number of tokens."""
        return w4a16_linear(self.x, self.weight, vector=False)

    def theirs(self) -> Tensor:
        """From sixteen."""
        return torch.mm(self.x, self.plain.t(), out=self.out)

    def check(self) -> dict:
        """Some of the tokens, every output, against the product with the exact weight in float32."""
        some = slice(0, 64)
        exact = self.x[some].float() @ self.weight.dequantize().t()
        return close(self.ours()[some], exact, BAR, "against x Wᵀ in float32, W as stored")

    def bytes(self, weights: int) -> float:
        """Moved with so many bytes of weights: those, the tokens, and the outputs."""
        return weights + BF16 * (self.x.numel() + self.out.numel())


def large(run: CudaRun, key: str, tokens: int, bar: tuple[float, float, float]) -> Iterator[Row]:
    """One matrix larger than any cache."""
    product = Product(run, *LARGE, tokens)
    n, k = LARGE
    calls = {"ours": [product.ours], "torch.matmul bf16": [product.theirs]}
    beside_vector = tokens == 1 and not sums_plainly(capability(run.device))
    if beside_vector:
        calls["without tensor cores"] = [product.without_tensor_cores]
    found = measured(run, calls, product.check)
    nbytes = product.bytes(product.weight.nbytes)
    what = f"4-bit weight of {n:,} × {k:,} times {tokens:,} token{'s' * (tokens > 1)}"
    fields = {
        "dtype": "bf16 × int4",
        "shape": {"M": tokens, "N": n, "K": k, "group": GROUP},
        "config": {"bytes_ratio": round(product.bytes(product.plain.nbytes) / nbytes, 3)},
        **floor(run, nbytes=nbytes, flops=2 * tokens * n * k),
    }
    yield found.row(f"gpu.{key}", what, ["torch.matmul bf16"], target=bars(*bar), **fields)
    if beside_vector:
        yield found.row(
            f"gpu.{key}.vector", f"{what}, against the kernel without tensor cores", ["without tensor cores"], **fields
        )


def layer(run: CudaRun) -> Iterator[Row]:
    """d5: the four products of a layer for one token, in one CUDA graph."""
    nbytes = sum(n * k / 2 for n, k in LAYER.values())
    stacks = [
        [Product(run, n, k, 1, seed=10 * turn + i) for i, (n, k) in enumerate(LAYER.values())]
        for turn in range(sets(run, nbytes))
    ]

    def each(name: str) -> list[Callable[[], list[Tensor]]]:
        return [lambda stack=stack: [getattr(product, name)() for product in stack] for stack in stacks]

    check = lambda: both(*(product.check() for product in stacks[0]))  # noqa: E731
    found = measured(run, {"ours": each("ours"), "torch.matmul bf16": each("theirs")}, check, graph=True)
    moved = sum(product.bytes(product.weight.nbytes) for product in stacks[0])
    plain = sum(product.bytes(product.plain.nbytes) for product in stacks[0])
    yield found.row(
        "gpu.d5",
        "the four products of a layer of Llama 3 8B for one token, 4-bit weights",
        ["torch.matmul bf16"],
        target=bars(2.0, 2.6, 3.0),
        dtype="bf16 × int4",
        shape={"M": 1, "group": GROUP, "matrices": [list(shape) for shape in LAYER.values()]},
        config={"bytes_ratio": round(plain / moved, 3)},
        **floor(run, nbytes=moved),
    )


ROWS = {f"gpu.{key}": lambda run, key=key, row=row: large(run, key, *row) for key, row in TOKENS.items()}
ROWS["gpu.d5"] = layer
