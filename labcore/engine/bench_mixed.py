"""256 requests of mixed lengths on a GPU: beside their ideal time, and beside transformers' continuous batching."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.engine.gpu_evidence import dtype_on, judge, prompts, require_answers, wait
from labcore.engine.peer_batching import TransformersPeer
from labcore.engine.random_model import published_config, random_engine, random_model, run_to_end, token_requests
from labcore.model.llama import Llama
from labcore.model.stats import kv_bytes_per_token, layer_parameters, weight_bytes_per_pass

SERVED = "llama-3-8b"
REQUESTS, PROMPTS, OUTPUTS = 256, (32, 1024), (16, 256)  # lengths are log-uniform
TOKENS_A_STEP, ROUNDS = 8192, 5


def mixed(run: CudaRun) -> Iterator[Row]:
    """256 requests: the ideal time over ours, then ours beside transformers, the same weights and tokens."""
    load = Workload.mixed(published_config(SERVED).vocab)
    ours = Ours(run, load)
    ours()  # compiles, captures
    if run.warming:
        return
    taken = [[ours()] for _ in range(ROUNDS)]
    plain = random_model(SERVED, device=run.device, dtype=dtype_on(run))
    common = {
        "unit": "s",
        "dtype": "bf16",
        "correct": ours.check(plain),
        "shape": {
            "model": SERVED,
            "requests": REQUESTS,
            "prompt_tokens": sum(map(len, load.prompts)),
            "output_tokens": sum(load.outputs),
        },
    }
    yield Row(
        key="gpu.mixed256.ideal",
        what=f"{REQUESTS} requests of mixed lengths at once, shape of {SERVED}, random weights",
        ours=taken,
        kind="fraction_of_ceiling",
        floor=load.ideal(plain, run.ceiling("matmul.bf16"), run.ceiling("read_bandwidth")),
        floor_formula="prompt FLOP / matmul.bf16 + bytes of steps in which all unfinished decode / read_bandwidth",
        target={"target": 0.5},
        method="whole workloads, one after the other, by the host's clock",
        **common,
    )
    yield beside_transformers(run, ours, plain, common)


def beside_transformers(run: CudaRun, ours: Ours, plain: Llama, common: dict) -> Row:
    """The row, with as many rounds as the peer's pace allows."""
    peer = TransformersPeer(plain, ours.load.prompts, ours.load.outputs, max(TOKENS_A_STEP, REQUESTS))
    run.add_version("transformers")
    rounds: list[tuple[float, float]] = []
    try:
        peer(slice(0, 8))
        while len(rounds) < 3 and (not rounds or rounds[0][1] < 15 * (3 - len(rounds))):
            rounds.append((ours(), peer()))
    finally:
        peer.close()
    first = statistics.mean(
        answer[0] == request.output_token_ids[0] for answer, request in zip(peer.answers, ours.requests, strict=True)
    )
    return Row(
        key="gpu.mixed256.transformers",
        what=f"{REQUESTS} requests of mixed lengths at once, shape of {SERVED}, random weights",
        ours=[[one] for one, _ in rounds],
        baseline=[[other] for _, other in rounds],
        baseline_name=f"transformers' continuous batching, {peer.attention}",
        kind="speedup",
        target={"must": 3.0},
        notes=f"The first token is the same in {first:.0%} of the answers; flash-attn is not installed there.",
        method="whole workloads in turns, by the host's clock",
        **common,
    )


@dataclass(frozen=True)
class Workload:
    """Prompts as token ids, and how many tokens each answer has."""

    prompts: list[list[int]]
    outputs: list[int]

    @classmethod
    def mixed(cls, vocab: int, seed: int = 0) -> Workload:
        """REQUESTS of log-uniform lengths."""
        random = np.random.default_rng(seed)
        sizes = [np.exp(random.uniform(*np.log(span), REQUESTS)).astype(int).tolist() for span in (PROMPTS, OUTPUTS)]
        return cls(prompts(sizes[0], vocab, seed), sizes[1])

    def ideal(self, model: Llama, compute: float, read: float) -> float:
        """Seconds, at `compute` FLOP/s and `read` B/s: all prompts, then every request decoding in every step."""
        config = model.config
        heads = config.n_layers * config.n_heads * config.head_dim
        lengths = np.array([len(prompt) for prompt in self.prompts])
        flops = 2 * layer_parameters(model) * lengths.sum() + 4 * heads * (lengths * (lengths + 1) / 2).sum()
        flops += 2 * config.vocab * config.hidden * len(lengths)
        outputs, nbytes = np.array(self.outputs), 0.0
        for step in range(1, int(outputs.max())):
            live = outputs > step
            nbytes += weight_bytes_per_pass(model) + kv_bytes_per_token(model) * float((lengths[live] + step).sum())
        return float(flops / compute + nbytes / read)


class Ours:
    """This engine, with room for the whole workload; without a prefix cache, which a second round would profit from."""

    def __init__(self, run: CudaRun, load: Workload):
        self.load, self.requests, self.rounds = load, [], 0
        blocks = 1 + sum(-(-(len(p) + n) // 16) for p, n in zip(load.prompts, load.outputs, strict=True))
        self.core = random_engine(
            SERVED,
            device=run.device,
            dtype=dtype_on(run),
            num_blocks=blocks + REQUESTS,
            max_num_seqs=REQUESTS,
            max_num_batched_tokens=max(TOKENS_A_STEP, REQUESTS),
            max_model_len=PROMPTS[1] + OUTPUTS[1] + 1,
            enable_prefix_caching=False,
            watermark=0.0,
        )
        self.device = run.device

    def __call__(self) -> float:
        """Seconds from the first request to the last token. Raises DataError if one has another number of tokens."""
        self.rounds += 1
        self.requests = token_requests(self.load.prompts, self.load.outputs, name=f"{self.rounds}.")
        wait(self.device)
        start = time.perf_counter()
        run_to_end(self.core, self.requests)
        wait(self.device)
        took = time.perf_counter() - start
        require_answers(self.requests, self.load.outputs)
        return took

    def check(self, plain: Llama) -> dict:
        """Some answers of the last round, judged token by token; every one has its length."""
        some = sorted(self.requests, key=lambda request: request.num_tokens)
        return judge(plain, [some[0], some[len(some) // 2], some[-1]])
