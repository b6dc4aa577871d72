"""Rows g1–g3 of `labcore bench --device cuda`: kernels that touch each element once, beside a copy and torch.compile.

At 8192 tokens they are bound by bandwidth, counted as bytes read plus bytes written like a copy's; at decode by
launches, so there the baseline is eager code in a CUDA graph, which has no launch cost either, only more kernels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from labcore.bench.cuda_rows import bars, both, close, floor, measured, sets
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.activation import silu_mul, silu_mul_reference
from labcore.kernels.bench_inputs import BF16, Heads, normal
from labcore.kernels.norm import rms_norm, rms_norm_reference
from labcore.kernels.rope import rope_, rotate_reference

HEADS = Heads()
TOKENS, HIDDEN, INTERMEDIATE = 8192, 4096, 14_336  # of Llama 3 8B
FEW = (1, 8, 64)
EPS = 1e-5
BAR = 4e-3  # one rounding of bf16 is up to 3.9e-3 of a value


def suite(run: CudaRun) -> None:
    """Rows gpu.g1, gpu.g2.rope, gpu.g2.swiglu (each with .compile) and gpu.g3.*."""
    run.attempt_all(ROWS)


def llama_rms_norm(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """The residual addition and LlamaRMSNorm as transformers writes them."""
    residual.add_(x)
    wide = residual.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    return weight * wide.to(x.dtype)


class Norm:
    """Residual addition and RMSNorm of some tokens, on some sets of inputs."""

    def __init__(self, run: CudaRun, tokens: int):
        self.tokens, self.bytes = tokens, 4 * tokens * HIDDEN * BF16
        count = sets(run, self.bytes)
        self.x, self.residual = ([normal(run, tokens, HIDDEN, seed=2 * i + j) for i in range(count)] for j in (0, 1))
        self.weight = normal(run, HIDDEN, seed=99)

    def calls(self, function) -> list:
        """function(x, weight, residual) on each set; the residuals grow from call to call."""
        return [lambda x=x, r=r: function(x, self.weight, r) for x, r in zip(self.x, self.residual, strict=True)]

    def check(self) -> dict:
        """Both results of a call on fresh residuals against the specification."""
        ours, exact = self.residual[0].clone(), self.residual[0].clone()
        out, reference = own_norm(self.x[0], self.weight, ours), rms_norm_reference(self.x[0], self.weight, EPS, exact)
        how = "against torch in the same order of casts"
        return both(close(out, reference, BAR, f"output {how}"), close(ours, exact, BAR, f"residual {how}"))

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        shape = {"T": self.tokens, "H": HIDDEN}
        return {"dtype": "bf16", "shape": shape, **floor(run, nbytes=self.bytes, move="copy")}


def own_norm(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """The kernel, with arguments in `llama_rms_norm`'s order."""
    return rms_norm(x, weight, EPS, residual)


def norm(run: CudaRun) -> Iterator[Row]:
    """g1: at prefill."""
    work = Norm(run, TOKENS)
    theirs = work.calls(torch.compile(llama_rms_norm, dynamic=False))
    found = measured(run, {"ours": work.calls(own_norm), "torch.compile": theirs}, work.check)
    what = f"residual addition and RMSNorm of {TOKENS} tokens"
    yield found.row("gpu.g1", what, target=bars(0.85, 0.93, 0.98), **work.fields(run))
    yield found.row("gpu.g1.compile", what, ["torch.compile"], target=bars(0.95, 1.0, 1.1), **work.fields(run))


def few(run: CudaRun, tokens: int) -> Iterator[Row]:
    """g3: at decode, where launches count."""
    work = Norm(run, tokens)
    theirs = {"eager LlamaRMSNorm in a CUDA graph": work.calls(llama_rms_norm)}
    found = measured(run, {"ours": work.calls(own_norm), **theirs}, work.check, graph=True)
    fields = {"dtype": "bf16", "shape": {"T": tokens, "H": HIDDEN}}
    what = f"residual addition and RMSNorm of {tokens} token{'s' * (tokens > 1)}"
    notes = "The inputs of a set are small, so some lie in the L2 cache, for both sides, as they do in a decode step."
    yield found.row(f"gpu.g3.t{tokens}", what, list(theirs), target=bars(1.5, 2.5, 4.0), notes=notes, **fields)


def rope(run: CudaRun) -> Iterator[Row]:
    """g2: queries and keys turned in place."""
    q, k = (normal(run, TOKENS, n, HEADS.dim, seed=n) for n in (HEADS.q, HEADS.kv))
    positions = torch.arange(TOKENS, device=run.device)
    angles = positions[:, None] / 500_000 ** (torch.arange(0, HEADS.dim, 2, device=run.device) / HEADS.dim)
    cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)

    def eager(q: Tensor, k: Tensor) -> None:
        for x in (q, k):
            x.copy_(rotate_reference(x, cos, sin, positions))

    def check() -> dict:
        ours, exact = (q.clone(), k.clone()), (q.clone(), k.clone())
        rope_(*ours, cos, sin, positions)
        eager(*exact)
        return both(
            *(close(a, b, BAR, "against torch in the same order of casts") for a, b in zip(ours, exact, strict=True))
        )

    compiled = torch.compile(eager, dynamic=False)
    programs = {"ours": [lambda: rope_(q, k, cos, sin, positions)], "torch.compile": [lambda: compiled(q, k)]}
    yield from _pointwise(run, "rope", "RoPE of 40 heads in place", programs, check, 2 * (q.numel() + k.numel()))


def swiglu(run: CudaRun) -> Iterator[Row]:
    """g2: the activation of the joint gate and up product."""
    gate_up = normal(run, TOKENS, 2 * INTERMEDIATE)
    out, compiled = gate_up.new_empty(TOKENS, INTERMEDIATE), torch.compile(silu_mul_reference, dynamic=False)
    check = lambda: close(silu_mul(gate_up), silu_mul_reference(gate_up), BAR, "against torch, eager")  # noqa: E731
    programs = {"ours": [lambda: silu_mul(gate_up, out=out)], "torch.compile": [lambda: compiled(gate_up)]}
    yield from _pointwise(run, "swiglu", f"SwiGLU of {INTERMEDIATE} columns", programs, check, 3 * out.numel())


def _pointwise(run: CudaRun, key: str, what: str, programs: dict, check, elements: int) -> Iterator[Row]:
    """The rows of g2: share of a copy's rate, and beside torch.compile."""
    found = measured(run, programs, check)
    fields = {"dtype": "bf16", "shape": {"T": TOKENS}, **floor(run, nbytes=BF16 * elements, move="copy")}
    what = f"{what}, {TOKENS} tokens"
    yield found.row(f"gpu.g2.{key}", what, target=bars(0.80, 0.90, 0.96), **fields)
    yield found.row(f"gpu.g2.{key}.compile", what, ["torch.compile"], **fields)


ROWS = {"gpu.g1": norm, "gpu.g2.rope": rope, "gpu.g2.swiglu": swiglu}
ROWS |= {f"gpu.g3.t{tokens}": lambda run, tokens=tokens: few(run, tokens) for tokens in FEW}
