"""Rows b1–b5 of `labcore bench --device cuda`: decode attention over a paged cache, beside what reading it must cost.

Every query reads its whole context once, so the floor is bytes over read bandwidth; the rows of `gpu.splits` show how
many programs it takes to come near it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.bench.cuda_rows import bars, close, floor, measured, sets
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.attention_decode import paged_decode
from labcore.kernels.attention_decode_one_launch import paged_decode_one_launch
from labcore.kernels.bench_inputs import BF16, Heads, Paged, attend, normal, paged

HEADS = Heads()
SHAPES = {"b1": (64, 8192), "b2": (1, 131_072), "b3": (16, 2048), "b4": (1, 8192)}  # requests, context of each
BARS = {"b1": (0.80, 0.90, 0.95), "b2": (0.70, 0.85, 0.92), "b3": (0.60, 0.75, 0.85), "b4": (0.40, 0.55, 0.70)}
SPLITS = (1, 2, 4, 8, 16, 32, 64)
CHUNK = 1024  # tokens of a chunk in the batch-invariant mode
PAGE = 16
BAR = 4e-3


def suite(run: CudaRun) -> None:
    """Rows gpu.b1 to gpu.b5, gpu.b4.one_launch, gpu.splits.* and gpu.invariant."""
    run.attempt_all(ROWS)


class Decode:
    """One decode step of `batch` requests with `context` tokens each, on some sets of inputs."""

    def __init__(self, run: CudaRun, batch: int, context: int):
        self.batch, self.context = batch, context
        self.bytes = batch * (HEADS.kv_bytes(context) + 2 * HEADS.q * HEADS.dim * BF16)  # and q, and the output
        count = sets(run, self.bytes)
        self.caches: list[Paged] = [paged(run, [context] * batch, HEADS, PAGE, seed) for seed in range(count)]
        self.queries = [normal(run, batch, HEADS.q, HEADS.dim, seed=100 + seed) for seed in range(count)]

    def calls(self, **options) -> list:
        """paged_decode on each set."""
        return [
            lambda q=q, cache=cache: paged_decode(q, *cache.where, max_seq_len=self.context, **options)
            for q, cache in zip(self.queries, self.caches, strict=True)
        ]

    def check(self, call) -> dict:
        """The output of `call` on the first set against exact attention, for every request and head."""
        last = torch.tensor([self.context - 1], device=self.queries[0].device)
        exact = [attend(self.queries[0][i : i + 1], *self.caches[0].request(i), last) for i in range(self.batch)]
        return close(call(), torch.cat(exact), BAR, "every output against attention in float32")

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        shape = {"B": self.batch, "S": self.context, **HEADS.shape(), "page": PAGE}
        return {"dtype": "bf16", "shape": shape, **floor(run, nbytes=self.bytes)}


def bandwidth(run: CudaRun, name: str) -> Iterator[Row]:
    """Share of the read bandwidth that a decode step reaches."""
    step = Decode(run, *SHAPES[name])
    ours = step.calls()
    found = measured(run, {"ours": ours}, lambda: step.check(ours[0]))
    what = f"decode attention, {step.batch} × {step.context:,} tokens of context"
    yield found.row(f"gpu.{name}", what, target=bars(*BARS[name]), **step.fields(run))


def one_launch(run: CudaRun) -> Iterator[Row]:
    """b4 by the annex, whose last share to finish merges all: what the second launch costs."""
    step = Decode(run, *SHAPES["b4"])
    tickets = torch.zeros(step.batch * HEADS.kv, dtype=torch.int32, device=run.device)
    ours = [
        lambda q=q, cache=cache: paged_decode_one_launch(q, *cache.where, tickets, max_seq_len=step.context)
        for q, cache in zip(step.queries, step.caches, strict=True)
    ]
    found = measured(run, {"ours": ours, "two launches": step.calls()}, lambda: step.check(ours[0]))
    what = f"decode attention, {step.batch} × {step.context:,}, merged in the same launch"
    yield found.row("gpu.b4.one_launch", what, ["two launches"], **step.fields(run))


def flex(run: CudaRun) -> Iterator[Row]:
    """b5: one query over a long context, beside torch's own Triton, which has it contiguous."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    step = Decode(run, *SHAPES["b2"])
    ours = step.calls()
    q, (k, v) = step.queries[0], step.caches[0].request(0)
    query = q[:, :, None]
    key, value = (x.to(q.dtype).transpose(0, 1)[None].contiguous() for x in (k, v))
    # Without a block mask all keys are one block, and its decoding kernel splits between blocks only.
    blocks = create_block_mask(lambda b, h, query, key: key >= 0, None, None, 1, step.context, run.device)
    plain, blocked = (torch.compile(flex_attention, dynamic=False) for _ in range(2))
    flexible = {
        "compiled flex_attention": [lambda: plain(query, key, value, enable_gqa=True)],
        "compiled flex_attention in blocks": [lambda: blocked(query, key, value, block_mask=blocks, enable_gqa=True)],
    }
    theirs = flexible | {
        "SDPA": [lambda: F.scaled_dot_product_attention(query, key, value, enable_gqa=True)],
    }
    found = measured(run, {"ours": ours, **theirs}, lambda: step.check(ours[0]))
    what = f"decode attention, 1 × {step.context:,}, beside flex_attention on contiguous keys"
    target = bars(0.95, 1.1, 1.3)
    yield found.row("gpu.b5", what, list(flexible), target=target, **step.fields(run))
    yield found.row("gpu.b5.sdpa", "the same beside SDPA", ["SDPA"], **step.fields(run))


def splits(run: CudaRun) -> Iterator[Row]:
    """One request's decode step with its context cut into 1 to 64 parts, and with the number the kernel chooses."""
    step = Decode(run, *SHAPES["b2"])
    programs = {f"{n}": step.calls(num_splits=n) for n in SPLITS}
    found = measured(run, {"chosen": step.calls(), **programs}, lambda: step.check(step.calls()[0]), graph=False)
    for name in programs:
        right = close(programs[name][0](), step.calls()[0](), BAR, "against the output with the chosen splits")
        yield found.row(
            f"gpu.splits.{int(name):02d}",
            f"decode attention, 1 × {step.context:,}, in {name} splits",
            ours=name,
            correct=right,
            config={"splits": int(name), "programs": int(name) * HEADS.kv, "sms": run.description.get("sms")},
            **step.fields(run),
        )
    yield found.row("gpu.splits.chosen", "the same, splits chosen", ours="chosen", **step.fields(run))


def invariant(run: CudaRun) -> Iterator[Row]:
    """What it costs that a request's output does not depend on its batch: chunks of fixed size."""
    step = Decode(run, *SHAPES["b1"])
    ours, free = step.calls(chunk=CHUNK), step.calls()
    keys, values, table, lengths = step.caches[0].where

    def alone() -> Tensor:
        q = step.queries[0][:1]
        return paged_decode(q, keys, values, table[:1], lengths[:1], max_seq_len=step.context, chunk=CHUNK)

    def check() -> dict:
        same = bool(torch.equal(ours[0]()[:1], alone()))
        found = step.check(ours[0])
        return found | {"pass": found["pass"] and same, "bits_equal_alone": same}

    found = measured(run, {"ours": ours, "splits by occupancy": free}, check)
    what = f"decode attention, {step.batch} × {step.context:,}, in chunks of {CHUNK} tokens: batch-invariant"
    yield found.row("gpu.invariant", what, ["splits by occupancy"], config={"chunk": CHUNK}, **step.fields(run))


ROWS = {f"gpu.{name}": lambda run, name=name: bandwidth(run, name) for name in SHAPES}
ROWS |= {"gpu.b4.one_launch": one_launch, "gpu.b5": flex, "gpu.splits": splits, "gpu.invariant": invariant}
SLOW_TO_COMPILE = ("gpu.b5",)
