"""Engine rows of `labcore bench --device cuda`: decode beside the memory's bandwidth, 256 requests beside their ideal
time and beside transformers' continuous batching.

Weights are random, of real shapes, so nothing is downloaded; time is the engine's whole loop, scheduling included. The
answers are checked in one pass of the plain decoder over prompt and answer: each token must be what that pass would
have chosen, or close to it, since bf16 decides ties either way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.bench.cuda_run import CudaRun
from labcore.bench.record import Row
from labcore.core.errors import DataError
from labcore.core.request import Request
from labcore.engine.engine_core import EngineCore
from labcore.engine.random_model import random_engine, random_model, run_to_end, token_requests
from labcore.facts.lookup import read_json
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.stats import layer_parameters

DECODED = {"llama3_8b": "llama-3-8b", "qwen3_0_6b": "qwen3-0.6b"}  # key -> model
SERVED = "llama-3-8b"  # by the rows of 256 requests
PROMPT, STEPS, ROUNDS, SAMPLES = 500, 32, 5, 3  # batch-1 decode; beyond 512 tokens one graph serves all steps
REQUESTS, PROMPTS, OUTPUTS = 256, (32, 1024), (16, 256)  # lengths are log-uniform
TOKENS_A_STEP = 8192
MEAN_REGRET, WORST_REGRET = 0.02, 0.5  # in standard deviations of the logits; a wrong token has 3 to 5
PEER_BLOCK = 256  # tokens, transformers' default; it gets as many as the workload can use at once
PEER_LIMIT = 90.0  # s that one round of the peer may take


def suite(run: CudaRun) -> None:
    """Rows gpu.decode_mbu.*, gpu.mixed256.ideal, gpu.mixed256.transformers."""
    run.attempt_all(ROWS)


# --- what is right -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def judge(plain: Llama, requests: Sequence[Request]) -> dict:
    """Evidence that the answers are the model's own: how far each token is from the best of a pass over all of them."""
    regrets, equal = [], []
    for request in requests:
        tokens = torch.tensor(request.all_token_ids[:-1], device=plain.norm.weight.device)
        answer = torch.tensor(request.output_token_ids, device=tokens.device)
        positions = torch.arange(len(tokens), device=tokens.device)
        wanted = positions[request.num_prompt_tokens - 1 :]
        logits = plain(tokens, positions, _causal, wanted=wanted).float()
        chosen = logits.gather(1, answer[:, None])[:, 0]
        regrets.append((logits.amax(-1) - chosen) / logits.std(-1))
        equal.append(logits.argmax(-1) == answer)
    regret = torch.cat(regrets)
    mean, worst = regret.mean().item(), regret.max().item()
    return {
        "pass": bool(mean <= MEAN_REGRET and worst <= WORST_REGRET),
        "how": "regret of each greedy token in one plain bf16 pass over prompt and answer, in deviations of the logits",
        "mean": float(f"{mean:.3g}"),
        "worst": float(f"{worst:.3g}"),
        "bar": f"mean {MEAN_REGRET}, worst {WORST_REGRET}",
        "tokens": len(regret),
        "top1_equal": round(torch.cat(equal).float().mean().item(), 4),
    }


def _causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over one whole sequence, without a cache."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


# --- decode, one request -------------------------------------------------------------------------------------------


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
    config, context = core.runner.model.config, PROMPT + (STEPS + total) / 2
    del core
    plain = random_model(model, device=run.device, dtype=dtype_on(run))
    nbytes = weight_bytes(plain) + context * kv_bytes(config)
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


def require_answers(requests: Sequence[Request], lengths: Sequence[int]) -> None:
    """Raises DataError unless every request has exactly as many tokens as it was asked for."""
    for request, length in zip(requests, lengths, strict=True):
        if request.num_output_tokens != length:
            why = request.error or "no error was reported"
            raise DataError(f"{request.request_id} has {request.num_output_tokens} of {length} tokens: {why}")


def _steps(core: EngineCore, device: str) -> float:
    """Seconds of one step, over STEPS of them."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        core.step()
    _wait(device)
    return (time.perf_counter() - start) / STEPS


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def one_request(tokens: int) -> dict:
    """Options of an engine for a single request of so many tokens."""
    return {
        "max_num_seqs": 1,
        "max_model_len": tokens,
        "num_blocks": 2 + -(-tokens // 16),
        "max_num_batched_tokens": 2048,
    }


def dtype_on(run: CudaRun) -> torch.dtype:
    """bf16; float32 on a CPU, where tests run."""
    return torch.bfloat16 if run.device == "cuda" else torch.float32


def weight_bytes(model: Llama) -> int:
    """Bytes of weights that a decode step reads: every layer's, the norms, and the head."""
    config, each = model.config, model.norm.weight.itemsize
    norms = sum(p.numel() for name, p in model.named_parameters() if name.endswith("norm.weight"))
    return each * (layer_parameters(model) + norms + config.vocab * config.hidden)


def kv_bytes(config: DecoderConfig) -> int:
    """Bytes of bf16 keys and values of a token."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2


# --- 256 requests of mixed lengths ---------------------------------------------------------------------------------


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
            nbytes += weight_bytes(model) + kv_bytes(config) * float((lengths[live] + step).sum())
        return float(flops / compute + nbytes / read)


def prompts(lengths: Sequence[int], vocab: int, seed: int = 0) -> list[list[int]]:
    """Random tokens."""
    random = np.random.default_rng(seed + 1)
    return [random.integers(vocab, size=length).tolist() for length in lengths]


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
        _wait(self.device)
        start = time.perf_counter()
        run_to_end(self.core, self.requests)
        _wait(self.device)
        took = time.perf_counter() - start
        require_answers(self.requests, self.load.outputs)
        return took

    def check(self, plain: Llama) -> dict:
        """Some answers of the last round, judged token by token; every one has its length."""
        some = sorted(self.requests, key=lambda request: request.num_tokens)
        return judge(plain, [some[0], some[len(some) // 2], some[-1]])


def mixed(run: CudaRun) -> Iterator[Row]:
    """256 requests: the ideal time over ours, then ours beside transformers, the same weights and tokens."""
    load = Workload.mixed(config_of(SERVED).vocab)
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


def config_of(model: str | DecoderConfig) -> DecoderConfig:
    """The configuration of an id of `facts.models`."""
    return (
        model if isinstance(model, DecoderConfig) else DecoderConfig.from_hf(read_json(f"configs/{model}.json"), model)
    )


def beside_transformers(run: CudaRun, ours: Ours, plain: Llama, common: dict) -> Row:
    """The row, with as many rounds as the peer's pace allows."""
    peer = TransformersPeer(plain, ours.load)
    run.add_version("transformers")
    peer(slice(0, 8))
    rounds: list[tuple[float, float]] = []
    while len(rounds) < 3 and (not rounds or rounds[0][1] < 15 * (3 - len(rounds))):
        rounds.append((ours(), peer()))
    first = statistics.mean(
        answer[0] == request.output_token_ids[0] for answer, request in zip(peer.answers, ours.requests, strict=True)
    )
    peer.close()
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


class TransformersPeer:
    """transformers' ContinuousBatchingManager over the weights of `plain`, greedy, without sharing of prefixes."""

    def __init__(self, plain: Llama, load: Workload):
        import transformers
        from transformers import ContinuousBatchingConfig, GenerationConfig

        transformers.utils.logging.set_verbosity_error()
        self.load, self.answers = load, []
        self.model = transformers_model(plain)
        generation = GenerationConfig(
            do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(load.outputs)
        )
        blocks = sum(-(-(len(p) + n) // PEER_BLOCK) + 1 for p, n in zip(load.prompts, load.outputs, strict=True))
        batching = ContinuousBatchingConfig(
            block_size=PEER_BLOCK,
            num_blocks=blocks,
            max_batch_tokens=max(TOKENS_A_STEP, REQUESTS),
            allow_block_sharing=False,
        )
        self.manager = self.model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=batching
        )
        self.manager.warmup()
        self.attention = self.model.config._attn_implementation
        self.manager.start()

    def __call__(self, chosen: slice = slice(None)) -> float:
        """Seconds from the first request to the last token. Raises DataError for an answer of another length."""
        start = time.perf_counter()
        pairs = list(zip(self.load.prompts, self.load.outputs, strict=True))[chosen]
        names = [self.manager.add_request(prompt, max_new_tokens=n) for prompt, n in pairs]
        done: dict[str, list[int]] = {}
        while len(done) < len(names):
            result = self.manager.get_result(timeout=1.0)
            if result is not None and result.is_finished():
                done[result.request_id] = result.generated_tokens
            elif result is None and (not self.manager.is_running() or time.perf_counter() - start > PEER_LIMIT):
                raise DataError(f"transformers answered {len(done)} of {len(names)} requests in {PEER_LIMIT:.0f} s")
        took = time.perf_counter() - start
        self.answers = [done[name] for name in names]
        if wrong := [n for answer, (_, n) in zip(self.answers, pairs, strict=True) if len(answer) != n]:
            raise DataError(f"transformers gave {len(wrong)} answers of another length than asked for")
        return took

    def close(self) -> None:
        """End its thread."""
        self.manager.stop(block=True, timeout=10)


def transformers_model(plain: Llama) -> torch.nn.Module:
    """transformers' model of the same shape, with copies of the same weights."""
    import transformers

    ours, weight = plain.config, plain.norm.weight
    config = transformers.AutoConfig.for_model(
        ours.architecture,
        vocab_size=ours.vocab,
        hidden_size=ours.hidden,
        intermediate_size=ours.intermediate,
        num_hidden_layers=ours.n_layers,
        num_attention_heads=ours.n_heads,
        num_key_value_heads=ours.n_kv_heads,
        head_dim=ours.head_dim,
        max_position_embeddings=ours.context,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_theta},
        tie_word_embeddings=ours.tied_embeddings,
    )
    with torch.device(weight.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=weight.dtype, attn_implementation="sdpa")
    prefixed = {name if name == "lm_head.weight" else f"model.{name}": p for name, p in plain.named_parameters()}
    missing = model.load_state_dict(prefixed, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise DataError(f"transformers' model has other weights: {missing}")
    return model.eval()


Measure = Callable[[CudaRun], Iterator[Row]]
ROWS: dict[str, Measure] = {
    f"gpu.decode_mbu.{key}": lambda run, key=key, model=model: decode(run, key, model) for key, model in DECODED.items()
}
ROWS["gpu.mixed256"] = mixed
SLOW_TO_COMPILE = ("gpu.mixed256", "gpu.decode_mbu.llama3_8b")
