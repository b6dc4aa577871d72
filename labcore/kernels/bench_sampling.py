"""Rows h1 and h2 of `labcore bench --device cuda`: drawing tokens, beside a read of the logits and beside torch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from labcore.bench.cuda_rows import bars, floor, measured, sets
from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.kernels.bench_inputs import normal
from labcore.kernels.sampling import sample

VOCAB = 128_256  # of Llama 3
PLAIN, FILTERED = 256, 64  # rows
TOP_K, TOP_P, TEMPERATURE = 50, 0.9, 0.8
AGREE = 0.98  # share of tokens equal to the float64 specification's, whose near-ties fp32 may decide otherwise


def suite(run: CudaRun) -> None:
    """Rows gpu.h1, gpu.h1.torch, gpu.h1.race, gpu.h2."""
    run.attempt_all(ROWS)


class Draws:
    """Logits of some requests, and what else their tokens depend on, on some sets of inputs."""

    def __init__(self, run: CudaRun, rows: int):
        count = sets(run, 4 * rows * VOCAB)
        self.logits = [3 * normal(run, rows, VOCAB, seed=seed, dtype=torch.float32) for seed in range(count)]
        self.temperature = torch.full((rows,), TEMPERATURE, device=run.device)
        self.seed = torch.arange(rows, device=run.device) * 7919
        self.position = torch.arange(rows, device=run.device) + 100
        self.rows = rows

    def calls(self, top_k: Tensor | None = None, top_p: Tensor | None = None) -> list:
        """Our sampler on each set."""
        return [lambda x=x: sample(x, self.temperature, top_k, top_p, self.seed, self.position) for x in self.logits]

    def check(self, top_k: Tensor | None = None, top_p: Tensor | None = None) -> dict:
        """The tokens of the first set against the specification with the same noise."""
        ours = self.calls(top_k, top_p)[0]()
        exact = sample(self.logits[0], self.temperature, top_k, top_p, self.seed, self.position, backend="torch")
        equal = (ours == exact).float().mean().item()
        how = "share of tokens equal to the float64 specification's, same noise"
        return {"pass": equal >= AGREE, "equal": equal, "bar": AGREE, "how": how}

    def fields(self, run: CudaRun) -> dict:
        """What its rows state of the workload."""
        shape = {"B": self.rows, "V": VOCAB}
        return {"dtype": "fp32", "shape": shape, **floor(run, nbytes=4 * self.rows * VOCAB)}


def plain(run: CudaRun) -> Iterator[Row]:
    """h1: temperature only. `race` is the exponential race that serving engines write in torch, which never waits."""
    draws = Draws(run, PLAIN)
    scale = draws.temperature[:, None]
    theirs = {
        "softmax, torch.multinomial": lambda x: torch.multinomial((x / scale).softmax(-1), 1),
        "softmax, exponential race": lambda x: (
            (p := (x / scale).softmax(-1)).div_(torch.empty_like(p).exponential_()).argmax(-1)
        ),
    }
    calls = {name: [lambda x=x, f=f: f(x) for x in draws.logits] for name, f in theirs.items()}
    found = measured(run, {"ours": draws.calls(), **calls}, draws.check, graph=False)
    what, fields = f"one token of each of {PLAIN} rows of {VOCAB:,} logits, by temperature", draws.fields(run)
    multinomial, race = theirs
    yield found.row("gpu.h1", what, target=bars(0.70, 0.85, 0.93), **fields)
    yield found.row("gpu.h1.torch", what, [multinomial], target=bars(3.0, 5.0, 8.0), **fields)
    yield found.row("gpu.h1.race", what, [race], **fields)


def filtered(run: CudaRun) -> Iterator[Row]:
    """h2: top-k and top-p, beside the filter by sorting."""
    draws = Draws(run, FILTERED)
    top_k = torch.full((FILTERED,), TOP_K, dtype=torch.int32, device=run.device)
    top_p = torch.full((FILTERED,), TOP_P, device=run.device)

    def sorting(logits: Tensor) -> Tensor:
        ordered, tokens = torch.sort(logits / draws.temperature[:, None], descending=True)
        ordered[:, TOP_K:] = -torch.inf
        p = ordered.softmax(-1)
        p = p.masked_fill_(p.cumsum(-1) - p >= TOP_P, 0)
        return tokens.gather(-1, torch.multinomial(p, 1))

    name = "torch.sort, filter, torch.multinomial"
    programs = {"ours": draws.calls(top_k, top_p), name: [lambda x=x: sorting(x) for x in draws.logits]}
    found = measured(run, programs, lambda: draws.check(top_k, top_p), graph=False)
    what = f"one token of each of {FILTERED} rows of {VOCAB:,} logits, top-k {TOP_K} and top-p {TOP_P}"
    yield found.row("gpu.h2", what, [name], target=bars(4.0, 8.0, 15.0), **draws.fields(run))


ROWS = {"gpu.h1": plain, "gpu.h2": filtered}
