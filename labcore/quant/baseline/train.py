"""Train the float baseline: `python -m labcore.quant.baseline.train --out FOLDER`.

A Llama of 2.5 million parameters learns the training countries of the corpus with AdamW and a cosine schedule, in fp32
on one CPU thread; countries it never sees judge it. The folder receives config.json, tokenizer.json, fp16 weights and
curve.json. Every matrix has rows of a multiple of 256, so that each block format, k-quants included, fits it.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from labcore.core.files import atomic_write
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.quant import corpus, windows
from labcore.quant.baseline import bpe

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "torch_dtype": "float16",
}
WINDOW, BATCH = 512, 2  # tokens of a window, windows of a step
PEAK_LR, WARMUP, WEIGHT_DECAY, CLIP = 2.5e-3, 100, 0.1, 1.0
EVALUATE_EVERY = 200  # steps


def train(out: Path, steps: int, seed: int = 0) -> dict:
    """Train for `steps` steps into the folder `out`, and return the curve, as curve.json holds it.

    The folder is rewritten at every evaluation: a run that is stopped leaves the weights of its last one.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    texts = {split: corpus.text(split) for split in ("train", "evaluation")}
    tokens, merges = bpe.train(texts["train"], CONFIG["vocab_size"])
    tokenizer = bpe.tokenizer(tokens, merges)
    stream = {split: torch.tensor(tokenizer.encode(text, parse_special=False)) for split, text in texts.items()}
    _write_description(out, tokens, merges)
    model = start(DecoderConfig.from_hf(CONFIG))
    curve = {"seed": seed, "steps": steps, "tokens_per_step": WINDOW * BATCH, "points": []}
    curve |= {"parameters": sum(p.numel() for p in model.parameters())}
    curve |= {"tokens": {split: len(ids) for split, ids in stream.items()}}
    curve |= {"bytes_per_token": {split: len(texts[split].encode()) / len(ids) for split, ids in stream.items()}}
    began, losses = time.perf_counter(), []
    for step, loss in enumerate(_losses(model, stream["train"], steps), start=1):
        losses.append(loss)
        if step % EVALUATE_EVERY == 0 or step == steps:
            point = {"step": step, "minutes": round((time.perf_counter() - began) / 60, 1)}
            point |= {"batch_loss": round(sum(losses) / len(losses), 4), **evaluate(model, stream, last=step == steps)}
            losses.clear()
            curve["points"].append(point)
            print(point, flush=True)
            _write_weights(out, model, curve)
    return curve


def _losses(model: Llama, ids: Tensor, steps: int) -> Iterator[float]:
    """One optimizer step for each loss taken from it: AdamW on windows at random places of the stream `ids`."""
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=PEAK_LR, betas=(0.9, 0.95))
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * schedule(step, steps)
        starts = torch.randint(len(ids) - WINDOW, (BATCH,))
        loss = windows.next_token_loss(model, torch.stack([ids[i : i + WINDOW + 1] for i in starts]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        yield loss.item()


def evaluate(model: Llama, stream: dict[str, Tensor], last: bool) -> dict[str, float]:
    """Mean loss on seen and unseen text: every unseen window and a quarter of the seen at the end, else a sixteenth."""
    every = 1 if last else 16
    seen, unseen = windows.cut(stream["train"], WINDOW), windows.cut(stream["evaluation"], WINDOW)
    return {
        "train_loss": round(mean_loss(model, seen[:: 4 * every]), 4),
        "evaluation_loss": round(mean_loss(model, unseen[::every]), 4),
    }


def start(config: DecoderConfig) -> Llama:
    """A model at its start: normal weights of deviation 0.02, smaller where a layer adds to the residual stream."""
    model = Llama(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            adds = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layers) if adds else 0.02)
    return model


def parameter_groups(model: Llama) -> list[dict]:
    """Weight decay for the matrices, none for the norms."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear rise over WARMUP steps, then half a cosine down to a fiftieth."""
    if step < WARMUP:
        return step / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def mean_loss(model: Llama, rows: Tensor) -> float:
    """Nats per token, over rows [windows, WINDOW + 1]."""
    return sum(windows.next_token_loss(model, row[None]).item() for row in rows) / len(rows)


def _write_description(out: Path, tokens: list[str], merges: list[bpe.Pair]) -> None:
    """All of the folder but its weights."""
    for name, content in {
        "config.json": CONFIG,
        "tokenizer.json": bpe.tokenizer_json(tokens, merges),
        "tokenizer_config.json": {"eos_token": bpe.END_OF_TEXT},
    }.items():
        atomic_write(out / name, json.dumps(content, indent=None if name == "tokenizer.json" else 1) + "\n")


def _write_weights(out: Path, model: Llama, curve: dict) -> None:
    weights = {name: p.detach().half().contiguous() for name, p in model.named_parameters() if name != "lm_head.weight"}
    atomic_write(out / "model.safetensors", save({f"model.{name}": weight for name, weight in weights.items()}))
    atomic_write(out / "curve.json", json.dumps(curve, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps of 1024 tokens (default: 2000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(options.out, options.steps)


if __name__ == "__main__":
    main()
