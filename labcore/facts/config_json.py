"""From a Hugging Face config.json to the fields of ModelConfig.

The traps it is written against: KV heads are not query heads (GQA), a head is not hidden / heads wide (Qwen3, Gemma),
`multi_query` does not mean one KV head in newer Falcons, a window may be switched off, null, or hold for some layers
only, MLA keeps a latent instead of heads, and multimodal configs nest the language model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labcore.core.errors import DataError
from labcore.facts.families import FAMILIES, Family
from labcore.facts.fields import Fields
from labcore.facts.layers import MLA, GatedDeltaNet, LayerAttention, MoE

NESTED = ("text_config", "llm_config", "language_config")
LAYER_TYPES = {"full_attention": "full", "sliding_attention": "sliding", "linear_attention": "linear"}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
TOP_K = ("num_experts_per_tok", "experts_per_token", "top_k_experts")
# Fields that change what is cached in ways this reader does not model: better no number than a wrong one.
REFUSED = {
    "index_topk": "a sparse-attention indexer caches keys of its own",
    "attention_chunk_size": "attention within chunks",
    "attention_other_setting": "layers with other heads",
    "compress_ratios": "a compressed cache",
    "linear_attn_config": "a linear-attention state of its own layout",
    "hybrid_override_pattern": "Mamba layers",
    "layers_block_type": "Mamba or recurrent layers",
    "block_types": "recurrent layers",
    "attn_layer_period": "Mamba layers",
    "attn_layer_indices": "Mamba layers",
    "ssm_cfg": "Mamba layers",
    "state_size": "a state-space model",
    "mamba_d_state": "Mamba layers",
    "attn_type_list": "linear-attention layers",
    "block_configs": "layers of different shapes",
    "sparse_attention_config": "sparse attention with caches of its own",
    "is_encoder_decoder": "an encoder-decoder with cross-attention",
    "cross_attention_layers": "cross-attention layers",
}


def read(config: str | os.PathLike | Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """The fields of ModelConfig from a path or a parsed config. DataError names file and field."""
    content, source = _load(config)
    f, model_type, family = _enter(content, source)
    n_layers = f.integer(*LAYERS)
    for field, why in REFUSED.items():
        if f.values.get(field) and f.values[field] != [1] * n_layers:  # MiniMax writes 1 for an ordinary layer
            raise f.error(f"{field}={_short(f.values[field])} means {why}, which this reader does not model")
    hidden, heads = f.integer(*HIDDEN), f.integer(*HEADS)
    mla, delta_net = _mla(f), _delta_net(f)
    kv_heads = _kv_heads(f, heads, model_type)
    head_dim = mla.nope_dim + mla.rope_dim if mla else _head_dim(f, hidden, heads)
    moe = _moe(f, n_layers)
    sparse_only = moe is not None and moe.dense_layers == 0
    intermediate = moe.moe_intermediate if sparse_only else _intermediate(f, family, hidden)
    return {
        "id": name or f.values.get("_name_or_path") or source,
        "name": name or f.values.get("_name_or_path") or source,
        "model_type": model_type,
        "n_layers": n_layers,
        "hidden": hidden,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": intermediate,
        "vocab": f.integer("vocab_size"),
        "tied_embeddings": f.flag("tie_word_embeddings"),
        "layers": _layers(f, family, n_layers, _kv_elements(f, kv_heads, head_dim), mla, delta_net),
        "context": f.integer(*CONTEXT, default=None),
        "moe": moe,
        "mla": mla,
        "delta_net": delta_net,
        "weights": family.weights(f),
        "source": source,
    }


def _load(config: str | os.PathLike | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The parsed JSON object, and what to call it in messages."""
    if isinstance(config, Mapping):
        return config, "config"
    path = Path(config)
    path = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a config.json or its folder") from None
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not the object of a config.json")
    return content, str(path)


def _enter(content: Mapping[str, Any], source: str) -> tuple[Fields, str, Family]:
    """The language model's own fields: of the nested config where there is one, tied embeddings from either."""
    nested = next((key for key in NESTED if isinstance(content.get(key), Mapping)), None)
    values = dict(content)
    if nested:
        outer = {key: content[key] for key in ("tie_word_embeddings",) if key in content}
        values, source = outer | dict(content[nested]), f"{source}, {nested}"
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise DataError(f"{source}: model_type is missing; it decides how the other fields are meant")
    if any("MaskedLM" in str(kind) for kind in content.get("architectures") or ()):
        raise DataError(f"{source}: architectures={content['architectures']} is an encoder; it keeps no KV cache")
    family = FAMILIES.get(model_type) or Family(layer_rule=_unknown_rule)
    return Fields(values, family.defaults, source), model_type, family


def _unknown_rule(f: Fields, n_layers: int) -> list[str]:
    """Without layer_types, a window in a model_type we do not know could hold for any of the layers."""
    if f.get("sliding_window", default=None) is not None and f.get("use_sliding_window", default=True):
        raise f.error(
            f"sliding_window={f.values['sliding_window']} is set, but layer_types is missing and model_type "
            f"{f.values['model_type']!r} is not known, so which layers slide cannot be told"
        )
    return ["full"] * n_layers


def _kv_heads(f: Fields, heads: int, model_type: str) -> int:
    if model_type in ("falcon", "RefinedWebModel") and not f.flag("new_decoder_architecture"):
        return 1 if f.flag("multi_query", True) else heads
    if model_type == "gpt_bigcode":
        return 1 if f.flag("multi_query", True) else heads
    if model_type in FAMILIES:
        kv_heads = f.integer(*KV_HEADS, default=heads)
    else:  # heads that an unknown architecture might share must be named
        kv_heads = f.integer(*KV_HEADS)
    if kv_heads > heads or heads % kv_heads:
        raise f.error(f"{KV_HEADS[0]}={kv_heads} does not divide num_attention_heads={heads}")
    return kv_heads


def _head_dim(f: Fields, hidden: int, heads: int) -> int:
    explicit = f.integer("head_dim", "kv_channels", default=None)
    if explicit is None and hidden % heads:
        raise f.error(f"head_dim is missing, and hidden_size={hidden} is not a multiple of num_attention_heads={heads}")
    return explicit or hidden // heads


def _kv_elements(f: Fields, kv_heads: int, head_dim: int) -> dict[str, int]:
    """Elements per token of a full and of a sliding layer. Gemma 4's full layers have heads of their own, and where
    `attention_k_eq_v` says so a number of their own too; MiMo's values are narrower than its keys."""
    elements = kv_heads * (head_dim + f.integer("v_head_dim", default=head_dim))
    wide = f.integer("global_head_dim", default=None)
    if wide is None:
        return {"full": elements, "sliding": elements}
    own = f.integer("num_global_key_value_heads", default=kv_heads) if f.flag("attention_k_eq_v") else kv_heads
    return {"full": 2 * own * wide, "sliding": elements}


def _intermediate(f: Fields, family: Family, hidden: int) -> int:
    if family.mlp_factor is None:
        return f.integer(*INTERMEDIATE)
    return f.integer(*INTERMEDIATE, default=family.mlp_factor * hidden)


def _mla(f: Fields) -> MLA | None:
    rank = f.integer("kv_lora_rank", default=None)
    if rank is None:
        return None
    nope, rope = f.integer("qk_nope_head_dim"), f.integer("qk_rope_head_dim")
    return MLA(rank, rope, f.integer("q_lora_rank", default=None), nope, f.integer("v_head_dim"))


def _delta_net(f: Fields) -> GatedDeltaNet | None:
    if f.get("linear_num_value_heads", default=None) is None:
        return None
    heads = f.integer("linear_num_key_heads"), f.integer("linear_num_value_heads")
    widths = f.integer("linear_key_head_dim"), f.integer("linear_value_head_dim")
    return GatedDeltaNet(*heads, *widths, f.integer("linear_conv_kernel_dim"))


def _moe(f: Fields, n_layers: int) -> MoE | None:
    experts = f.integer(*EXPERTS, default=0, low=0)
    if not experts:
        return None
    top_k = f.integer(*TOP_K)
    if top_k > experts:
        raise f.error(f"{TOP_K[0]}={top_k} is more than the {experts} experts there are")
    width = f.integer("moe_intermediate_size", default=None) or f.integer(*INTERMEDIATE)
    n_shared = f.integer("n_shared_experts", "num_shared_experts", default=0, low=0)
    shared = f.integer("shared_expert_intermediate_size", default=n_shared * width, low=0)
    return MoE(experts, top_k, width, n_shared or int(shared > 0), shared, _dense_layers(f, n_layers))


def _dense_layers(f: Fields, n_layers: int) -> int:
    """Layers without experts: DeepSeek names the first ones and a frequency, Qwen a list and a step."""
    first, every = f.integer("first_k_dense_replace", default=0, low=0), f.integer("moe_layer_freq", default=1)
    listed, step = f.get("mlp_only_layers", default=()), f.integer("decoder_sparse_step", default=1)
    sparse = [i for i in range(n_layers) if i >= first and i % every == 0 and i not in listed and (i + 1) % step == 0]
    return n_layers - len(sparse)


def _layers(
    f: Fields, family: Family, n: int, elements: dict[str, int], mla: MLA | None, delta_net: GatedDeltaNet | None
) -> tuple[LayerAttention, ...]:
    kinds = _kinds(f, family, n)
    if mla:
        if set(kinds) != {"full"}:
            raise f.error(f"kv_lora_rank is set, but not every layer is full attention ({_short(kinds)})")
        return (LayerAttention("mla", mla.kv_rank + mla.rope_dim),) * n
    window = f.integer("sliding_window", default=None) if "sliding" in kinds else None
    if "sliding" in kinds and window is None:
        raise f.error("layers use sliding attention, but sliding_window is missing or null")
    parts = {kind: LayerAttention(kind, elements[kind]) for kind in ("full", "sliding")}
    parts["sliding"] = replace(parts["sliding"], window=window)
    if "linear" in kinds:
        if delta_net is None:
            raise f.error("layer_types has linear_attention, but linear_num_value_heads is missing: unknown state size")
        recurrent = delta_net.value_heads * delta_net.key_dim * delta_net.value_dim
        conv = delta_net.channels * (delta_net.conv_kernel - 1)
        parts["linear"] = LayerAttention("linear", recurrent_elements=recurrent, conv_elements=conv)
    owners = n - f.integer("num_kv_shared_layers", default=0, low=0)  # the last layers read the cache of earlier ones
    return tuple(parts[kind] if i < owners else replace(parts[kind], kv_elements=0) for i, kind in enumerate(kinds))


def _kinds(f: Fields, family: Family, n: int) -> list[str]:
    """full, sliding or linear for each layer: as listed, else by the family's rule."""
    listed = f.get("layer_types", default=None)
    if listed is None:
        return family.layer_rule(f, n)
    if len(listed) != n:
        raise f.error(f"layer_types lists {len(listed)} layers, but num_hidden_layers={n}")
    unknown = sorted({str(kind) for kind in listed} - LAYER_TYPES.keys())
    if unknown:
        raise f.error(f"layer_types has {unknown[0]!r}, which this reader does not model")
    kinds = [LAYER_TYPES[kind] for kind in listed]
    if "sliding" in kinds and f.given("use_sliding_window") == ("use_sliding_window", False):
        raise f.error("layer_types has sliding_attention, but use_sliding_window is false")
    return kinds


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
