"""Rows e1–e3 of `labcore bench --device cuda`: 8-bit matrix products beside torch's, and the error of fp8 over K."""

from collections.abc import Iterator

import torch
from torch import Tensor

from labcore.bench.cuda_rows import bars, close, floor, measured
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.bench_inputs import normal
from labcore.kernels.gemm8 import BLOCK, fp8_matmul, int8_matmul, matmul8_reference, quantize_rows

SQUARE = 8192
DECODE = (64, 57_344, 8192)  # M, N, K: gate and up of Llama 3 70B for 64 tokens
DEPTHS = (512, 2048, 8192, 28_672)
SMALL = 1024  # rows and columns of the products whose error is measured
FP8_BAR, INT8_BAR = 1e-2, 4e-3  # relative Frobenius against exact sums of the same 8-bit numbers


def suite(run: CudaRun) -> None:
    """Rows gpu.e1, gpu.e2, gpu.e3 (and .bf16), gpu.fp8_error.*."""
    run.attempt_all(ROWS)


class Product:
    """a [M, K] times b [N, K] transposed, in bf16 and in 8 bits with a scale a row of each."""

    def __init__(self, run: CudaRun, m: int, n: int, k: int, kind: str):
        self.a, self.b = normal(run, m, k, seed=1), normal(run, n, k, seed=2)
        (self.qa, self.sa), (self.qb, self.sb) = (quantize_rows(x, kind) for x in (self.a, self.b))
        self.out = self.a.new_empty(m, n)
        self.m, self.n, self.k, self.kind = m, n, k, kind

    def bf16(self) -> Tensor:
        """torch.matmul of what was quantized."""
        return torch.mm(self.a, self.b.t(), out=self.out)

    def check(self, out: Tensor, bar: float) -> dict:
        """Some rows and columns against exact sums of the 8-bit numbers, scaled."""
        rows, columns = (torch.randperm(size, device=out.device)[:256] for size in (self.m, self.n))
        exact = matmul8_reference(self.qa[rows], self.qb[columns], self.sa[rows], self.sb[columns])
        return close(out[rows][:, columns], exact, bar, "256 × 256 of the outputs against sums in float64")

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        nbytes = self.m * self.k + self.n * self.k + 2 * self.m * self.n
        # fp8's rate for int8, too: the units are as fast in both, and torch's own int8 product reaches less of it
        work = floor(run, nbytes=nbytes, flops=2 * self.m * self.n * self.k, units="fp8")
        return {"dtype": self.kind, "shape": {"M": self.m, "N": self.n, "K": self.k}, **work}


def scaled_mm(product: Product) -> Tensor:
    """torch's fp8 product with a scale a row and a column, in its fast accumulation."""
    sa, sb = product.sa.reshape(-1, 1), product.sb.reshape(1, -1)
    return torch._scaled_mm(product.qa, product.qb.t(), sa, sb, out_dtype=torch.bfloat16, use_fast_accum=True)


def fp8(run: CudaRun) -> Iterator[Row]:
    """e1: against cuBLAS in fp8 and in bf16."""
    product = Product(run, SQUARE, SQUARE, SQUARE, "fp8")
    ours = lambda: fp8_matmul(product.qa, product.qb, product.sa, product.sb)  # noqa: E731
    theirs = {"torch._scaled_mm": [lambda: scaled_mm(product)], "torch.matmul bf16": [product.bf16]}
    found = measured(run, {"ours": [ours], **theirs}, lambda: product.check(ours(), FP8_BAR))
    what, fields = f"fp8 product of {SQUARE}³, a scale a row", product.fields(run)
    yield found.row("gpu.e1", what, ["torch._scaled_mm"], target=bars(0.75, 0.88, 0.95), **fields)
    yield found.row("gpu.e1.bf16", what, ["torch.matmul bf16"], target=bars(1.4, 1.65, 1.8), **fields)


def int8(run: CudaRun) -> Iterator[Row]:
    """e2: against cuBLAS in int8, with the scaling compiled into one kernel behind it, and in bf16."""
    product = Product(run, SQUARE, SQUARE, SQUARE, "int8")
    ours = lambda: int8_matmul(product.qa, product.qb, product.sa, product.sb)  # noqa: E731
    sa, sb = product.sa.reshape(-1, 1), product.sb.reshape(1, -1)
    rescale = torch.compile(lambda sums, sa, sb: (sums * sa * sb).to(torch.bfloat16), dynamic=False)
    int_mm = lambda: rescale(torch._int_mm(product.qa, product.qb.t()), sa, sb)  # noqa: E731
    theirs = {"torch._int_mm and compiled rescale": [int_mm], "torch.matmul bf16": [product.bf16]}
    found = measured(run, {"ours": [ours], **theirs}, lambda: product.check(ours(), INT8_BAR))
    what, fields = f"int8 product of {SQUARE}³, a scale a row", product.fields(run)
    yield found.row("gpu.e2", what, [next(iter(theirs))], target=bars(0.90, 1.05, 1.2), **fields)
    yield found.row("gpu.e2.bf16", what, ["torch.matmul bf16"], target=bars(1.3, 1.55, 1.75), **fields)


def fp8_decode(run: CudaRun) -> Iterator[Row]:
    """e3: few rows, where fp8 halves the bytes."""
    product = Product(run, *DECODE, "fp8")
    ours = lambda: fp8_matmul(product.qa, product.qb, product.sa, product.sb)  # noqa: E731
    theirs = {"torch.matmul bf16": [product.bf16], "torch._scaled_mm": [lambda: scaled_mm(product)]}
    found = measured(run, {"ours": [ours], **theirs}, lambda: product.check(ours(), FP8_BAR))
    what, fields = "fp8 product of {} × {} × {}".format(*DECODE), product.fields(run)
    yield found.row("gpu.e3", what, ["torch.matmul bf16"], target=bars(1.6, 1.8, 1.9), **fields)
    yield found.row("gpu.e3.fp8", what, ["torch._scaled_mm"], **fields)


def error_over_k(run: CudaRun) -> Iterator[Row]:
    """Relative error of the fp8 product over its depth: one scale a row, and promoted every 128 with scales a block."""
    for k in DEPTHS:
        product = Product(run, SMALL, SMALL, k, "fp8")
        block_a = product.sa.expand(-1, k // BLOCK).contiguous()
        block_b = product.qb.new_ones(SMALL // BLOCK, k // BLOCK, dtype=torch.float32)
        rows, blocks = (product.sa, product.sb, None), (block_a, block_b, BLOCK)
        for name, (sa, sb, block) in {"rows": rows, "blocks": blocks}.items():
            # stored as float32: rounding the output to bf16 would hide what the sums lost
            out = fp8_matmul(product.qa, product.qb, sa, sb, block=block, out_dtype=torch.float32)
            exact = matmul8_reference(product.qa, product.qb, sa, sb, block)
            found = close(out, exact, FP8_BAR, "all outputs against sums in float64")
            yield Row(
                key=f"gpu.fp8_error.{name}.{k}",
                what=f"relative error of an fp8 product {k} deep, {name} scaled",
                ours=[[max(found["rel_frob"], 1e-9)]],
                unit="1",
                kind="value",
                correct=found,
                dtype="fp8",
                shape={"M": SMALL, "N": SMALL, "K": k},
                method="one product, stored as float32",
            )


ROWS = {"gpu.e1": fp8, "gpu.e2": int8, "gpu.e3": fp8_decode, "gpu.fp8_error": error_over_k}
