"""Wrong answers to the KV-cache lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from labcore.kv.contiguous import causal_attention
from labcore.learn.labs.lab02_references import kv_bytes as right_bytes
from labcore.learn.labs.lab02_references import latent_attention as right_latent_attention
from labcore.learn.labs.lab02_references import quantize as right_quantize
from labcore.learn.labs.lab02_tools import empty_cache, full_pass, window_mask
from tests.mutants.registry import mutant

GIB, GB = 2**30, 10**9


def _attention(q, keys, values, *, scale=None, diagonal=None, repeat="interleave", axis=-1):
    group = q.shape[1] // keys.shape[0]
    if repeat == "interleave":
        keys, values = (x.repeat_interleave(group, 0) for x in (keys, values))
    else:
        keys, values = (x.repeat(group, 1, 1) for x in (keys, values))
    scores = torch.einsum("nhd,htd->hnt", q, keys) * (q.shape[2] ** -0.5 if scale is None else scale)
    diagonal = keys.shape[1] - q.shape[0] if diagonal is None else diagonal
    seen = torch.ones(q.shape[0], keys.shape[1], dtype=torch.bool).tril(diagonal)
    return torch.einsum("hnt,htd->nhd", scores.masked_fill(~seen, -1e30).softmax(axis), values)


@mutant("kv.attention", says="the mask is aligned with the first key")
def trusts_is_causal(q, keys, values):
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], is_causal=q.shape[0] > 1, enable_gqa=True
    )
    return out[0].transpose(0, 1)


@mutant("kv.attention", says="a query must not see keys behind its own")
def no_mask(q, keys, values):
    out = F.scaled_dot_product_attention(q.transpose(0, 1)[None], keys[None], values[None], enable_gqa=True)
    return out[0].transpose(0, 1)


@mutant("kv.attention", says="repeating the heads as a block pairs the wrong ones")
def repeats_the_block(q, keys, values):
    return _attention(q, keys, values, repeat="block")


@mutant("kv.attention", says="scores are divided by √head_dim")
def no_scale(q, keys, values):
    return _attention(q, keys, values, scale=1.0)


@mutant("kv.attention", says="√head_dim divides, not head_dim")
def divides_by_head_dim(q, keys, values):
    return _attention(q, keys, values, scale=1 / q.shape[2])


@mutant("kv.attention", says="a token sees its own key as well")
def forgets_its_own_key(q, keys, values):
    return _attention(q, keys, values, diagonal=keys.shape[1] - q.shape[0] - 1)


@mutant("kv.attention", says="so the first value weighs e/(e + 1)")
def no_softmax(q, keys, values):
    group = q.shape[1] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, 0) for x in (keys, values))
    scores = (torch.einsum("nhd,htd->hnt", q, keys) * q.shape[2] ** -0.5).tril(keys.shape[1] - q.shape[0]) + 1
    return torch.einsum("hnt,htd->nhd", scores / scores.sum(-1, keepdim=True), values)


@mutant("kv.attention", says="look for 0/0 or inf - inf")
def softmax_by_hand(q, keys, values):
    group = q.shape[1] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, 0) for x in (keys, values))
    weights = (torch.einsum("nhd,htd->hnt", q, keys) * q.shape[2] ** -0.5).exp().tril(keys.shape[1] - q.shape[0])
    return torch.einsum("hnt,htd->nhd", weights / weights.sum(-1, keepdim=True), values)


@mutant("kv.attention", says="returned shape (4, 1, 4), expected (1, 4, 4)")
def heads_first(q, keys, values):
    return causal_attention(q, keys, values).transpose(0, 1)


def _pass(model, cache, token_ids, *, positions=None, store=None, read=None, length=None):
    """A cached pass with one part replaced."""
    past, new = cache.length, len(token_ids)
    total = past + new

    def attend(layer, q, k, v):
        if store is None:
            cache.keys[layer, :, past:total] = k.transpose(0, 1)
            cache.values[layer, :, past:total] = v.transpose(0, 1)
        else:
            store(layer, k, v, past, total)
        lo, hi = (0, total) if read is None else read(past, total)
        return causal_attention(q, cache.keys[layer, :, lo:hi], cache.values[layer, :, lo:hi])

    logits = model(token_ids, torch.arange(past, total) if positions is None else positions(past, total), attend)
    cache.length = total if length is None else length(past, total)
    return logits


@mutant("kv.cached_pass", says="gave the new tokens the positions [0], expected [5]")
def positions_restart(model, cache, token_ids):
    return _pass(model, cache, token_ids, positions=lambda past, total: torch.arange(total - past))


@mutant("kv.cached_pass", says="gave the new tokens the positions [1], expected [0]")
def positions_count_from_one(model, cache, token_ids):
    return _pass(model, cache, token_ids, positions=lambda past, total: torch.arange(past, total) + 1)


@mutant("kv.cached_pass", says="left cache.length at 2, expected 1")
def grows_in_every_layer(model, cache, token_ids):
    grown = cache.length + len(token_ids) * model.config.n_layers
    return _pass(model, cache, token_ids, length=lambda past, total: grown)


@mutant("kv.cached_pass", says="left cache.length at 0, expected 1")
def never_grows(model, cache, token_ids):
    return _pass(model, cache, token_ids, length=lambda past, total: past)


@mutant("kv.cached_pass", says="not to the unused room behind")
def reads_the_whole_buffer(model, cache, token_ids):
    def attend(layer, q, k, v):
        past, total = cache.length, cache.length + len(token_ids)
        cache.keys[layer, :, past:total], cache.values[layer, :, past:total] = k.transpose(0, 1), v.transpose(0, 1)
        return F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], cache.keys[layer][None], cache.values[layer][None], enable_gqa=True
        )[0].transpose(0, 1)

    logits = model(token_ids, torch.arange(cache.length, cache.length + len(token_ids)), attend)
    cache.length += len(token_ids)
    return logits


@mutant("kv.cached_pass", says="a layer's buffer [n_kv_heads, tokens, head_dim]")
def reshapes_instead_of_transposing(model, cache, token_ids):
    def store(layer, k, v, past, total):
        shape = k.shape[1], k.shape[0], k.shape[2]
        cache.keys[layer, :, past:total], cache.values[layer, :, past:total] = k.reshape(shape), v.reshape(shape)

    return _pass(model, cache, token_ids, store=store)


@mutant("kv.cached_pass", says="a layer reads the keys and values that it stored itself")
def one_buffer_for_all_layers(model, cache, token_ids):
    past, total = cache.length, cache.length + len(token_ids)

    def attend(layer, q, k, v):
        cache.keys[0, :, past:total], cache.values[0, :, past:total] = k.transpose(0, 1), v.transpose(0, 1)
        return causal_attention(q, cache.keys[0, :, :total], cache.values[0, :, :total])

    logits = model(token_ids, torch.arange(past, total), attend)
    cache.length = total
    return logits


@mutant("kv.cached_pass", says="one pass over the 5 new tokens is enough")
def token_by_token(model, cache, token_ids):
    return torch.cat([_pass(model, cache, one[None]) for one in token_ids])


@mutant("kv.cached_pass", says="after cache.length was set back")
def keeps_the_longest(model, cache, token_ids):
    past, total = cache.length, cache.length + len(token_ids)
    longest = max(total, getattr(cache, "longest", 0))
    cache.longest = longest

    def attend(layer, q, k, v):
        cache.keys[layer, :, past:total], cache.values[layer, :, past:total] = k.transpose(0, 1), v.transpose(0, 1)
        if longest == total:
            return causal_attention(q, cache.keys[layer, :, :total], cache.values[layer, :, :total])
        keys, values = (x[layer, :, :longest] for x in (cache.keys, cache.values))
        seen = torch.ones(len(q), longest, dtype=torch.bool).tril(past)
        seen[:, total:] = True
        q = q.transpose(0, 1)[None]
        return F.scaled_dot_product_attention(q, keys[None], values[None], seen, enable_gqa=True)[0].transpose(0, 1)

    logits = model(token_ids, torch.arange(past, total), attend)
    cache.length = total
    return logits


@mutant("kv.config_bytes", says="a KV head is counted, not a query head")
def query_heads(config, tokens):
    return right_bytes({**config, "num_key_value_heads": None}, tokens)


@mutant("kv.config_bytes", says="a key and a value are kept, of 2 bytes an element")
def keys_alone(config, tokens):
    return right_bytes(config, tokens) // 2


@mutant("kv.config_bytes", says="head_dim, where it is given, is the width of a head")
def divides_hidden_size(config, tokens):
    return right_bytes({**config, "head_dim": None}, tokens)


@mutant("kv.config_bytes", says="in your line")
def needs_kv_heads(config, tokens):
    heads = config["num_key_value_heads"]
    return 4 * config["num_hidden_layers"] * heads * config["hidden_size"] // config["num_attention_heads"] * tokens


@mutant("kv.config_bytes", says="with MLA the latent is kept instead of keys and values")
def expands_the_latent(config, tokens):
    return right_bytes({**config, "kv_lora_rank": None}, tokens)


@mutant("kv.config_bytes", says="one latent serves as key and as value")
def two_latents(config, tokens):
    return right_bytes(config, tokens) * (2 if config.get("kv_lora_rank") else 1)


@mutant("kv.config_bytes", says="MLA: kv_lora_rank + qk_rope_head_dim elements a layer")
def forgets_the_rotary_key(config, tokens):
    return right_bytes({**config, "qk_rope_head_dim": 0}, tokens)


@mutant("kv.config_bytes", says="a window caps what its layers keep")
def ignores_windows(config, tokens):
    return right_bytes({**config, "sliding_window": None, "layer_types": None}, tokens)


@mutant("kv.config_bytes", says="a window caps the tokens, it is not their number")
def always_a_whole_window(config, tokens):
    return right_bytes(config, config.get("sliding_window") or tokens)


@mutant("kv.config_bytes", says="layer_types says which layers slide")
def every_layer_slides(config, tokens):
    return right_bytes({**config, "layer_types": None}, tokens)


@mutant("kv.config_bytes", says="use_sliding_window is false: the window is switched off")
def believes_every_window(config, tokens):
    return right_bytes({**config, "use_sliding_window": True}, tokens)


@mutant("kv.config_bytes", says="a field that is null counts as absent")
def asks_whether_the_field_is_there(config, tokens):
    if "kv_lora_rank" in config:
        width = (config["kv_lora_rank"] or 0) + config.get("qk_rope_head_dim", 0)
        return 2 * config["num_hidden_layers"] * width * tokens
    return right_bytes(config, tokens)


@mutant("kv.config_bytes", says="two layers keep 10 tokens, one keeps 4")
def every_second_layer_slides(config, tokens):
    kinds = config.get("layer_types") and ["sliding_attention", "full_attention"] * config["num_hidden_layers"]
    return right_bytes({**config, "layer_types": kinds and kinds[: config["num_hidden_layers"]]}, tokens)


@mutant("kv.config_bytes", says="a count is an integer")
def true_division(config, tokens):
    return right_bytes(config, tokens) / 1


def _fit(model, context, n_gpu, card, usable, overhead, weights=None, heads=None):
    weights = 2 * model.parameters() / n_gpu if weights is None else weights
    heads = -(-model.n_kv_heads // n_gpu) if heads is None else heads
    return max(0, int((card * usable - weights - overhead) // (4 * model.n_layers * heads * model.head_dim * context)))


@mutant("kv.fit", says="the card is in GiB")
def decimal_card(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GB, fraction, overhead_gb * GB)


@mutant("kv.fit", says="overhead_gb is in GB, 10**9 bytes each")
def binary_overhead(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GIB)


@mutant("kv.fit", says="the weights are split over the GPUs")
def every_gpu_holds_all_weights(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, weights=2 * model.parameters())


@mutant("kv.fit", says="a GPU holds its share of the KV heads")
def every_gpu_holds_all_heads(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=model.n_kv_heads)


@mutant("kv.fit", says="KV heads are cached, not query heads")
def caches_query_heads(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=-(-model.n_heads // n_gpu))


@mutant("kv.fit", says="the GPU with 3 of them decides")
def a_whole_number_of_heads_at_most(model, context, n_gpu, card_gib, fraction, overhead_gb):
    heads = max(1, model.n_kv_heads // n_gpu)
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=heads)


@mutant("kv.fit", says="only `fraction` of the card may be used")
def fills_the_card(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, 1, overhead_gb * GB)


@mutant("kv.fit", says="a GPU keeps whole heads, at least one")
def splits_heads(model, context, n_gpu, card_gib, fraction, overhead_gb):
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=model.n_kv_heads / n_gpu)


@mutant("kv.fit", says="the weights alone do not fit: 0")
def fits_a_negative_number(model, context, n_gpu, card_gib, fraction, overhead_gb):
    room = card_gib * GIB * fraction - 2 * model.parameters() / n_gpu - overhead_gb * GB
    return int(room // (4 * model.n_layers * -(-model.n_kv_heads // n_gpu) * model.head_dim * context))


@mutant("kv.fit", says="a sequence that fits in part does not fit")
def rounds(model, context, n_gpu, card_gib, fraction, overhead_gb):
    room = card_gib * GIB * fraction - 2 * model.parameters() / n_gpu - overhead_gb * GB
    heads = -(-model.n_kv_heads // n_gpu)
    return max(0, -int(-room // (4 * model.n_layers * heads * model.head_dim * context)))


def _expanded(q_nope, q_rope, latent, k_rope, W_uk, W_uv, scale=None):
    keys, values = torch.einsum("hdc,tc->htd", W_uk, latent), torch.einsum("hvc,tc->htv", W_uv, latent)
    keys = torch.cat((keys, k_rope.expand(len(keys), -1, -1)), -1)
    q = torch.cat((q_nope, q_rope), -1)
    scores = torch.einsum("hd,htd->ht", q, keys) * (q.shape[1] ** -0.5 if scale is None else scale)
    return torch.einsum("ht,htv->hv", scores.softmax(-1), values)


@mutant("kv.absorb", says="those are keys or values of every token")
def expands_every_token(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return _expanded(q_nope, q_rope, latent, k_rope, W_uk, W_uv)


@mutant("kv.absorb", says="formed 266,256 numbers over 500 tokens")
def expands_inside_one_einsum(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    scores = torch.einsum("hdc,tc,hd->ht", W_uk, latent, q_nope) + q_rope @ k_rope.T
    weights = (scores / (q_nope.shape[1] + q_rope.shape[1]) ** 0.5).softmax(-1)
    return torch.einsum("hvc,tc,ht->hv", W_uv, latent, weights)


@mutant("kv.absorb", says="not √(d_c + d_R)")
def scales_by_the_latent(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return _expanded(q_nope, q_rope, latent, k_rope, W_uk, W_uv, (latent.shape[1] + q_rope.shape[1]) ** -0.5)


@mutant("kv.absorb", says="the rotary part is in the scale as well")
def scales_by_the_head_alone(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return _expanded(q_nope, q_rope, latent, k_rope, W_uk, W_uv, q_nope.shape[1] ** -0.5)


@mutant("kv.absorb", says="scores are divided by √(d_h + d_R)")
def no_latent_scale(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return _expanded(q_nope, q_rope, latent, k_rope, W_uk, W_uv, 1.0)


@mutant("kv.absorb", says="the rotary part of the scores is missing")
def forgets_rope(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return right_latent_attention(q_nope, 0 * q_rope, latent, k_rope, W_uk, W_uv)


@mutant("kv.absorb", says="compare term by term with the expanded form")
def two_softmaxes(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    scale = (q_nope.shape[1] + q_rope.shape[1]) ** -0.5
    q_latent = torch.einsum("hd,hdc->hc", q_nope, W_uk)
    weights = ((q_latent @ latent.T) * scale).softmax(-1) + ((q_rope @ k_rope.T) * scale).softmax(-1)
    return torch.einsum("hc,hvc->hv", weights / 2 @ latent, W_uv)


@mutant("kv.absorb", says="returned shape (1, 1, 1), expected (1, 1)")
def keeps_a_query_axis(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    return right_latent_attention(q_nope, q_rope, latent, k_rope, W_uk, W_uv)[:, None]


def _quantize(x, bits, axis, group, levels=None, rounding=torch.round):
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    zero = groups.amin(axis, keepdim=True)
    scale = (groups.amax(axis, keepdim=True) - zero) / (levels or 2**bits - 1)
    codes = rounding(((groups - zero) / scale).nan_to_num(0.0)).to(torch.uint8)
    return codes.flatten(axis - 1, axis), scale.squeeze(axis), zero.squeeze(axis)


@mutant("kv.quantize", says="2^bits codes span 2^bits − 1 steps")
def one_level_too_many(x, bits, axis, group):
    return _quantize(x, bits, axis, group, levels=2**bits)


@mutant("kv.quantize", says="take the nearest code, do not cut off")
def truncates(x, bits, axis, group):
    return _quantize(x, bits, axis, group, rounding=torch.trunc)


@mutant("kv.quantize", says="returned shape")
def the_other_axis(x, bits, axis, group):
    return right_quantize(x, bits, -3 - axis, group if x.shape[-3 - axis] % group == 0 else x.shape[-3 - axis])


@mutant("kv.quantize", says="the grid runs from the group's minimum to its maximum, not around 0")
def around_zero(x, bits, axis, group):
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    scale = groups.abs().amax(axis, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = ((groups / scale).nan_to_num(0.0).round() + 2 ** (bits - 1)).to(torch.uint8)
    return codes.flatten(axis - 1, axis), scale.squeeze(axis), (-scale * 2 ** (bits - 1)).squeeze(axis)


@mutant("kv.quantize", says="nan among")
def divides_by_no_spread(x, bits, axis, group):
    codes, scale, zero = right_quantize(x, bits, axis, group)
    return codes, scale + torch.where(scale == 0, torch.nan, 0.0), zero


@mutant("kv.quantize", says="the scale is 0, and 0/0 must not get out")
def pads_the_spread(x, bits, axis, group):
    codes, scale, zero = right_quantize(x, bits, axis, group)
    return codes, scale.clamp(min=1e-3), zero


@mutant("kv.quantize", says="zero is the group's minimum, −3 here")
def zero_of_the_codes(x, bits, axis, group):
    codes, scale, zero = right_quantize(x, bits, axis, group)
    return codes, scale, torch.where(zero < 0, (-zero / scale).round(), zero)


@mutant("kv.quantize", says="expected torch.uint8")
def leaves_floats(x, bits, axis, group):
    codes, scale, zero = right_quantize(x, bits, axis, group)
    return codes.float(), scale, zero


def _stream(model, token_ids, sinks, window, *, slot, position, held):
    cache, rows = empty_cache(model, sinks + window + 1), []
    for seen, token in enumerate(token_ids):
        at, count = slot(seen), held(seen)

        def attend(layer, q, k, v, at=at, count=count):
            keys, values = cache.keys[layer], cache.values[layer]
            keys[:, at], values[:, at] = k[0], v[0]
            return causal_attention(q, keys[:, :count], values[:, :count])

        rows.append(model(token[None], torch.tensor([position(seen)]), attend))
    return torch.cat(rows)


def _behind_the_sinks(seen, sinks, window):
    return seen if seen < sinks else sinks + (seen - sinks) % window


@mutant("kv.debug_stream", says="ran token 4 at position 0: a token keeps its place in the sequence")
def mends_slots_and_reading_only(model, token_ids, sinks, window):
    slot = lambda seen: _behind_the_sinks(seen, sinks, window)  # noqa: E731
    return _stream(
        model, token_ids, sinks, window, slot=slot, position=slot, held=lambda seen: min(seen + 1, sinks + window)
    )


@mutant("kv.debug_stream", says="look at which slot token 6 overwrites")
def ring_over_the_sinks(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: seen % (sinks + window),
        position=lambda seen: seen,
        held=lambda seen: min(seen + 1, sinks + window),
    )


@mutant("kv.debug_stream", says="look at how many of them the last one reads")
def reads_a_window_without_sinks(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: _behind_the_sinks(seen, sinks, window),
        position=lambda seen: seen,
        held=lambda seen: min(seen + 1, window),
    )


@mutant("kv.debug_stream", says="without sinks the buffer is one ring of 4")
def a_window_of_one_more(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: _behind_the_sinks(seen, sinks, window + 1),
        position=lambda seen: seen,
        held=lambda seen: min(seen + 1, sinks + window + 1),
    )


@mutant("kv.debug_stream", says="ran token 6 at position 5")
def positions_inside_the_cache(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: _behind_the_sinks(seen, sinks, window),
        position=lambda seen: min(seen, sinks + window - 1) if sinks else seen,
        held=lambda seen: min(seen + 1, sinks + window),
    )


@mutant("kv.debug_stream", says="the ring has gone round several times")
def goes_round_once(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: _behind_the_sinks(seen, sinks if seen < 2 * (sinks + window) else 0, window),
        position=lambda seen: seen,
        held=lambda seen: min(seen + 1, sinks + window),
    )


@mutant("kv.debug_stream", says="a stream sends them one by one")
def one_masked_pass(model, token_ids, sinks, window):
    return full_pass(model, token_ids, window_mask(len(token_ids), sinks, window))


LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
MISTRAL = LLAMA | {"sliding_window": 4096}
QWEN = LLAMA | {"head_dim": 256}
DEEPSEEK = LLAMA | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
GEMMA = MISTRAL | {"layer_types": ["sliding_attention"] * 31 + ["full_attention"]}


def _search(calculator, configs, lengths=(100, 100_000), tolerance=0.05):
    for config in configs:
        for tokens in lengths:
            if abs(calculator(config, tokens) - right_bytes(config, tokens)) > tolerance * right_bytes(config, tokens):
                return config, tokens
    return None


@mutant("kv.falsify", says="takes hidden_size / heads for the width of a head")
def tries_llama_only(calculator):
    return _search(calculator, [LLAMA])


@mutant("kv.falsify", says="counts full heads where a model caches a latent")
def has_no_latent(calculator):
    return _search(calculator, [LLAMA, QWEN, MISTRAL])


@mutant("kv.falsify", says="knows no windows")
def tries_short_sequences(calculator):
    return _search(calculator, [LLAMA, QWEN, DEEPSEEK, MISTRAL], lengths=[100])


@mutant("kv.falsify", says="lets every layer slide")
def one_kind_of_layer(calculator):
    return _search(calculator, [LLAMA, QWEN, DEEPSEEK, MISTRAL])


@mutant("kv.falsify", says="believes a window that is switched off")
def every_window_is_on(calculator):
    return _search(calculator, [LLAMA, QWEN, DEEPSEEK, MISTRAL, GEMMA])


@mutant("kv.falsify", says="charges a whole window to a sequence shorter than it")
def tries_long_sequences(calculator):
    gallery = [LLAMA, QWEN, DEEPSEEK, MISTRAL, GEMMA, MISTRAL | {"use_sliding_window": False}]
    return _search(calculator, gallery, lengths=[100_000])


@mutant("kv.falsify", says="nothing refutes a right calculator: None")
def wants_it_exact(calculator):
    gallery = [LLAMA, QWEN, DEEPSEEK, MISTRAL, GEMMA, MISTRAL | {"use_sliding_window": False}]
    return _search(calculator, gallery, tolerance=0.0)


@mutant("kv.falsify", says="so that refutes nothing")
def always_the_same_config(calculator):
    return MISTRAL, 100_000


@mutant("kv.falsify", says="expected a tuple (config, tokens), or None")
def answers_with_the_name(calculator):
    return repr(calculator)


@mutant("kv.falsify", says="layer_types names 1 of 32 layers")
def names_too_few_layers(calculator):
    return MISTRAL | {"layer_types": ["sliding_attention"]}, 100_000


@mutant("kv.falsify", says="describes no model")
def leaves_out_the_heads(calculator):
    return {"num_hidden_layers": 32, "hidden_size": 4096}, 100


@mutant("kv.attention", says="head_dim is 9 here")
def half_of_head_dim_divides(q, keys, values):
    return _attention(q, keys, values, scale=2 / q.shape[2])


@mutant("kv.attention", says="a hidden key weighs nothing however low the others are")
def hides_keys_with_minus_1e9(q, keys, values):
    group = q.shape[1] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, 0) for x in (keys, values))
    scores = torch.einsum("nhd,htd->hnt", q, keys) * q.shape[2] ** -0.5
    hidden = ~torch.ones(scores.shape[1:], dtype=torch.bool).tril(keys.shape[1] - q.shape[0])
    return torch.einsum("hnt,htd->nhd", scores.masked_fill(hidden, -1e9).softmax(-1), values)


@mutant("kv.attention", says="mask before the maximum and the softmax")
def masks_after_the_softmax(q, keys, values):
    group = q.shape[1] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, 0) for x in (keys, values))
    weights = (torch.einsum("nhd,htd->hnt", q, keys) * q.shape[2] ** -0.5).softmax(-1)
    weights = weights.tril(keys.shape[1] - q.shape[0])
    return torch.einsum("hnt,htd->nhd", weights / weights.sum(-1, keepdim=True), values)


@mutant("kv.debug_stream", says="the first token behind the sinks lies in the first slot behind them")
def ring_begins_elsewhere(model, token_ids, sinks, window):
    return _stream(
        model,
        token_ids,
        sinks,
        window,
        slot=lambda seen: seen if seen < sinks else sinks + (seen + sinks) % window,
        position=lambda seen: seen,
        held=lambda seen: min(seen + 1, sinks + window),
    )


@mutant("kv.config_bytes", says="MLA keeps a latent for every token, and there are 1,000")
def one_latent_in_all(config, tokens):
    return right_bytes(config, 1 if config.get("kv_lora_rank") else tokens)


def _relabelled(config, label):
    """The config with other names for its layers."""
    kinds = config.get("layer_types")
    return config | {"layer_types": kinds and [label(kind) for kind in kinds]}


@mutant("kv.config_bytes", says="gave 512, expected 896")
def all_but_full_attention_slides(config, tokens):
    kind = {"full_attention": "full_attention"}
    return right_bytes(_relabelled(config, lambda name: kind.get(name, "sliding_attention")), tokens)


@mutant("kv.config_bytes", says="gave 1280, expected 512")
def the_switch_only_switches_off(config, tokens):
    return right_bytes(config | {"use_sliding_window": "use_sliding_window" not in config}, tokens)


@mutant("kv.fit", says="8 KV heads on 6 GPUs")
def rounds_heads_to_the_nearest(model, context, n_gpu, card_gib, fraction, overhead_gb):
    heads = max(1, round(model.n_kv_heads / n_gpu))
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=heads)


@mutant("kv.fit", says="one KV head, of 64 channels")
def every_head_is_128_wide(model, context, n_gpu, card_gib, fraction, overhead_gb):
    heads = -(-model.n_kv_heads // n_gpu) * 128 / model.head_dim
    return _fit(model, context, n_gpu, card_gib * GIB, fraction, overhead_gb * GB, heads=heads)


@mutant("kv.absorb", says="exp of the first overflows")
def exp_without_the_maximum(q_nope, q_rope, latent, k_rope, W_uk, W_uv):
    scores = torch.einsum("hd,hdc->hc", q_nope, W_uk) @ latent.T + q_rope @ k_rope.T
    weights = (scores / (q_nope.shape[1] + q_rope.shape[1]) ** 0.5).exp()
    return torch.einsum("hc,hvc->hv", weights / weights.sum(-1, keepdim=True) @ latent, W_uv)


@mutant("kv.quantize", says="a scale has no least value")
def least_scale_of_1e_8(x, bits, axis, group):
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    zero = groups.amin(axis, keepdim=True)
    scale = ((groups.amax(axis, keepdim=True) - zero) / (2**bits - 1)).clamp(min=1e-8)
    codes = ((groups - zero) / scale).round().to(torch.uint8)
    return codes.flatten(axis - 1, axis), scale.squeeze(axis), zero.squeeze(axis)


@mutant("kv.falsify", says="finds 6 % too little everywhere")
def allows_ten_percent(calculator):
    gallery = [LLAMA, QWEN, DEEPSEEK, MISTRAL, GEMMA, MISTRAL | {"use_sliding_window": False}]
    return _search(calculator, gallery, tolerance=0.1)


@mutant("kv.falsify", says="calculator K)")
def allows_three_percent(calculator):
    gallery = [LLAMA, QWEN, DEEPSEEK, MISTRAL, GEMMA, MISTRAL | {"use_sliding_window": False}]
    return _search(calculator, gallery, tolerance=0.03)
