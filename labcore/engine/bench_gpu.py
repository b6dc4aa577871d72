"""Engine rows of `labcore bench --device cuda`: decode beside the memory's bandwidth, and 256 requests at once.

Weights are random, of real shapes, so nothing is downloaded; time is the engine's whole loop, scheduling included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.engine.bench_mixed import mixed
from labcore.engine.engine_core import EngineCore
from labcore.engine.gpu_evidence import dtype_on, judge, prompts, require_answers, wait
from labcore.engine.random_model import random_engine, random_model, run_to_end, token_requests
from labcore.model.config import DecoderConfig
from labcore.model.stats import kv_bytes_per_token, weight_bytes_per_pass

DECODED = {"llama3_8b": "llama-3-8b", "qwen3_0_6b": "qwen3-0.6b"}  # key -> model
PROMPT, STEPS, ROUNDS, SAMPLES = 500, 32, 5, 3  # batch-1 decode; beyond 512 tokens one graph serves all steps


def suite(run: CudaRun) -> None:
    """Rows gpu.decode_mbu.*, gpu.mixed256.ideal, gpu.mixed256.transformers."""
    run.attempt_all(ROWS)


def decode(run: CudaRun, key: str, model: str | DecoderConfig) -> Iterator[Row]:
    """Batch-1 decode: bytes of weights and keys over the time of an engine step, as share of the read bandwidth."""
    rounds, samples = (1, 1) if run.warming else (ROUNDS, SAMPLES)
    total = STEPS * (1 + rounds * samples)
    core = random_engine(model, device=run.device, dtype=dtype_on(run), **one_request(PROMPT + total + 2))
    vocab = core.runner.model.config.vocab
    (request,) = token_requests(prompts([PROMPT], vocab), [total + 1])
    core.add_request(request)
    while request.num_output_tokens < STEPS and core.has_unfinished_requests():
        core.step()
    taken = [[_steps(core, run.device) for _ in range(samples)] for _ in range(rounds)]
    if run.warming:
        return
    run_to_end(core, ())
    require_answers([request], [total + 1])
    context = PROMPT + (STEPS + total) / 2
    del core
    plain = random_model(model, device=run.device, dtype=dtype_on(run))
    nbytes = weight_bytes_per_pass(plain) + context * kv_bytes_per_token(plain)
    yield Row(
        key=f"gpu.decode_mbu.{key}",
        what=f"greedy decode of one request, shape of {model}, random weights",
        ours=taken,
        unit="s",
        kind="fraction_of_ceiling",
        floor=nbytes / run.ceiling("read_bandwidth"),
        floor_formula="(weights + keys and values of the mean context) / read_bandwidth",
        bytes=float(nbytes),
        target={"must": 0.75, "target": 0.88},
        correct=judge(plain, [request]),
        dtype="bf16",
        shape={"model": model, "prompt": PROMPT, "mean_context": context, "batch": 1},
        method=f"{STEPS} engine steps a sample, one after the other, by the host's clock",
    )


def _steps(core: EngineCore, device: str) -> float:
    """Seconds of one step, over STEPS of them."""
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        core.step()
    wait(device)
    return (time.perf_counter() - start) / STEPS


def one_request(tokens: int) -> dict:
    """Options of an engine for a single request of so many tokens."""
    return {
        "max_num_seqs": 1,
        "max_model_len": tokens,
        "num_blocks": 2 + -(-tokens // 16),
        "max_num_batched_tokens": 2048,
    }


Measure = Callable[[CudaRun], Iterator[Row]]
ROWS: dict[str, Measure] = {
    f"gpu.decode_mbu.{key}": lambda run, key=key, model=model: decode(run, key, model) for key, model in DECODED.items()
}
ROWS["gpu.mixed256"] = mixed
SLOW_TO_COMPILE = ("gpu.mixed256", "gpu.decode_mbu.llama3_8b")
