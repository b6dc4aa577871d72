"""`labcore bench kv_dequant`: what reading a quantized cache costs when nothing fuses it with the attention.

One decode step of one layer in SmolLM2's shape: the store writes the numbers behind its codes to memory, then attention
reads them. Beside it the same attention over an fp32 cache, which has several times the bytes and no such detour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.kv.contiguous import causal_attention
from labcore.kv.quantized import FP8, INT4, INT8, KVFormat, QuantizedKVCache, kivi
from labcore.kv.quantized_store import CHANNEL, Scheme

HEADS, KV_HEADS, HEAD_DIM, TOKENS = 9, 3, 64, 16_384
FORMATS: dict[str, KVFormat] = {"int8": INT8, "fp8": FP8, "int4": INT4, "kivi2": kivi(2)}


def filled(format: KVFormat, keys: Tensor, values: Tensor) -> QuantizedKVCache:
    """A cache of one layer that holds keys and values [KV_HEADS, tokens, HEAD_DIM]."""
    cache = QuantizedKVCache(1, KV_HEADS, HEAD_DIM, format=format, slots=1, capacity=keys.shape[1])
    cache.keys.append(0, 0, keys)
    cache.values.append(0, 0, values)
    return cache


def rounded(scheme: Scheme, x: Tensor) -> Tensor:
    """x as the scheme's format rounds it where `scheme` keeps codes, without packing or storing anything."""
    axis, group = (-2, scheme.group) if scheme.axis == CHANNEL else (-1, scheme.group or HEAD_DIM)
    coded = scheme.leaving(x.shape[1])
    past = scheme.format.dequantize(*scheme.format.quantize(x[:, :coded], axis, group), axis=axis, group=group)
    return torch.cat((past, x[:, coded:]), dim=1)


@torch.inference_mode()
def suite(run: RunBuilder) -> None:
    """Rows `cpu.kv_dequant.*`: dequantize and attend, against attention over fp32 keys and values."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, HEADS, HEAD_DIM, generator=generator)
    keys, values = (torch.randn(KV_HEADS, TOKENS, HEAD_DIM, generator=generator) for _ in range(2))
    for name, format in FORMATS.items():
        cache = filled(format, keys, values)

        def ours(cache=cache) -> Tensor:
            return causal_attention(q, cache.keys.read(0, 0), cache.values.read(0, 0))

        expected = causal_attention(q, rounded(format.keys, keys), rounded(format.values, values))
        error = (ours() - expected).abs().max().item()
        took = alternate({"ours": ours, "fp32": lambda: causal_attention(q, keys, values)}, rounds=7, per_round=1)
        run.add(
            Row(
                key=f"cpu.kv_dequant.{name}",
                what=f"dequantize, then attend to {TOKENS:,} tokens",
                ours=took["ours"],
                baseline=took["fp32"],
                baseline_name="attention over an fp32 cache",
                unit="s",
                kind="overhead",
                correct={
                    "pass": error < 1e-5,
                    "error": error,
                    "bar": "1e-5 from attention over the same rounded numbers",
                },
                dtype="fp32",
                threads=run.threads,
                bytes=float(cache.nbytes),
                shape={"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "tokens": TOKENS},
                config={"fp32_bytes": keys.nbytes + values.nbytes},
            )
        )
