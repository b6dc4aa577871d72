"""`labcore bench serving`: sixteen requests beside transformers and llama.cpp, what a prefix cache saves, what paging
costs.

| row | measures |
|---|---|
| cpu.batch16.transformers, .llamacpp | answer tokens per second, prompts of 32 to 256 tokens counted in |
| cpu.prefix.ttft | mean time to first token of 64 requests that begin alike, with and without prefix caching |
| cpu.paged_overhead | decode attention over block tables against one contiguous buffer per sequence |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from labcore.attention.metadata import AttentionMetadata, AttentionShape
from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.engine.build import assemble
from labcore.engine.engine_core import EngineCore
from labcore.engine.report import Cost
from labcore.kv.contiguous import ContiguousKVCache
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.model.bench import MODEL, models, new_cache, prompt_ids
from labcore.model.checkpoints import fetch
from labcore.model.llama import Llama
from labcore.model.peers import LlamaCpp, transformers_model

REQUESTS, SHORTEST, LONGEST, NEW = 16, 32, 256, 128
SHARING, PREFIX, OWN, FEW = 64, 512, 16, 4
ROUNDS = 3
READ = "read_bandwidth / (weights of every step + keys and values attended to and written)"


def suite(run: RunBuilder) -> None:
    """Four rows, of the model's fast path."""
    path = fetch(MODEL)
    exact, fast = models(path)
    paged_overhead(run, fast)
    prefix_row(run, fast, path)
    batch_rows(run, exact, fast, path)


def sixteen(path: Path) -> list[list[int]]:
    """Prompts of evenly spread lengths; no two begin alike."""
    ids = prompt_ids(2 * LONGEST, path)
    lengths = torch.linspace(SHORTEST, LONGEST, REQUESTS).int().tolist()
    return [[*ids[i : i + 3][::-1], *ids[7 * i : 7 * i + length - 3]] for i, length in enumerate(lengths)]


def serve(core: EngineCore, prompts: Iterable[list[int]], new_tokens: int) -> tuple[list[Request], list[float]]:
    """Answer prompts that arrive together, greedily: the finished requests, and the seconds to each first token."""
    params = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]
    start, first = time.perf_counter(), {}
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        for progress in core.step():
            first.setdefault(progress.request_id, time.perf_counter() - start)
    return requests, list(first.values())


@torch.inference_mode()
def agreement(exact: Llama, requests: Iterable[Request]) -> dict:
    """How many of the answers' tokens the exact model, reading them, would have chosen."""
    same = []
    for request in requests:
        ids = request.all_token_ids
        attend = new_cache(exact, 1, len(ids) - 1).extend([(0, len(ids) - 1)])
        places = torch.arange(request.num_prompt_tokens - 1, len(ids) - 1)
        chosen = exact(torch.tensor(ids[:-1]), attend.positions, attend, wanted=places).argmax(-1)
        same.append(chosen == torch.tensor(request.output_token_ids))
    top1 = torch.cat(same).float().mean().item()
    return {"pass": top1 >= 0.95, "top1": top1, "bar": "the exact fp32 model would have chosen 95 % of the tokens"}


def batch_rows(run: RunBuilder, exact: Llama, fast: Llama, path: Path) -> None:
    """Answer tokens per second of sixteen requests, prefill counted in, beside two peers."""
    prompts = sixteen(path)
    core = assemble(fast, max_num_seqs=REQUESTS, enable_prefix_caching=False)  # every round prefills
    requests, _ = serve(core, prompts, NEW)
    cost = Cost.of(fast, core.runner.storage)
    read = sum(map(cost.bytes, core.stats.steps))
    tokens = REQUESTS * NEW
    common = {
        "unit": "tok/s",
        "kind": "speedup",
        "floor": tokens * run.ceiling("read_bandwidth") / read,
        "floor_formula": READ,
        "bytes": read,
        "threads": run.threads,
        "shape": {"model": MODEL, "requests": REQUESTS, "prompts": [len(p) for p in prompts], "new_tokens": NEW},
        "correct": agreement(exact, requests),
    }
    peers = {"transformers": (transformers_batch, 3.0, 5.0), "llamacpp": (llamacpp_slots, 2.5, 3.0)}
    for name, (peer, must, target) in peers.items():
        key = f"cpu.batch16.{name}"
        try:
            program, described = peer(run, path, prompts)
        except ModuleNotFoundError as missing:
            run.skip(key, f"{missing.name} is not installed")
            continue
        programs = {"ours": lambda: serve(core, prompts, NEW), "theirs": program}
        took = alternate(programs, rounds=ROUNDS, per_round=1, min_time=0)
        rates = {who: [[tokens / seconds for seconds in one] for one in rounds] for who, rounds in took.items()}
        run.add(
            Row(
                key=key,
                what=f"{REQUESTS} requests, prompts of {SHORTEST} to {LONGEST} tokens, {NEW} new tokens each",
                ours=rates["ours"],
                baseline=rates["theirs"],
                baseline_name=described,
                target={"must": must, "target": target},
                **common,
            )
        )


def transformers_batch(run: RunBuilder, path: Path, prompts: list[list[int]]) -> tuple[Callable[[], object], str]:
    """transformers' generate with all prompts in one left-padded batch."""
    model = transformers_model(path)
    run.add_version("transformers")
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])

    def generate():
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0
            )

    return generate, "transformers generate, fp32, left-padded"


def llamacpp_slots(run: RunBuilder, path: Path, prompts: list[list[int]]) -> tuple[Callable[[], object], str]:
    """llama.cpp with a slot for each request, all asked at once."""
    server = LlamaCpp(path, run.threads, context=LONGEST + NEW + 16, slots=REQUESTS)
    run.add_version("xllamacpp")
    callers = ThreadPoolExecutor(REQUESTS)

    def generate():
        answers = list(callers.map(lambda prompt: server.complete(prompt, NEW), prompts))
        if any(answer["usage"]["completion_tokens"] != NEW for answer in answers):
            raise RuntimeError("llama.cpp answered with another number of tokens than asked for")

    return generate, f"llama.cpp, prebuilt AVX2 build (xllamacpp), {REQUESTS} slots"


def prefix_row(run: RunBuilder, fast: Llama, path: Path) -> None:
    """Requests that share a long prefix and arrive together, into an engine with an empty cache."""
    shared = prompt_ids(PREFIX, path)
    prompts = [[*shared, *(1000 + OWN * i + j for j in range(OWN))] for i in range(SHARING)]
    answers: dict[bool, list] = {}

    def mean_ttft(caching: bool) -> float:
        requests, first = serve(assemble(fast, enable_prefix_caching=caching), prompts, FEW)
        answers[caching] = [request.output_token_ids for request in requests]
        return sum(first) / len(first)

    took: dict[bool, list] = {True: [], False: []}
    for _ in range(ROUNDS):
        for caching, samples in took.items():
            samples.append([mean_ttft(caching)])
    same = sum(a == b for a, b in zip(*answers.values(), strict=True)) / SHARING
    run.add(
        Row(
            key="cpu.prefix.ttft",
            what=f"mean time to first token of {SHARING} requests that share {PREFIX} tokens",
            ours=took[True],
            baseline=took[False],
            baseline_name="the same with enable_prefix_caching=False",
            unit="s",
            kind="speedup",
            target={"must": 5.0},
            threads=run.threads,
            shape={"model": MODEL, "requests": SHARING, "prefix": PREFIX, "own": OWN, "new_tokens": FEW},
            correct={
                "pass": same >= 0.95,
                "same_answers": same,
                "bar": "95 % of the answers, greedy, in int16 or bf16",
            },
            method="an engine of its own for each sample, in turns",
        )
    )


def paged_overhead(run: RunBuilder, model: Llama) -> None:
    """One decode step's attention, all layers: blocks in random order against a buffer per sequence."""
    config, lengths = model.config, torch.linspace(SHORTEST, LONGEST + NEW, REQUESTS).int().tolist()
    generator = torch.Generator().manual_seed(0)
    contiguous = ContiguousKVCache(
        config.n_layers, config.n_kv_heads, config.head_dim, slots=REQUESTS, capacity=max(lengths)
    )
    for cache in (contiguous.keys, contiguous.values):
        cache.normal_(generator=generator)
    storage, metadata = paged_copy(contiguous, lengths, config.n_heads, generator)
    contiguous.lengths = [length - 1 for length in lengths]
    attends = contiguous.extend([(slot, 1) for slot in range(REQUESTS)]), PagedAttend(storage, metadata, None)
    q = torch.randn(REQUESTS, config.n_heads, config.head_dim, generator=generator)
    k, v = (torch.randn(REQUESTS, config.n_kv_heads, config.head_dim, generator=generator) for _ in range(2))
    error = max((attends[0](layer, q, k, v) - attends[1](layer, q, k, v)).abs().max().item() for layer in (0, 1))

    def all_layers(attend):
        for layer in range(config.n_layers):
            attend(layer, q, k, v)

    programs = {"contiguous": lambda: all_layers(attends[0]), "paged": lambda: all_layers(attends[1])}
    took = alternate(programs, rounds=7, per_round=5)
    run.add(
        Row(
            key="cpu.paged_overhead",
            what=f"decode attention of {REQUESTS} sequences, all layers, over blocks of {storage.shape.block_size}",
            ours=took["paged"],
            baseline=took["contiguous"],
            baseline_name="one contiguous buffer per sequence",
            unit="s",
            kind="overhead",
            target={"must": 1.25},
            dtype="fp32",
            threads=run.threads,
            bytes=float(sum(lengths) * storage.nbytes_per_block / storage.shape.block_size),
            shape={"model": MODEL, "lengths": lengths},
            correct={"pass": error <= 1e-5, "max_error": error, "bar": "1e-5 from the contiguous cache"},
        )
    )


def paged_copy(
    cache: ContiguousKVCache, lengths: list[int], n_heads: int, generator: torch.Generator
) -> tuple[KVStorage, AttentionMetadata]:
    """The same keys and values in blocks of 16 in random order, and a decode step over them."""
    n_layers, _, n_kv_heads, _, head_dim = cache.keys.shape
    size = 16
    counts = [-(-length // size) for length in lengths]
    blocks = (torch.randperm(sum(counts), generator=generator) + 1).split(counts)
    storage = KVStorage(n_layers, AttentionShape(n_heads, n_kv_heads, head_dim, 1 + sum(counts), size))
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    newest = []
    for slot, (length, mine) in enumerate(zip(lengths, blocks, strict=True)):
        table[slot, : len(mine)] = mine
        slots = (mine[:, None] * size + torch.arange(size)).flatten()[:length]
        newest.append(slots[-1])
        for layer in range(n_layers):
            k, v = (one[layer, slot, :, :length].transpose(0, 1) for one in (cache.keys, cache.values))
            storage.write(layer, slots, k, v)
    start = torch.arange(len(lengths) + 1, dtype=torch.int32)
    return storage, AttentionMetadata(start, torch.tensor(lengths), table, torch.stack(newest), 1, max(lengths))
