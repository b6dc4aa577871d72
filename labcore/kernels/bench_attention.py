"""Rows a1–a6 of `labcore bench --device cuda`: prefill attention beside torch's, and the ladder of three versions.

The baselines are what torch ships: FlashAttention-2 and cuDNN behind SDPA, with grouped heads and with repeated ones,
and its own Triton, compiled flex_attention. Each row is checked on whole heads of chosen queries in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.bench.cuda_rows import Measured, all_finite, bars, both, close, floor, measured, sets
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.attention_prefill import attention_varlen
from labcore.kernels.bench_inputs import BF16, Heads, attend_some, causal_pairs, normal, starts

LLAMA_8B, LLAMA_70B = Heads(), Heads(q=64)
WINDOW = 4096
BATCHES = {  # sequence lengths of each row
    "a1": [8192] * 2,
    "a3": [16_384],
    "a4": [32_768],
    "a5": [128, 8192, 384, 512, 4096, 640, 768, 2048, 1024, 256, 1536, 3072, 896, 6144, 200, 1280],
}
LADDER = [1024] * 2  # for all three versions; the first is slow
BAR = 4e-3


def suite(run: CudaRun) -> None:
    """Rows gpu.a1 to gpu.a6 and gpu.ladder.*."""
    run.attempt_all(ROWS)


class Prefill:
    """Causal attention over packed sequences, on some sets of inputs."""

    def __init__(self, run: CudaRun, lengths: list[int], heads: Heads = LLAMA_8B, window: int | None = None):
        self.lengths, self.heads, self.window = lengths, heads, window
        self.tokens, self.longest = sum(lengths), max(lengths)
        self.pairs = sum(causal_pairs(n, n, window) for n in lengths)
        self.flops = heads.flops(self.pairs)
        self.bytes = 2 * self.tokens * heads.q * heads.dim * BF16 + heads.kv_bytes(self.tokens)
        self.cu = starts(lengths, run.device)
        shapes = (heads.q, heads.kv, heads.kv)
        self.inputs = [
            [normal(run, self.tokens, n, heads.dim, seed=10 * seed + i) for i, n in enumerate(shapes)]
            for seed in range(min(2, sets(run, self.bytes)))
        ]

    def calls(self, attention: Callable = attention_varlen, **options) -> list[Callable[[], Tensor]]:
        """`attention` (signature of attention_varlen) on each set."""
        if self.window is not None:
            options["window"] = self.window
        where = self.cu, self.cu, self.longest, self.longest
        return [lambda qkv=qkv: attention(*qkv, *where, causal=True, **options) for qkv in self.inputs]

    def check(self, call: Callable[[], Tensor]) -> dict:
        """The output on the first set: finite everywhere, and exact for some queries of every sequence."""
        out, cu = call(), self.cu.tolist()
        chosen, exact = attend_some(*self.inputs[0], cu, cu, self.window)
        found = close(out[chosen], exact, BAR, f"all outputs finite, {len(chosen)} queries × heads against float32")
        return all_finite(found, out)

    def square(self, index: int = 0) -> list[Tensor]:
        """q, k, v of a set as SDPA takes them, [B, heads, S, D]; all sequences must be equally long."""
        return [x.unflatten(0, (len(self.lengths), -1)).transpose(1, 2) for x in self.inputs[index]]

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        shape = {"B": len(self.lengths), "S": self.longest, "tokens": self.tokens, **self.heads.shape()}
        shape |= {} if self.window is None else {"window": self.window}
        return {"dtype": "bf16", "shape": shape, **floor(run, nbytes=self.bytes, flops=self.flops)}


def sdpa_backends(batch: Prefill) -> dict[str, list[Callable[[], Tensor]]]:
    """SDPA on each set, with each fused backend and with the one that torch picks; k and v as they are or repeated."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    group = batch.heads.q // batch.heads.kv
    plain = [batch.square(i) for i in range(len(batch.inputs))]
    repeated = [[q, *(x.repeat_interleave(group, 1) for x in (k, v))] for q, k, v in plain]

    def calls(qkvs: list, backend: SDPBackend | None) -> list:
        def call(q, k, v):
            with only(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

        return [lambda qkv=qkv: call(*qkv) for qkv in qkvs]

    @contextmanager
    def only(backend: SDPBackend | None):
        if backend is None:
            yield
        else:
            with sdpa_kernel([backend]):
                yield

    named = {"FLASH": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION, "default": None}
    return {
        f"SDPA {name}{suffix}": calls(qkvs, backend)
        for name, backend in named.items()
        for suffix, qkvs in (("", plain), (", heads repeated", repeated))
    }


def square_check(batch: Prefill, call: Callable[[], Tensor]) -> dict:
    """As `Prefill.check`, and every output against SDPA's in the same dtype."""
    theirs = F.scaled_dot_product_attention(*batch.square(), is_causal=True, enable_gqa=True)
    packed = theirs.transpose(1, 2).flatten(0, 1)
    return both(batch.check(call), close(call(), packed, 2 * BAR, "every output against SDPA in the same dtype"))


def a1_a2(run: CudaRun) -> Iterator[Row]:
    """Llama 3 8B's heads, against the fastest of SDPA's backends and against FlashAttention-2 alone."""
    batch = Prefill(run, BATCHES["a1"])
    ours = batch.calls()
    found = measured(run, {"ours": ours, **(theirs := sdpa_backends(batch))}, lambda: square_check(batch, ours[0]))
    what = f"causal prefill, {len(batch.lengths)} × {batch.longest:,} tokens, heads of Llama 3 8B"
    flash = [name for name in theirs if "FLASH" in name]
    fields = batch.fields(run)
    yield found.row("gpu.a1", what, list(theirs), target=bars(0.65, 0.80, 0.90), **fields)
    yield found.row("gpu.a2", f"{what}, beside FlashAttention-2", flash, target=bars(1.0, 1.25, 1.4), **fields)
    yield found.row("gpu.a1.mfu", f"{what}: share of the bf16 matmul rate", **fields)
    for name in theirs:
        if name in found.timing.rounds:
            key = name.removeprefix("SDPA ").replace(", heads ", ".").lower()
            yield found.row(
                f"gpu.sdpa.{key}", f"{what}: {name}", ours=name, correct=_theirs(batch, theirs[name]), **fields
            )


def _theirs(batch: Prefill, calls: list) -> dict:
    """A baseline is right if it is as close to exact attention as ours has to be."""
    return batch.check(lambda: calls[0]().transpose(1, 2).flatten(0, 1))


def a3(run: CudaRun) -> Iterator[Row]:
    """Llama 3 70B's heads on one long sequence."""
    batch = Prefill(run, BATCHES["a3"], LLAMA_70B)
    ours, theirs = batch.calls(), sdpa_backends(batch)
    found = measured(run, {"ours": ours, **theirs}, lambda: square_check(batch, ours[0]), samples=3)
    what = f"causal prefill, 1 × {batch.longest:,} tokens, heads of Llama 3 70B"
    yield found.row("gpu.a3", what, list(theirs), target=bars(0.65, 0.82, 0.92), **batch.fields(run))


def beside_a1(run: CudaRun, batch: Prefill) -> tuple[Measured, float]:
    """A batch beside a1 in the same rounds, and the work of the batch over a1's."""
    whole = Prefill(run, BATCHES["a1"])
    ours = batch.calls()
    found = measured(run, {"ours": ours, "own a1": whole.calls()}, lambda: batch.check(ours[0]))
    return found, batch.flops / whole.flops


def a4(run: CudaRun) -> Iterator[Row]:
    """A sliding window: the rate on useful FLOP beside a1's."""
    batch = Prefill(run, BATCHES["a4"], window=WINDOW)
    found, work = beside_a1(run, batch)
    what = f"causal prefill, 1 × {batch.longest:,} tokens in a window of {WINDOW:,}: rate over that of a1"
    yield found.row("gpu.a4", what, ["own a1"], scale=work, target=bars(0.70, 0.85, 0.92), **batch.fields(run))


def a5(run: CudaRun) -> Iterator[Row]:
    """Sequences of mixed lengths: the rate beside a1's."""
    batch = Prefill(run, BATCHES["a5"])
    found, work = beside_a1(run, batch)
    what = f"causal prefill, {len(batch.lengths)} sequences of mixed lengths to {batch.longest:,}: rate over that of a1"
    yield found.row("gpu.a5", what, ["own a1"], scale=work, target=bars(0.75, 0.88, 0.95), **batch.fields(run))


def a6(run: CudaRun, name: str, window: int | None) -> Iterator[Row]:
    """a1 or a4 beside torch's own Triton: compiled flex_attention with the mask as a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    batch = Prefill(run, BATCHES["a1" if window is None else "a4"], window=window)
    ours, length = batch.calls(), batch.longest
    distance = length if window is None else window
    mask = create_block_mask(
        lambda b, h, query, key: (key <= query) & (key > query - distance), None, None, length, length, run.device
    )
    compiled, (q, k, v) = torch.compile(flex_attention, dynamic=False), batch.square()
    theirs = [lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)]
    found = measured(run, {"ours": ours, "compiled flex_attention": theirs}, lambda: batch.check(ours[0]))
    what = f"causal prefill, {name}, beside torch's own Triton"
    target = bars(1.0, 1.15, 1.3)
    yield found.row(f"gpu.a6.{name}", what, ["compiled flex_attention"], target=target, **batch.fields(run))


def ladder(run: CudaRun) -> Iterator[Row]:
    """The three versions of chapter 6 on one small batch: the literal loop, tiles, and what is shipped; and the annex
    whose softmax has one maximum for all."""
    from labcore.kernels.attention_ladder import attention_v0, attention_v1
    from labcore.kernels.attention_unified_max import attention_unified_max

    batch = Prefill(run, LADDER)
    programs = {"v2": batch.calls(), "v1": batch.calls(attention_v1), "v0": batch.calls(attention_v0)}
    programs["one maximum"] = [
        lambda qkv=qkv: attention_unified_max(*qkv, batch.cu, batch.cu, batch.longest, batch.longest)
        for qkv in batch.inputs
    ]
    check = lambda: both(*(batch.check(calls[0]) for calls in programs.values()))  # noqa: E731
    found = measured(run, programs, check, samples=3, graph=False)
    what = f"causal prefill, {len(LADDER)} × {batch.longest:,} tokens"
    fields = batch.fields(run)
    yield found.row("gpu.ladder.v1", f"{what}: tiles over the literal loop", ["v0"], ours="v1", **fields)
    yield found.row("gpu.ladder.v2", f"{what}: shipped over tiles", ["v1"], ours="v2", **fields)
    yield found.row("gpu.ladder.unified", f"{what}: one maximum over shipped", ["v2"], ours="one maximum", **fields)


ROWS = {
    "gpu.a1": a1_a2,
    "gpu.a3": a3,
    "gpu.a4": a4,
    "gpu.a5": a5,
    "gpu.a6.causal": lambda run: a6(run, "causal", None),
    "gpu.a6.window": lambda run: a6(run, "window", WINDOW),
    "gpu.ladder": ladder,
}
SLOW_TO_COMPILE = ("gpu.a6.causal", "gpu.a6.window")
