"""What lab 2 asks for, solved: a cache that runs a model, its size in any config, and four ways to make it smaller.

`causal_attention`, the first answer, is the library's own (`labcore.kv.contiguous`).
Sources: MLA, DeepSeek-V2 (arXiv:2405.04434, section 2.1); quantization, KIVI (2402.02750, section 3.1); sinks,
StreamingLLM (2309.17453, section 3.2), with positions kept as in a rolling buffer (Mistral 7B, 2310.06825, section 2).
"""

from __future__ import annotations

import torch

from labcore.kv.contiguous import causal_attention
from labcore.learn.labs.lab02_tools import empty_cache


def cached_pass(model, cache, token_ids):
    """Logits [new, vocab] of one pass over int64 token_ids [new], which continue the sequence held by `cache`.

    Their keys and values are added to the cache.
    """
    past, total = cache.length, cache.length + len(token_ids)

    def attend(layer, q, k, v):
        cache.keys[layer, :, past:total] = k.transpose(0, 1)
        cache.values[layer, :, past:total] = v.transpose(0, 1)
        return causal_attention(q, cache.keys[layer, :, :total], cache.values[layer, :, :total])

    logits = model(token_ids, torch.arange(past, total), attend)
    cache.length = total  # once, after the last layer
    return logits


def kv_bytes(config, tokens):
    """Bytes of one sequence of `tokens` tokens in a 16-bit cache; `config` holds the fields of a config.json."""
    n_layers, n_heads = config["num_hidden_layers"], config["num_attention_heads"]
    if config.get("kv_lora_rank"):  # MLA: one latent and one rotary key a token, shared by all heads
        return 2 * n_layers * tokens * (config["kv_lora_rank"] + config["qk_rope_head_dim"])
    head_dim = config.get("head_dim") or config["hidden_size"] // n_heads
    per_token = 2 * (config.get("num_key_value_heads") or n_heads) * head_dim  # elements of a key and a value
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    kinds = config.get("layer_types") or ["sliding_attention"] * n_layers
    kept = sum(min(tokens, window) if window and kind == "sliding_attention" else tokens for kind in kinds)
    return 2 * per_token * kept


def sequences_that_fit(model, context, n_gpu, card_gib, fraction, overhead_gb):
    """Sequences of `context` tokens that `n_gpu` GPUs hold beside a model split evenly over them; 16 bits throughout.

    Each GPU has `card_gib` GiB, of which `fraction` may be used, and loses `overhead_gb` GB to everything else. It
    keeps whole KV heads, at least one.
    """
    room = card_gib * 2**30 * fraction - 2 * model.parameters() / n_gpu - overhead_gb * 10**9
    heads = -(-model.n_kv_heads // n_gpu)
    per_sequence = 2 * model.n_layers * heads * model.head_dim * 2 * context
    return max(0, int(room // per_sequence))


def latent_attention(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    """One decode step of MLA, float [n_heads, d_v], with the up-projections absorbed: no per-head key is ever formed.

    q_nope [n_heads, d_h], q_rope [n_heads, d_R]; cached: latent [tokens, d_c], k_rope [tokens, d_R];
    W_uk [n_heads, d_h, d_c], W_uv [n_heads, d_v, d_c].
    """
    q_latent = torch.einsum("hd,hdc->hc", q_nope, W_uk)  # the query, turned into the latent's coordinates
    scale = (q_nope.shape[1] + q_rope.shape[1]) ** -0.5
    weights = ((q_latent @ latent.T + q_rope @ k_rope.T) * scale).softmax(-1)
    return torch.einsum("hc,hvc->hv", weights @ latent, W_uv)


def quantize(x, bits, axis, group):
    """Codes uint8 [tokens, channels], scales and zeros of x float32 [tokens, channels] in `bits` bits.

    `group` consecutive elements along `axis` (-2: tokens, -1: channels) share a scale and a zero: their smallest
    element has code 0, their largest 2^bits - 1, and x ≈ scale · code + zero. A group of equal elements has scale 0.
    """
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    zero, top = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
    scale = (top - zero) / (2**bits - 1)
    codes = ((groups - zero) / scale).nan_to_num(0.0).round().to(torch.uint8)  # 0/0 in a group of equal elements
    return codes.flatten(axis - 1, axis), scale.squeeze(axis), zero.squeeze(axis)


def broken_stream_logits(model, token_ids, sinks, window):
    """Logits of a model that streams through a cache of sinks + window tokens. It has three errors."""
    cache, rows = empty_cache(model, sinks + window), []
    for seen, token in enumerate(token_ids):
        slot = seen % (sinks + window)  # when the buffer is full, start again at its beginning
        held = min(seen + 1, window)

        def attend(layer, q, k, v, slot=slot, held=held):
            keys, values = cache.keys[layer], cache.values[layer]
            keys[:, slot], values[:, slot] = k[0], v[0]
            return causal_attention(q, keys[:, :held], values[:, :held])

        rows.append(model(token[None], torch.tensor([slot]), attend))
    return torch.cat(rows)


def stream_logits(model, token_ids, sinks, window):
    """Logits [tokens, vocab] of int64 token_ids fed one by one through a cache of sinks + window tokens.

    A token attends to the first `sinks` tokens of the sequence and to the newest `window`, itself among them.
    """
    cache, rows = empty_cache(model, sinks + window), []
    for seen, token in enumerate(token_ids):
        slot = seen if seen < sinks else sinks + (seen - sinks) % window  # the ring lies behind the sinks
        held = min(seen + 1, sinks + window)

        def attend(layer, q, k, v, slot=slot, held=held):
            keys, values = cache.keys[layer], cache.values[layer]
            keys[:, slot], values[:, slot] = k[0], v[0]
            return causal_attention(q, keys[:, :held], values[:, :held])

        rows.append(model(token[None], torch.tensor([seen]), attend))
    return torch.cat(rows)


PLAIN = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 512}
GROUPED = PLAIN | {"num_key_value_heads": 2}
GALLERY = (
    PLAIN,
    GROUPED,
    GROUPED | {"head_dim": 128},
    GROUPED | {"sliding_window": 1000},
    GROUPED | {"sliding_window": 1000, "use_sliding_window": False},
    GROUPED | {"sliding_window": 1000, "layer_types": ["sliding_attention", "full_attention"] * 2},
    PLAIN | {"kv_lora_rank": 96, "qk_rope_head_dim": 32},
)


def refute(calculator):
    """A (config, tokens) on which `calculator` is more than 5 % off, or None if no kind of model refutes it."""
    for config in GALLERY:
        for tokens in (100, 100_000):  # inside every window, and far beyond it
            truth = kv_bytes(config, tokens)
            if abs(calculator(config, tokens) - truth) > 0.05 * truth:
                return config, tokens
    return None
