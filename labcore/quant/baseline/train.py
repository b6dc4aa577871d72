"""Train the float baseline: `python -m labcore.quant.baseline.train --out FOLDER`.

A Llama of 2.5 million parameters learns the training countries of the corpus with AdamW and a cosine schedule, in fp32
on one CPU thread; countries it never sees judge it. The folder receives config.json, tokenizer.json, fp16 weights and
curve.json. Every matrix has rows of a multiple of 256, so that each block format, k-quants included, fits it.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from labcore.core.files import atomic_write
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.tokenizer_json import tokenizer_from_folder
from labcore.quant import corpus
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


def train(out: Path, steps: int, seed: int = 0) -> None:
    """Train for `steps` steps and leave the best-known weights, those of the last evaluation, in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    texts = {split: corpus.text(split) for split in ("train", "evaluation")}
    tokenizer = _write_tokenizer(out, texts["train"])
    stream = {split: torch.tensor(tokenizer.encode(text, parse_special=False)) for split, text in texts.items()}
    seen, unseen = windows(stream["train"]), windows(stream["evaluation"])
    model = start(DecoderConfig.from_hf(CONFIG))
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=PEAK_LR, betas=(0.9, 0.95))
    curve: dict = {
        "seed": seed,
        "steps": steps,
        "tokens_per_step": WINDOW * BATCH,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes_per_token": {split: len(texts[split].encode()) / len(stream[split]) for split in texts},
        "tokens": {split: len(ids) for split, ids in stream.items()},
        "points": [],
    }
    began, losses = time.perf_counter(), []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * schedule(step, steps)
        starts = torch.randint(len(stream["train"]) - WINDOW, (BATCH,))
        loss = next_token_loss(model, torch.stack([stream["train"][i : i + WINDOW + 1] for i in starts]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        if step % EVALUATE_EVERY == 0 or step == steps:
            every = 1 if step == steps else 16  # the whole split at the end, a sixteenth of it on the way
            point = {
                "step": step,
                "minutes": round((time.perf_counter() - began) / 60, 1),
                "batch_loss": round(sum(losses) / len(losses), 4),
                "train_loss": round(mean_loss(model, seen[:: 4 * every]), 4),
                "evaluation_loss": round(mean_loss(model, unseen[::every]), 4),
            }
            losses.clear()
            curve["points"].append(point)
            print(point, flush=True)
            _write_model(out, model, curve)


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


def next_token_loss(model: Llama, rows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each token of rows [batch, window + 1] after its predecessors in the row."""
    batch, length = rows.shape[0], rows.shape[1] - 1

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (batch, length)).transpose(1, 2) for x in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return x.transpose(1, 2).flatten(0, 1)

    logits = model(rows[:, :-1].flatten(), torch.arange(length).repeat(batch), attend)
    return F.cross_entropy(logits, rows[:, 1:].flatten())


def windows(ids: Tensor) -> Tensor:
    """Consecutive windows [count, WINDOW + 1] of a token stream, one token shared; the rest is left out."""
    return ids.unfold(0, WINDOW + 1, WINDOW)


@torch.no_grad()
def mean_loss(model: Llama, rows: Tensor) -> float:
    return sum(next_token_loss(model, row[None]).item() for row in rows) / len(rows)


def _write_tokenizer(out: Path, text: str):
    """Train the vocabulary on `text`, write it, and read it back as every user of the folder does."""
    atomic_write(out / "config.json", json.dumps(CONFIG, indent=1) + "\n")
    atomic_write(out / "tokenizer.json", json.dumps(bpe.tokenizer_json(*bpe.train(text, CONFIG["vocab_size"]))) + "\n")
    atomic_write(out / "tokenizer_config.json", json.dumps({"eos_token": bpe.END_OF_TEXT}) + "\n")
    from labcore.formats.safetensors_folder import SafetensorsFolder

    # the folder has no weights yet, so it cannot be opened as a checkpoint
    atomic_write(out / "model.safetensors", save({}))
    return tokenizer_from_folder(SafetensorsFolder(out))


def _write_model(out: Path, model: Llama, curve: dict) -> None:
    tensors = {
        f"model.{name}": parameter.detach().half().contiguous()
        for name, parameter in model.named_parameters()
        if name != "lm_head.weight"
    }
    atomic_write(out / "model.safetensors", save(tensors))
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
