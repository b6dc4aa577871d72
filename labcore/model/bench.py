"""`labcore bench` suites of the model: the fast path beside llama.cpp and transformers, and peak memory.

Every row runs the same file, the same token ids and the same number of threads as its peer, in alternating rounds.
"""

from __future__ import annotations

import subprocess
import sys
import time

import torch

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.kernels.cpu.library import why_unavailable
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.checkpoints import fetch
from labcore.model.fast import fast_path
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.peers import LlamaCpp, transformers_model
from labcore.model.stats import kv_bytes_per_token, layer_parameters, weight_bytes_per_pass

MODEL = "smollm2-135m"
PROMPT, NEW, LONG_PROMPT = 64, 64, 512


def models(path) -> tuple[Llama, Llama]:
    """The exact and the fast decoder of one file."""
    checkpoint = open_checkpoint(path)
    transform, dtype = fast_path()
    return load_model(checkpoint), load_model(checkpoint, dtype=dtype, transform=transform)


def new_cache(model: Llama, slots: int, capacity: int) -> ContiguousKVCache:
    config = model.config
    shape = config.n_layers, config.n_kv_heads, config.head_dim
    return ContiguousKVCache(*shape, slots=slots, capacity=capacity, dtype=model.norm.weight.dtype)


def prompt_ids(count: int, path) -> list[int]:
    """`count` tokens of English: real text, so that greedy continuations do not degenerate at once."""
    text = "The river rises in the mountains, crosses the plain, and reaches the sea after a journey of many days. "
    return open_checkpoint(path).tokenizer().encode(text * (count // 10))[:count]


@torch.inference_mode()
def prefill(model: Llama, ids: list[int]) -> torch.Tensor:
    """Logits after the last of `ids`, one pass."""
    attend = new_cache(model, 1, len(ids)).extend([(0, len(ids))])
    return model(torch.tensor(ids), attend.positions, attend, wanted=attend.last)


class Decoder:
    """Batched greedy decoding with the bookkeeping of a real loop: one `step` is one pass and its argmax."""

    def __init__(self, model: Llama, ids: list[int], batch: int, capacity: int):
        self.model, self.past = model, len(ids)
        self.cache = new_cache(model, batch, capacity)
        self.slots = range(batch)
        with torch.inference_mode():
            for slot in self.slots:
                attend = self.cache.extend([(slot, len(ids))])
                logits = model(torch.tensor(ids), attend.positions, attend, wanted=attend.last)
        self.first = self.tokens = logits.argmax(-1).expand(batch)

    @torch.inference_mode()
    def step(self) -> None:
        attend = self.cache.extend([(slot, 1) for slot in self.slots])
        self.tokens = self.model(self.tokens, attend.positions, attend).argmax(-1)

    def rewind(self) -> None:
        """Back to the end of the prompt, so that every sample decodes the same positions."""
        for slot in self.slots:
            self.cache.truncate(slot, self.past)
        self.tokens = self.first

    def run(self, tokens: int) -> None:
        self.rewind()
        for _ in range(tokens):
            self.step()


@torch.inference_mode()
def agreement(exact: Llama, fast: Llama, ids: list[int]) -> dict:
    """Token-by-token decode of `ids` by both: mean and largest KL(exact ‖ fast) in nats, and top-1 agreement."""
    logits = []
    for model in (exact, fast):
        cache, rows = new_cache(model, 1, len(ids)), []
        for token in ids:
            attend = cache.extend([(0, 1)])
            rows.append(model(torch.tensor([token]), attend.positions, attend).float())
        logits.append(torch.cat(rows).log_softmax(-1))
    p, q = logits
    kl = (p.exp() * (p - q)).sum(-1)
    top1 = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    return {"kl_mean": kl.mean().item(), "kl_max": kl.max().item(), "top1": top1, "tokens": len(ids)}


def judged(found: dict) -> dict:
    """The fast path is right when it stays this close to the exact one; bf16 alone costs about a tenth of it."""
    return found | {"pass": found["kl_mean"] <= 0.005 and found["top1"] >= 0.95, "bar": "mean KL 0.005 nat, top-1 0.95"}


def _dtypes() -> str:
    """What the fast path multiplies on this machine."""
    return "int16 × Q4_1" if why_unavailable() is None else "bf16 × Q4_1"


def decode_suite(run: RunBuilder) -> None:
    """Batch-1 decode and 512-token prefill of the fast path beside llama.cpp and transformers."""
    path = fetch(MODEL)
    exact, fast = models(path)
    ids, long_ids = prompt_ids(PROMPT, path), prompt_ids(LONG_PROMPT, path)
    found = judged(agreement(exact, fast, prompt_ids(192, path)))
    del exact
    read = weight_bytes_per_pass(fast) + (PROMPT + NEW / 2) * kv_bytes_per_token(fast)
    floor = run.ceiling("read_bandwidth") / read
    common = {"unit": "tok/s", "correct": found, "dtype": _dtypes(), "threads": run.threads, "bytes": read}
    workload = {"model": MODEL, "prompt": PROMPT, "new_tokens": NEW, "batch": 1}
    ours = Decoder(fast, ids, 1, PROMPT + NEW)
    _add_llamacpp(run, ours, path, ids, workload, floor, common)
    _add_transformers(run, ours, fast, path, ids, long_ids, workload, floor, common)


def _rates(rounds, tokens: int) -> list[list[float]]:
    return [[tokens / seconds for seconds in one] for one in rounds]


def _add_llamacpp(run, ours: Decoder, path, ids, workload, floor, common) -> None:
    try:
        peer = LlamaCpp(path, run.threads)
    except ModuleNotFoundError as missing:
        return run.skip("cpu.decode.llamacpp", f"{missing.name} is not installed")
    run.add_version("xllamacpp")
    rates: dict[str, list[list[float]]] = {"ours": [], "peer": []}
    for _ in range(6):  # the server reports its own decode time, so each side is timed by its own clock, in turns
        ours.run(NEW)
        start = time.perf_counter()
        ours.run(NEW)
        rates["ours"].append([NEW / (time.perf_counter() - start)])
        answers = [peer.complete(ids, NEW + 1)["timings"] for _ in range(2)]
        rates["peer"].append([answers[-1]["predicted_per_second"]])
    run.add(
        Row(
            key="cpu.decode.llamacpp",
            what="decode, batch 1, fast path",
            ours=rates["ours"][1:],
            baseline=rates["peer"][1:],
            baseline_name="llama.cpp, prebuilt AVX2 build (xllamacpp)",
            kind="speedup",
            floor=floor,
            floor_formula="read_bandwidth / (weight bytes + mean KV bytes)",
            shape=workload,
            target={"must": 0.8, "target": 1.0, "dream": 1.3},
            **common,
        )
    )


def _add_transformers(run, ours: Decoder, fast, path, ids, long_ids, workload, floor, common) -> None:
    try:
        peers = {dtype: transformers_model(path, dtype) for dtype in (torch.float32, torch.bfloat16)}
    except ModuleNotFoundError as missing:
        return run.skip("cpu.decode.transformers", f"{missing.name} is not installed")
    run.add_version("transformers")
    peer, prompt = peers[torch.float32], torch.tensor([ids])

    def generate():
        with torch.inference_mode():
            peer.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
            )

    def ours_whole():
        prefill(fast, ids)
        ours.run(NEW - 1)

    took = alternate({"ours": ours_whole, "peer": generate}, rounds=5, per_round=1, min_time=0)
    run.add(
        Row(
            key="cpu.decode.transformers",
            what="prompt of 64, 64 new tokens, batch 1",
            ours=_rates(took["ours"], NEW),
            baseline=_rates(took["peer"], NEW),
            baseline_name="transformers generate, fp32",
            kind="speedup",
            floor=floor,
            floor_formula="read_bandwidth / (weight bytes + mean KV bytes)",
            shape=workload,
            target={"must": 3.0, "target": 4.0},
            **common,
        )
    )
    peer16, long = peers[torch.bfloat16], torch.tensor([long_ids])

    def forward():
        with torch.inference_mode():
            peer16(long, use_cache=True, logits_to_keep=1)

    took = alternate({"ours": lambda: prefill(fast, long_ids), "peer": forward}, rounds=5, per_round=1, min_time=0)
    flops = 2 * LONG_PROMPT * layer_parameters(fast)
    run.add(
        Row(
            key="cpu.prefill.transformers",
            what="prefill of 512 tokens",
            ours=_rates(took["ours"], LONG_PROMPT),
            baseline=_rates(took["peer"], LONG_PROMPT),
            baseline_name="transformers forward, bf16, last logits only",
            kind="speedup",
            floor=max(run.ceiling("matmul.bf16"), run.ceiling("matmul.fp32")) * LONG_PROMPT / flops,
            floor_formula="the faster of matmul.bf16 and matmul.fp32 / (2 × parameters of the layers)",
            flops=float(flops),
            shape={"model": MODEL, "prompt": LONG_PROMPT},
            target={"must": 1.2, "target": 2.0},
            **common | {"bytes": None},
        )
    )


def memory_suite(run: RunBuilder) -> None:
    """Peak resident memory of a whole run in a fresh process, over what it cannot do without."""
    path = fetch(MODEL)
    code = (
        "import torch\n"
        "import labcore as m\n"
        "from labcore.model.stats import kv_bytes_per_token\n"
        "from labcore.core.sampling_params import SamplingParams\n"
        f"torch.set_num_threads({run.threads})\n"
        "status = lambda: dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "size = lambda field: int(status()[field].split()[0]) * 1024\n"
        "before = size('VmRSS')\n"
        f"llm = m.LLM({str(path)!r}, quantization='gguf', progress=False)\n"
        f"llm.generate([list(range(1000, {1000 + PROMPT}))], SamplingParams(temperature=0, max_tokens={NEW}))\n"
        f"print(before, size('VmHWM'), kv_bytes_per_token(llm.model) * {PROMPT + NEW - 1})\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, peak, kv = (float(word) for word in out.split())
    needed = before + path.stat().st_size + kv
    run.add(
        Row(
            key="cpu.peak_memory",
            what="peak resident size of one run, fresh process",
            ours=[[peak / needed]],
            unit="1",
            kind="value",
            target={"must": 1.3},
            threads=run.threads,
            bytes=peak,
            shape={"model": MODEL, "prompt": PROMPT, "new_tokens": NEW},
            config={"after_imports": before, "file": path.stat().st_size, "kv": kv},
            correct={
                "pass": before < peak,
                "how": "peak over (size after imports + file bytes + KV bytes), all read in the child",
            },
            method="VmHWM of a child process, which is its ru_maxrss without what it inherits at fork",
        )
    )
