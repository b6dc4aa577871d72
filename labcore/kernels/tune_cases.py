"""What `labcore.kernels.tune` tries launch choices on: the shapes that the bench measures, a program for each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from labcore.bench.cuda_rows import sets
from labcore.bench.cuda_run import CudaRun

KINDS = ("int8", "fp8", "int4")  # of a quantized cache
VECTOR, TILE = "without_tensor_cores", "with_tensor_cores"  # of one token times 4-bit weights


@dataclass(frozen=True)
class Case:
    """kind: of `_config`; module: where its candidates are; calls(run): the program on its inputs; fits(candidate):
    whether it is worth a try at this shape; short: timed in a graph; like: a case whose programs these are, compiled
    once."""

    name: str
    kind: str
    module: str
    calls: Callable[[CudaRun], list]
    fits: Callable[[dict], bool] = lambda candidate: True
    short: bool = False
    like: str = ""


def _prefill(run: CudaRun, name: str) -> list:
    from labcore.kernels import bench_attention as bench

    window = bench.WINDOW if name == "a4" else None
    return bench.Prefill(run, bench.BATCHES[name], window=window).calls()


def _decode(run: CudaRun, name: str) -> list:
    from labcore.kernels import bench_decode as bench

    return bench.Decode(run, *bench.SHAPES[name]).calls()


def _paged(run: CudaRun, decode: bool) -> list:
    from labcore.kernels import bench_paged as bench

    requests = [(1, bench.DECODE[1])] * bench.DECODE[0] if decode else [(n, n) for n in bench.PREFILL]
    return [bench.Mixed(run, requests)]


def _w4(run: CudaRun, tokens: int) -> list:
    from labcore.kernels import bench_w4a16 as bench

    return [bench.Product(run, *bench.LARGE, tokens).ours]


def _w4_one(run: CudaRun, layer: bool, how: str) -> list:
    """d1, or d5, by a method of `bench_w4a16.Product`."""
    from labcore.kernels import bench_w4a16 as bench

    shapes, turns = (bench.LAYER.values(), 3) if layer else ([bench.LARGE], 1)
    stacks = [[bench.Product(run, n, k, 1, 10 * turn) for n, k in shapes] for turn in range(turns)]
    return [lambda stack=stack: torch.cat([getattr(product, how)() for product in stack], 1) for stack in stacks]


def _gemv(run: CudaRun, n: int, k: int, gated: bool = False) -> list:
    """A product of a layer for one token, over so many matrices that the L2 cache holds none of them."""
    from labcore.kernels.gemv import gemv

    rows = n * (2 if gated else 1)
    x, norm = (torch.randn(size, dtype=torch.bfloat16, device="cuda") for size in ((1, k), (k,)))
    copies = sets(run, 2 * rows * k)
    weights = [torch.randn(rows, k, dtype=torch.bfloat16, device="cuda") * k**-0.5 for _ in range(copies)]
    return [lambda weight=weight: gemv(x, weight, norm=norm, eps=1e-5, gated=gated) for weight in weights]


def _gemm8(run: CudaRun, kind: str, decode: bool) -> list:
    from labcore.kernels import bench_gemm8 as bench

    product = bench.Product(run, *(bench.DECODE if decode else [bench.SQUARE] * 3), kind)
    multiply = bench.fp8_matmul if kind == "fp8" else bench.int8_matmul
    return [lambda: multiply(product.qa, product.qb, product.sa, product.sb)]


def _quantized(run: CudaRun, codes: str) -> list:
    from labcore.kernels import bench_kv_quant as bench

    batch, context = bench.SHAPE
    where = bench.paged(run, [context] * batch, bench.Heads(kv=1, dim=1), bench.PAGE)  # for its table and lengths
    heads, pages = bench.HEADS, len(where.keys)
    cache = bench.QuantKV.empty(codes, pages, bench.PAGE, heads.kv, heads.dim, run.device)
    cache.data.view(torch.uint8).random_(0, 127)  # no NaN among the e4m3
    cache.parameters.fill_(0.01)
    q = bench.normal(run, batch, heads.q, heads.dim)
    return [lambda: bench.paged_decode_quant(q, cache, where.table, where.lengths, max_seq_len=context)]


def _norm(run: CudaRun) -> list:
    """g1 on a zero x, so that the residual, which the sum overwrites, stays what it is."""
    from labcore.kernels import bench_pointwise as bench

    work = bench.Norm(run, bench.TOKENS)
    for x in work.x:
        x.zero_()
    return work.calls(bench.own_norm)


def _rope(run: CudaRun) -> list:
    """g2 at the angle 0, which leaves the heads as they are."""
    from labcore.kernels import bench_pointwise as bench

    q, k = (bench.normal(run, bench.TOKENS, n, bench.HEADS.dim, seed=n) for n in (bench.HEADS.q, bench.HEADS.kv))
    cos = torch.ones(bench.TOKENS, bench.HEADS.dim // 2, dtype=q.dtype, device="cuda")
    sin, positions = torch.zeros_like(cos), torch.arange(bench.TOKENS, device="cuda")
    return [lambda: bench.rope_(q, k, cos, sin, positions)[0]]


def _swiglu(run: CudaRun) -> list:
    from labcore.kernels import bench_pointwise as bench

    gate_up = bench.normal(run, bench.TOKENS, 2 * bench.INTERMEDIATE)
    return [lambda: bench.silu_mul(gate_up)]


def _sample(run: CudaRun, filtered: bool) -> list:
    from labcore.kernels import bench_sampling as bench

    draws = bench.Draws(run, bench.FILTERED if filtered else bench.PLAIN)
    limits = (bench.TOP_K, bench.TOP_P) if filtered else (None, None)
    return draws.calls(*limits)


def _rows_fit(least: int, most: int) -> Callable[[dict], bool]:
    return lambda candidate: least <= candidate["BLOCK_M"] <= most


def _rows_fit_n(most: int) -> Callable[[dict], bool]:
    return lambda candidate: candidate["BLOCK_N"] <= most


CASES = [
    Case("prefill a1", "prefill", "attention_prefill", lambda run: _prefill(run, "a1")),
    Case("prefill a4", "prefill", "attention_prefill", lambda run: _prefill(run, "a4")),
    Case("decode b1", "decode", "attention_decode", lambda run: _decode(run, "b1")),
    Case("decode b2", "decode", "attention_decode", lambda run: _decode(run, "b2"), like="decode b1"),
    Case("decode b3", "decode", "attention_decode", lambda run: _decode(run, "b3"), short=True, like="decode b1"),
    Case("decode b4", "decode", "attention_decode", lambda run: _decode(run, "b4"), short=True, like="decode b1"),
    Case("splits b1", "splits", "attention_decode", lambda run: _decode(run, "b1")),
    Case("splits b2", "splits", "attention_decode", lambda run: _decode(run, "b2"), like="splits b1"),
    Case("splits b3", "splits", "attention_decode", lambda run: _decode(run, "b3"), short=True, like="splits b1"),
    Case("splits b4", "splits", "attention_decode", lambda run: _decode(run, "b4"), short=True, like="splits b1"),
    Case("merge b2", "merge", "merge_states", lambda run: _decode(run, "b2")),
    Case("paged c2", "paged", "attention_paged", lambda run: _paged(run, True), _rows_fit(1, 16)),
    Case("paged c1", "paged", "attention_paged", lambda run: _paged(run, False), _rows_fit(17, 256)),
    Case("norm g1", "rms_norm", "norm", _norm),
    Case("rope g2", "rope", "rope", _rope),
    Case("swiglu g2", "silu_mul", "activation", _swiglu),
    Case("tiles h1", "tiles", "sampling", lambda run: _sample(run, False)),
    Case("draw h1", "draw", "sampling", lambda run: _sample(run, False)),
    Case("threshold h2", "threshold", "truncation", lambda run: _sample(run, True)),
    Case("gemv 6144×4096", "gemv", "gemv", lambda run: _gemv(run, 6144, 4096), short=True),
    Case("gemv 4096×14336", "gemv", "gemv", lambda run: _gemv(run, 4096, 14336), short=True, like="gemv 6144×4096"),
    Case("gemv 1024×3072", "gemv", "gemv", lambda run: _gemv(run, 1024, 3072), short=True, like="gemv 6144×4096"),
    Case("gemv gated", "gemv", "gemv", lambda run: _gemv(run, 14336, 4096, True), _rows_fit_n(4), short=True),
    *[
        Case(f"decode {codes} f", "decode_quant", "kv_quant", lambda run, c=codes: _quantized(run, c))
        for codes in KINDS
    ],
    Case("w4 gemv d1", "w4_gemv", "w4a16", lambda run: _w4_one(run, False, VECTOR)),
    Case("w4 gemv d5", "w4_gemv", "w4a16", lambda run: _w4_one(run, True, VECTOR), short=True, like="w4 gemv d1"),
    Case("w4 gemm d1", "w4_gemm", "w4a16", lambda run: _w4_one(run, False, TILE), _rows_fit(8, 8)),
    Case("w4 gemm d5", "w4_gemm", "w4a16", lambda run: _w4_one(run, True, TILE), _rows_fit(8, 8), True, "w4 gemm d1"),
    *[
        Case(f"w4 gemm M={tokens}", "w4_gemm", "w4a16", lambda run, m=tokens: _w4(run, m), _rows_fit(rows, tokens))
        for tokens, rows in ((16, 16), (32, 32), (64, 64), (128, 64), (256, 64))
    ],
    *[
        Case(f"{kind} {shape}", f"{kind}_matmul", "gemm8", lambda run, k=kind, d=few: _gemm8(run, k, d), fits)
        for kind in ("fp8", "int8")
        for shape, few, fits in (("8192³", False, _rows_fit(65, 512)), ("M=64", True, _rows_fit(1, 64)))
    ],
]
