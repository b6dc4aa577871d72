"""What a config.json leaves unsaid, per model_type: class defaults, where windows apply, which weights exist.

Defaults are those of the configuration classes in transformers (tested against the installed version). A model_type
that is not in FAMILIES still gets its cache arithmetic, as long as its fields say everything; only counting its
parameters is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labcore.facts.fields import Fields
from labcore.facts.layers import Weights

# A rule gives the window-or-not of each layer: "full" or "sliding", or "linear".
LayerRule = Callable[[Fields, int], list[str]]


def all_full(f: Fields, n: int) -> list[str]:
    """Every layer sees everything, whatever `sliding_window` says: these classes never read it."""
    return ["full"] * n


def all_sliding(f: Fields, n: int) -> list[str]:
    """Mistral, Mixtral, Phi-3, StarCoder2: a window that is not null holds for every layer."""
    return ["sliding" if f.get("sliding_window", default=None) is not None else "full"] * n


def upper_layers_slide(f: Fields, n: int) -> list[str]:
    """Qwen2, Qwen3: a window counts only with `use_sliding_window`, and only from layer `max_window_layers` up."""
    if not f.flag("use_sliding_window"):
        return all_full(f, n)
    first = f.integer("max_window_layers", low=0)
    return ["sliding" if i >= first else "full" for i in range(n)]


def all_slide_if_used(f: Fields, n: int) -> list[str]:
    """Qwen3-MoE: `use_sliding_window` switches the window on for every layer."""
    return ["sliding" if f.flag("use_sliding_window") else "full"] * n


def every_nth_full(period: int) -> LayerRule:
    """Gemma 2 (2), Gemma 3 (6), Cohere2 (4): each n-th layer is full, the others slide."""

    def rule(f: Fields, n: int) -> list[str]:
        every = f.integer("sliding_window_pattern", "_sliding_window_pattern", default=period)
        return ["sliding" if (i + 1) % every else "full" for i in range(n)]

    return rule


def every_other_slides(f: Fields, n: int) -> list[str]:
    """gpt-oss: layers 0, 2, 4 … slide."""
    return ["full" if i % 2 else "sliding" for i in range(n)]


def every_nth_attends(f: Fields, n: int) -> list[str]:
    """Qwen3-Next, Qwen3.5: each `full_attention_interval`-th layer attends, the others are linear."""
    every = f.integer("full_attention_interval")
    return ["linear" if (i + 1) % every else "full" for i in range(n)]


@dataclass(frozen=True)
class Family:
    """One model_type. weights: gives None where parameters cannot be counted from the config alone; mlp_factor: width
    of the MLP in units of `hidden` where the config leaves it out."""

    weights: Callable[[Fields], Weights | None] = lambda f: None
    layer_rule: LayerRule = all_full
    defaults: Mapping[str, Any] = field(default_factory=dict)
    mlp_factor: int | None = None


def _llama(f: Fields) -> Weights:
    bias = f.flag("attention_bias")
    return Weights(qkv_bias=bias, output_bias=bias, mlp_bias=f.flag("mlp_bias"))


def _qwen3(f: Fields) -> Weights:
    bias = f.flag("attention_bias")
    return Weights(qkv_bias=bias, output_bias=bias, qk_norm=True)


def _gemma(norms: int, qk_norm: bool = False) -> Callable[[Fields], Weights]:
    def weights(f: Fields) -> Weights:
        bias = f.flag("attention_bias")
        return Weights(norms_per_layer=norms, qkv_bias=bias, output_bias=bias, qk_norm=qk_norm)

    return weights


def _falcon(f: Fields) -> Weights:
    """Attention and MLP read one LayerNorm side by side (7B), or one each (`new_decoder_architecture`)."""
    new, bias = f.flag("new_decoder_architecture") or f.values["model_type"] == "RefinedWeb", f.flag("bias")
    norms = f.integer("num_ln_in_parallel_attn", default=2) if new else 1 if f.flag("parallel_attn", True) else 2
    shared = {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
    return Weights(gated_mlp=False, norm_vectors=2, norms_per_layer=norms, **shared)


def _gpt2(f: Fields) -> Weights | None:
    if f.flag("add_cross_attention"):
        return None
    positions = f.integer("n_positions", "max_position_embeddings")
    biases = {"qkv_bias": True, "output_bias": True, "mlp_bias": True}
    return Weights(gated_mlp=False, norm_vectors=2, positions=positions, **biases)


def _opt(f: Fields) -> Weights | None:
    """OPT-350M alone narrows its embeddings and drops the last norm: not counted."""
    narrow = f.integer("word_embed_proj_dim", default=0) != f.integer("hidden_size")
    if narrow or not f.flag("do_layer_norm_before", True):
        return None
    bias = f.flag("enable_bias", True)
    positions = f.integer("max_position_embeddings") + 2  # the first two rows are never used
    shared = {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
    return Weights(gated_mlp=False, norm_vectors=2, positions=positions, **shared)


def _gpt_oss(f: Fields) -> Weights:
    bias = f.flag("attention_bias")
    return Weights(qkv_bias=bias, output_bias=bias, mlp_bias=True, sinks=True, router_bias=True)


def _qwen_hybrid(f: Fields) -> Weights:
    bias = f.flag("attention_bias")
    return Weights(qkv_bias=bias, output_bias=bias, qk_norm=True, attention_gate=True, shared_gate=True)


def _deepseek(f: Fields) -> Weights:
    """The router's score-correction bias is a weight of the checkpoint (a buffer in transformers)."""
    bias = f.flag("attention_bias")
    return Weights(qkv_bias=bias, output_bias=bias, router_bias=f.get("topk_method", default=None) == "noaux_tc")


def _plain(f: Fields) -> Weights:
    return Weights()


def _kv(heads: int) -> dict[str, int]:
    return {"num_key_value_heads": heads}


_TIED = {"tie_word_embeddings": True}
_GEMMA = _TIED | {"head_dim": 256}
_GEMMA3 = _GEMMA | _kv(4) | {"vocab_size": 262_208, "sliding_window": 4096, "num_attention_heads": 8}
_GEMMA3 |= {"max_position_embeddings": 131_072}
_GEMMA4 = _GEMMA | _kv(4) | {"global_head_dim": 512, "sliding_window": 512}
_QWEN = _kv(32) | {"max_window_layers": 28}
_DELTA_NET = {"linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
_DELTA_NET |= {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "full_attention_interval": 4, "head_dim": 256}

FAMILIES: dict[str, Family] = {
    "llama": Family(_llama),
    "mistral": Family(_plain, all_sliding, _kv(8) | {"sliding_window": 4096}),
    "mixtral": Family(_plain, all_sliding, _kv(8)),
    "qwen2": Family(lambda f: Weights(qkv_bias=True), upper_layers_slide, _QWEN),
    "qwen3": Family(_qwen3, upper_layers_slide, _QWEN | {"head_dim": 128}),
    "qwen3_moe": Family(_qwen3, all_slide_if_used, _kv(4)),
    "qwen3_next": Family(_qwen_hybrid, every_nth_attends, _DELTA_NET | _kv(2)),
    "qwen3_5_text": Family(_qwen_hybrid, every_nth_attends, _DELTA_NET | _kv(4)),
    "qwen3_5_moe_text": Family(_qwen_hybrid, every_nth_attends, _DELTA_NET | _kv(2)),
    "phi3": Family(_plain, all_sliding),
    "gemma": Family(_gemma(2), all_full, _GEMMA | _kv(16)),
    "gemma2": Family(_gemma(4), every_nth_full(2), _GEMMA | _kv(4) | {"sliding_window": 4096}),
    "gemma3_text": Family(_gemma(4, qk_norm=True), every_nth_full(6), _GEMMA3),
    "cohere2": Family(layer_rule=every_nth_full(4), defaults=_TIED),
    "falcon": Family(_falcon, all_full, _TIED, mlp_factor=4),
    "gpt2": Family(_gpt2, all_full, _TIED, mlp_factor=4),
    "opt": Family(_opt, all_full, _TIED),
    "deepseek_v2": Family(_deepseek),
    "deepseek_v3": Family(_deepseek),
    "kimi_k2": Family(_deepseek),
    "gpt_oss": Family(_gpt_oss, every_other_slides, _kv(8) | {"head_dim": 64, "sliding_window": 128}),
    "qwen3_vl_text": Family(_qwen3, all_full, _kv(32) | {"head_dim": 128}),
    "qwen3_vl_moe_text": Family(_qwen3, all_full, _kv(16)),
    # cache only
    "gemma4_text": Family(layer_rule=every_nth_full(6), defaults=_GEMMA4),
    "bloom": Family(mlp_factor=4),
    "gpt_neox": Family(),
    "gptj": Family(mlp_factor=4),
    "gpt_bigcode": Family(mlp_factor=4),
}
FAMILIES["RefinedWeb"] = FAMILIES["RefinedWebModel"] = FAMILIES["falcon"]  # Falcon's first names
