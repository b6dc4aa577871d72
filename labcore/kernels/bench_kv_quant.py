"""Rows f1 and f2 of `labcore bench --device cuda`: decode over a quantized cache beside the bf16 one.

bytes_ratio, in a row's config, is what b1 reads over what this reads: at a bandwidth both reach, the speedup.
"""

from collections.abc import Iterator

import torch

from labcore.bench.cuda_rows import bars, close, floor, measured
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.attention_decode import paged_decode
from labcore.kernels.bench_inputs import BF16, Heads, normal, paged
from labcore.kernels.kv_quant import QuantKV, paged_decode_quant, write_kv_quant

HEADS = Heads()
SHAPE = (64, 8192)  # requests, context of each: b1
PAGE = 16
KINDS = {"int8": ("f1.int8", (1.6, 1.8, 1.9)), "fp8": ("f1.fp8", (1.6, 1.8, 1.9)), "int4": ("f2", (2.2, 2.8, 3.3))}
BAR = 4e-3


def suite(run: CudaRun) -> None:
    """Rows gpu.f1.int8, gpu.f1.fp8, gpu.f2."""
    run.attempt_all(ROWS)


def quantized(run: CudaRun, kind: str) -> Iterator[Row]:
    """b1 over codes, beside b1."""
    batch, context = SHAPE
    plain = paged(run, [context] * batch, HEADS, PAGE)
    cache = QuantKV.empty(kind, len(plain.keys), PAGE, HEADS.kv, HEADS.dim, run.device)
    slots = torch.arange(len(plain.keys) * PAGE, device=run.device)
    for some in slots.split(2**16):
        write_kv_quant(plain.keys.flatten(0, 1)[some], plain.values.flatten(0, 1)[some], cache, some)
    q = normal(run, batch, HEADS.q, HEADS.dim, seed=7)

    def ours(backend: str = "auto") -> torch.Tensor:
        return paged_decode_quant(q, cache, plain.table, plain.lengths, max_seq_len=context, backend=backend)

    own = lambda: paged_decode(q, *plain.where, max_seq_len=context)  # noqa: E731
    exact = None if run.warming else ours("torch")
    check = lambda: close(ours(), exact, BAR, "against float32 attention over what the codes stand for")  # noqa: E731
    found = measured(run, {"ours": [ours], "own b1": [own]}, check)
    other = BF16 * 2 * q.numel()
    fields = floor(run, nbytes=cache.nbytes + other)
    key, bar = KINDS[kind]
    loss = None if run.warming else close(own(), exact, 1.0, "")["rel_frob"]
    yield found.row(
        f"gpu.{key}",
        f"decode attention, {batch} × {context:,}, over an {kind} cache, beside the bf16 one",
        ["own b1"],
        target=bars(*bar),
        dtype=f"{kind} cache",
        shape={"B": batch, "S": context, **HEADS.shape(), "page": PAGE},
        config={
            "bytes_ratio": round((HEADS.kv_bytes(batch * context) + other) / fields["bytes"], 3),
            "quantization_error": loss,
        },
        **fields,
    )
    yield found.row(f"gpu.{key}.bandwidth", "the same: share of the read bandwidth", **fields)


ROWS = {f"gpu.{key}": lambda run, kind=kind: quantized(run, kind) for kind, (key, _) in KINDS.items()}
