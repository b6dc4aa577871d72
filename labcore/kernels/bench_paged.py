"""Rows c1–c3 of `labcore bench --device cuda`: unified paged attention beside the kernels that do one thing each."""

from collections.abc import Iterator

import torch

from labcore.bench.cuda_rows import all_finite, bars, close, floor, measured
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.attention_decode import paged_decode
from labcore.kernels.attention_paged import paged_attention
from labcore.kernels.attention_prefill import attention_varlen
from labcore.kernels.bench_inputs import BF16, Heads, attend, causal_pairs, normal, paged, some_queries, starts

HEADS = Heads()
PREFILL, PAGES = [8192] * 2, (16, 128)
DECODE = (64, 8192)
CHUNK, CONTEXT, BESIDE = 2048, 30_720, (32, 8192)  # a chunk, what precedes it, and requests that decode beside it
BAR = 4e-3


def suite(run: CudaRun) -> None:
    """Rows gpu.c1.page16, gpu.c1.page128, gpu.c2, gpu.c3."""
    run.attempt_all(ROWS)


class Mixed:
    """New tokens of requests over a paged cache: (new, all) tokens of each."""

    def __init__(self, run: CudaRun, requests: list[tuple[int, int]], page: int = 16):
        self.new, self.all = zip(*requests, strict=True)
        self.cache = paged(run, self.all, HEADS, page)
        self.cu = starts(self.new, run.device)
        self.q = normal(run, sum(self.new), HEADS.q, HEADS.dim, seed=7)
        self.flops = HEADS.flops(sum(causal_pairs(*one) for one in requests))
        self.bytes = HEADS.kv_bytes(sum(self.all)) + 2 * self.q.numel() * BF16
        self.page = page

    def __call__(self) -> torch.Tensor:
        keys, values, table, lengths = self.cache.where
        longest = max(self.new), max(self.all)
        return paged_attention(self.q, keys, values, self.cu, lengths, table, longest[0], max_seq_len=longest[1])

    def check(self) -> dict:
        """Some queries of every request against attention in float32; all outputs finite."""
        out, begin, errors = self(), 0, []
        for index, (new, total) in enumerate(zip(self.new, self.all, strict=True)):
            chosen = some_queries(new).to(out.device)
            exact = attend(self.q[begin + chosen], *self.cache.request(index), total - new + chosen)
            errors.append((out[begin + chosen], exact))
            begin += new
        ours, exact = (torch.cat(side) for side in zip(*errors, strict=True))
        found = close(ours, exact, BAR, f"all outputs finite, {len(ours)} queries × heads against float32")
        return all_finite(found, out)

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        shape = {"requests": len(self.new), "new": sum(self.new), "S": max(self.all), **HEADS.shape()}
        work = floor(run, nbytes=self.bytes, flops=self.flops)
        return {"dtype": "bf16", "shape": {**shape, "page": self.page}, **work}


def prefill(run: CudaRun, page: int) -> Iterator[Row]:
    """a1 through block tables."""
    mixed = Mixed(run, [(n, n) for n in PREFILL], page)
    k, v = (normal(run, sum(PREFILL), HEADS.kv, HEADS.dim, seed=seed) for seed in (1, 2))
    longest = max(PREFILL)
    flat = [lambda: attention_varlen(mixed.q, k, v, mixed.cu, mixed.cu, longest, longest, causal=True)]
    found = measured(run, {"ours": [mixed], "own a1": flat}, mixed.check)
    what = f"causal prefill, {len(PREFILL)} × {longest:,} tokens through pages of {page}, beside contiguous keys"
    yield found.row(f"gpu.c1.page{page}", what, ["own a1"], target=bars(0.75, 0.85, 0.95), **mixed.fields(run))


def decode(run: CudaRun) -> Iterator[Row]:
    """b1 through the kernel that serves any mix."""
    batch, context = DECODE
    mixed = Mixed(run, [(1, context)] * batch)
    own = [lambda: paged_decode(mixed.q, *mixed.cache.where, max_seq_len=context)]
    found = measured(run, {"ours": [mixed], "own b1": own}, mixed.check)
    what = f"decode attention, {batch} × {context:,}, through the unified kernel"
    yield found.row("gpu.c2", what, ["own b1"], target=bars(0.90, 0.95, 1.0), **mixed.fields(run))


def chunk_and_decodes(run: CudaRun) -> Iterator[Row]:
    """A chunk of a long prompt and decodes in one launch, beside one kernel for each."""
    batch, context = BESIDE
    mixed = Mixed(run, [(CHUNK, CONTEXT + CHUNK)] + [(1, context)] * batch)
    keys, values, table, lengths = mixed.cache.where
    k, v = (x.to(mixed.q.dtype) for x in mixed.cache.request(0))
    cu_q, cu_k = starts([CHUNK], run.device), starts([CONTEXT + CHUNK], run.device)

    def apart() -> None:
        attention_varlen(mixed.q[:CHUNK], k, v, cu_q, cu_k, CHUNK, CONTEXT + CHUNK, causal=True)
        paged_decode(mixed.q[CHUNK:], keys, values, table[1:], lengths[1:], max_seq_len=context)

    found = measured(run, {"ours": [mixed], "own prefill, then own decode": [apart]}, mixed.check)
    what = f"a chunk of {CHUNK:,} tokens behind {CONTEXT:,} and {batch} decodes at {context:,}, in one launch"
    target = bars(0.80, 0.90, 1.0)
    yield found.row("gpu.c3", what, ["own prefill, then own decode"], target=target, **mixed.fields(run))


ROWS = {f"gpu.c1.page{page}": lambda run, page=page: prefill(run, page) for page in PAGES}
ROWS |= {"gpu.c2": decode, "gpu.c3": chunk_and_decodes}
