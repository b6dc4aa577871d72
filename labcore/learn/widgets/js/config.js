// From a pasted Hugging Face config.json to the fields of a model: the twin of labcore/facts/fields.py, families.py and
// config_json.py, where the reasons stand. Tests read the same published and broken configs with both.
(function (W) {
  "use strict";
  const NESTED = ["text_config", "llm_config", "language_config"];
  const LAYER_TYPES = { full_attention: "full", sliding_attention: "sliding", linear_attention: "linear" };
  const NAMES = {
    layers: ["num_hidden_layers", "n_layer", "n_layers", "num_layers"],
    hidden: ["hidden_size", "n_embd", "d_model"],
    heads: ["num_attention_heads", "n_head", "n_heads"],
    kvHeads: ["num_key_value_heads", "num_kv_heads", "n_head_kv"],
    intermediate: ["intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner"],
    context: ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"],
    experts: ["num_local_experts", "num_experts", "n_routed_experts"],
    topK: ["num_experts_per_tok", "experts_per_token", "top_k_experts"],
  };
  const REFUSED = {
    index_topk: "a sparse-attention indexer caches keys of its own",
    attention_chunk_size: "attention within chunks",
    attention_other_setting: "layers with other heads",
    compress_ratios: "a compressed cache",
    linear_attn_config: "a linear-attention state of its own layout",
    hybrid_override_pattern: "Mamba layers",
    layers_block_type: "Mamba or recurrent layers",
    block_types: "recurrent layers",
    attn_layer_period: "Mamba layers",
    attn_layer_indices: "Mamba layers",
    ssm_cfg: "Mamba layers",
    state_size: "a state-space model",
    mamba_d_state: "Mamba layers",
    attn_type_list: "linear-attention layers",
    block_configs: "layers of different shapes",
    sparse_attention_config: "sparse attention with caches of its own",
    is_encoder_decoder: "an encoder-decoder with cross-attention",
    cross_attention_layers: "cross-attention layers",
  };
  const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);
  const absent = (v) => v === undefined || v === null;
  // what Python's truth test would say of a JSON value
  const truthy = (v) => !absent(v) && v !== false && v !== 0 && v !== "" && !(typeof v === "object" && Object.keys(v).length === 0);
  const short = (v) => {
    const text = JSON.stringify(v);
    return text.length <= 40 ? text : `${text.slice(0, 37)}…`;
  };
  const REQUIRED = Symbol("required");

  class Fields {
    constructor(values, defaults, source) {
      Object.assign(this, { values, defaults, source });
    }

    error(text) {
      return new Error(`${this.source}: ${text}`);
    }

    given(...names) {
      const found = names.filter((name) => !absent(this.values[name])).map((name) => [name, this.values[name]]);
      for (const [name, value] of found.slice(1)) {
        if (JSON.stringify(value) !== JSON.stringify(found[0][1])) throw this.error(`${found[0][0]}=${short(found[0][1])} contradicts ${name}=${short(value)}`);
      }
      return found[0];
    }

    get(names, otherwise = REQUIRED) {
      const found = this.given(...names);
      if (found) return found[1];
      for (const name of names) if (name in this.defaults && !(name in this.values)) return this.defaults[name];
      if (otherwise !== REQUIRED) return otherwise;
      throw this.error(`${names[0]}${names.length > 1 ? ` (or ${names.slice(1).join(", ")})` : ""} is missing`);
    }

    integer(names, otherwise = REQUIRED, low = 1) {
      const value = this.get(names, otherwise);
      if (value === otherwise) return value;
      if (!Number.isInteger(value) || value < low) {
        const [name] = this.given(...names) || names;
        throw this.error(`${name}=${short(value)} must be a whole number, ${low} or more`);
      }
      return value;
    }

    flag(name, otherwise = false) {
      const value = this.get([name], otherwise);
      if (typeof value !== "boolean") throw this.error(`${name}=${short(value)} must be true or false`);
      return value;
    }
  }

  // ---- which layers slide, per model_type --------------------------------------------------------------------
  const each = (n, f) => Array.from({ length: n }, (_, i) => f(i));
  const full = (f, n) => each(n, () => "full");
  const sliding = (f, n) => each(n, () => (f.get(["sliding_window"], null) === null ? "full" : "sliding"));
  const upperSlide = (f, n) => {
    if (!f.flag("use_sliding_window")) return full(f, n);
    const first = f.integer(["max_window_layers"], REQUIRED, 0);
    return each(n, (i) => (i >= first ? "sliding" : "full"));
  };
  const allSlide = (f, n) => each(n, () => (f.flag("use_sliding_window") ? "sliding" : "full"));
  const nthFull = (period) => (f, n) => {
    const every = f.integer(["sliding_window_pattern", "_sliding_window_pattern"], period);
    return each(n, (i) => ((i + 1) % every ? "sliding" : "full"));
  };
  const otherSlides = (f, n) => each(n, (i) => (i % 2 ? "full" : "sliding"));
  const nthAttends = (f, n) => {
    const every = f.integer(["full_attention_interval"]);
    return each(n, (i) => ((i + 1) % every ? "linear" : "full"));
  };
  const unknownRule = (f, n) => {
    if (f.get(["sliding_window"], null) !== null && truthy(f.get(["use_sliding_window"], true))) {
      throw f.error(`sliding_window=${short(f.values.sliding_window)} is set, but layer_types is missing and model_type ${short(f.values.model_type)} is not known, so which layers slide cannot be told`);
    }
    return full(f, n);
  };

  // ---- which weights exist beyond the matrices ---------------------------------------------------------------
  const PLAIN = {
    gated_mlp: true, norm_vectors: 1, norms_per_layer: 2, qkv_bias: false, output_bias: false, mlp_bias: false, qk_norm: false,
    positions: 0, attention_gate: false, sinks: false, router_bias: false, shared_gate: false,
  };
  const attentionBias = (f) => ({ qkv_bias: f.flag("attention_bias"), output_bias: f.flag("attention_bias") });
  const everyBias = (on) => ({ gated_mlp: false, norm_vectors: 2, qkv_bias: on, output_bias: on, mlp_bias: on });
  const plain = () => ({});
  const llama = (f) => ({ ...attentionBias(f), mlp_bias: f.flag("mlp_bias") });
  const qwen3 = (f) => ({ ...attentionBias(f), qk_norm: true });
  const hybrid = (f) => ({ ...qwen3(f), attention_gate: true, shared_gate: true });
  const gemma = (norms_per_layer, qk_norm = false) => (f) => ({ ...attentionBias(f), norms_per_layer, qk_norm });
  const falcon = (f) => {
    const modern = f.flag("new_decoder_architecture") || f.values.model_type === "RefinedWeb";
    const bias = everyBias(f.flag("bias"));
    return { ...bias, norms_per_layer: modern ? f.integer(["num_ln_in_parallel_attn"], 2) : f.flag("parallel_attn", true) ? 1 : 2 };
  };
  const gpt2 = (f) => (f.flag("add_cross_attention") ? null : { ...everyBias(true), positions: f.integer(["n_positions", "max_position_embeddings"]) });
  const opt = (f) => {
    if (f.integer(["word_embed_proj_dim"], 0) !== f.integer(["hidden_size"]) || !f.flag("do_layer_norm_before", true)) return null;
    return { ...everyBias(f.flag("enable_bias", true)), positions: f.integer(["max_position_embeddings"]) + 2 };
  };
  const deepseek = (f) => ({ ...attentionBias(f), router_bias: f.get(["topk_method"], null) === "noaux_tc" });
  const gptOss = (f) => ({ ...attentionBias(f), mlp_bias: true, sinks: true, router_bias: true });

  const kv = (heads) => ({ num_key_value_heads: heads });
  const DELTA_NET = {
    linear_conv_kernel_dim: 4, linear_key_head_dim: 128, linear_value_head_dim: 128, linear_num_key_heads: 16,
    linear_num_value_heads: 32, full_attention_interval: 4, head_dim: 256,
  };
  const GEMMA = { tie_word_embeddings: true, head_dim: 256 };
  const GEMMA4 = { ...GEMMA, ...kv(4), global_head_dim: 512, sliding_window: 512 };
  const QWEN = { ...kv(32), max_window_layers: 28 };
  const GEMMA3 = { ...GEMMA, vocab_size: 262208, sliding_window: 4096, num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 131072 };
  const TIED = { tie_word_embeddings: true };
  // model_type → [weights, which layers slide, class defaults, MLP width in units of hidden if left out]
  const FAMILIES = {
    llama: [llama],
    mistral: [plain, sliding, { ...kv(8), sliding_window: 4096 }],
    mixtral: [plain, sliding, kv(8)],
    qwen2: [() => ({ qkv_bias: true }), upperSlide, QWEN],
    qwen3: [qwen3, upperSlide, { ...QWEN, head_dim: 128 }],
    qwen3_moe: [qwen3, allSlide, kv(4)],
    qwen3_next: [hybrid, nthAttends, { ...DELTA_NET, ...kv(2) }],
    qwen3_5_text: [hybrid, nthAttends, { ...DELTA_NET, ...kv(4) }],
    qwen3_5_moe_text: [hybrid, nthAttends, { ...DELTA_NET, ...kv(2) }],
    phi3: [plain, sliding],
    gemma: [gemma(2), full, { ...GEMMA, ...kv(16) }],
    gemma2: [gemma(4), nthFull(2), { ...GEMMA, ...kv(4), sliding_window: 4096 }],
    gemma3_text: [gemma(4, true), nthFull(6), GEMMA3],
    cohere2: [() => null, nthFull(4), TIED],
    falcon: [falcon, full, TIED, 4],
    RefinedWeb: [falcon, full, TIED, 4],
    RefinedWebModel: [falcon, full, TIED, 4],
    gpt2: [gpt2, full, TIED, 4],
    opt: [opt, full, TIED],
    deepseek_v2: [deepseek],
    deepseek_v3: [deepseek],
    kimi_k2: [deepseek],
    gpt_oss: [gptOss, otherSlides, { ...kv(8), head_dim: 64, sliding_window: 128 }],
    qwen3_vl_text: [qwen3, full, { ...kv(32), head_dim: 128 }],
    qwen3_vl_moe_text: [qwen3, full, kv(16)],
    gemma4_text: [() => null, nthFull(6), GEMMA4],
    bloom: [() => null, full, {}, 4],
    gpt_neox: [() => null],
    gptj: [() => null, full, {}, 4],
    gpt_bigcode: [() => null, full, {}, 4],
  };

  // ---- the parts of a model ----------------------------------------------------------------------------------
  function keyValueHeads(f, heads, type) {
    const old = ["falcon", "RefinedWebModel"].includes(type) && !f.flag("new_decoder_architecture");
    if (old || type === "gpt_bigcode") return f.flag("multi_query", true) ? 1 : heads;
    const shared = Object.hasOwn(FAMILIES, type) ? f.integer(NAMES.kvHeads, heads) : f.integer(NAMES.kvHeads);
    if (shared > heads || heads % shared) throw f.error(`${NAMES.kvHeads[0]}=${shared} does not divide num_attention_heads=${heads}`);
    return shared;
  }

  function headWidth(f, hidden, heads) {
    const explicit = f.integer(["head_dim", "kv_channels"], null);
    if (explicit === null && hidden % heads) throw f.error(`head_dim is missing, and hidden_size=${hidden} is not a multiple of num_attention_heads=${heads}`);
    return explicit ?? hidden / heads;
  }

  // Elements per token of a full and of a sliding layer.
  function kvElements(f, heads, width) {
    const elements = heads * (width + f.integer(["v_head_dim"], width));
    const wide = f.integer(["global_head_dim"], null);
    if (wide === null) return { full: elements, sliding: elements };
    const own = f.flag("attention_k_eq_v") ? f.integer(["num_global_key_value_heads"], heads) : heads;
    return { full: 2 * own * wide, sliding: elements };
  }

  function latent(f) {
    const kv_rank = f.integer(["kv_lora_rank"], null);
    if (kv_rank === null) return null;
    const [nope_dim, rope_dim] = [f.integer(["qk_nope_head_dim"]), f.integer(["qk_rope_head_dim"])];
    return { kv_rank, rope_dim, q_rank: f.integer(["q_lora_rank"], null), nope_dim, value_dim: f.integer(["v_head_dim"]) };
  }

  function deltaNet(f) {
    if (f.get(["linear_num_value_heads"], null) === null) return null;
    const one = (name) => f.integer([`linear_${name}`]);
    const [key_heads, value_heads] = [one("num_key_heads"), one("num_value_heads")];
    return { key_heads, value_heads, key_dim: one("key_head_dim"), value_dim: one("value_head_dim"), conv_kernel: one("conv_kernel_dim") };
  }

  function denseLayers(f, n) {
    const [first, every] = [f.integer(["first_k_dense_replace"], 0, 0), f.integer(["moe_layer_freq"], 1)];
    const [listed, step] = [f.get(["mlp_only_layers"], []), f.integer(["decoder_sparse_step"], 1)];
    return n - each(n, (i) => i).filter((i) => i >= first && i % every === 0 && !listed.includes(i) && (i + 1) % step === 0).length;
  }

  function experts(f, n) {
    const n_experts = f.integer(NAMES.experts, 0, 0);
    if (!n_experts) return null;
    const top_k = f.integer(NAMES.topK);
    if (top_k > n_experts) throw f.error(`${NAMES.topK[0]}=${top_k} is more than the ${n_experts} experts there are`);
    const moe_intermediate = f.integer(["moe_intermediate_size"], null) || f.integer(NAMES.intermediate);
    const n_shared = f.integer(["n_shared_experts", "num_shared_experts"], 0, 0);
    const shared_intermediate = f.integer(["shared_expert_intermediate_size"], n_shared * moe_intermediate, 0);
    return { n_experts, top_k, moe_intermediate, n_shared: n_shared || Number(shared_intermediate > 0), shared_intermediate, dense_layers: denseLayers(f, n) };
  }

  function kinds(f, rule, n) {
    const listed = f.get(["layer_types"], null);
    if (listed === null) return rule(f, n);
    if (listed.length !== n) throw f.error(`layer_types lists ${listed.length} layers, but num_hidden_layers=${n}`);
    const unknown = listed.map(String).filter((kind) => !(kind in LAYER_TYPES)).sort();
    if (unknown.length) throw f.error(`layer_types has ${short(unknown[0])}, which this reader does not model`);
    const found = listed.map((kind) => LAYER_TYPES[kind]);
    if (found.includes("sliding") && f.values.use_sliding_window === false) throw f.error("layer_types has sliding_attention, but use_sliding_window is false");
    return found;
  }

  function layers(f, rule, n, elements, mla, net) {
    const found = kinds(f, rule, n);
    if (mla) {
      if (found.some((kind) => kind !== "full")) throw f.error(`kv_lora_rank is set, but not every layer is full attention (${short(found)})`);
      return found.map(() => ({ kind: "mla", kv_elements: mla.kv_rank + mla.rope_dim, window: null }));
    }
    const slides = found.includes("sliding");
    const window = slides ? f.integer(["sliding_window"], null) : null;
    if (slides && window === null) throw f.error("layers use sliding attention, but sliding_window is missing or null");
    if (found.includes("linear") && !net) throw f.error("layer_types has linear_attention, but linear_num_value_heads is missing: unknown state size");
    const owners = n - f.integer(["num_kv_shared_layers"], 0, 0); // the last layers read the cache of earlier ones
    return found.map((kind, i) => ({ kind, kv_elements: kind === "linear" || i >= owners ? 0 : elements[kind], window: kind === "sliding" ? window : null }));
  }

  function enter(content) {
    const nested = NESTED.find((key) => isObject(content[key]));
    let [values, source] = [content, "config.json"];
    if (nested) {
      const outer = "tie_word_embeddings" in content ? { tie_word_embeddings: content.tie_word_embeddings } : {};
      [values, source] = [{ ...outer, ...content[nested] }, `config.json, ${nested}`];
    }
    const type = values.model_type;
    if (typeof type !== "string") throw new Error(`${source}: model_type is missing; it decides how the other fields are meant`);
    if ((content.architectures || []).some((kind) => String(kind).includes("MaskedLM"))) {
      throw new Error(`${source}: architectures=${short(content.architectures)} is an encoder; it keeps no KV cache`);
    }
    const [weights, rule = full, defaults = {}, factor] = Object.hasOwn(FAMILIES, type) ? FAMILIES[type] : [() => null, unknownRule];
    return { f: new Fields(values, defaults, source), type, weights, rule, factor };
  }

  // The fields of a model out of a config object; throws an Error of one sentence that names the field.
  function fromConfig(content) {
    const { f, type, weights, rule, factor } = enter(content);
    for (const [field, why] of Object.entries(REFUSED)) {
      const ordinary = Array.isArray(f.values[field]) && f.values[field].every((kind) => kind === 1); // MiniMax writes 1
      if (truthy(f.values[field]) && !ordinary) throw f.error(`${field}=${short(f.values[field])} means ${why}, which this reader does not model`);
    }
    const [n_layers, hidden, n_heads] = [f.integer(NAMES.layers), f.integer(NAMES.hidden), f.integer(NAMES.heads)];
    const [mla, delta_net] = [latent(f), deltaNet(f)];
    const n_kv_heads = keyValueHeads(f, n_heads, type);
    const head_dim = mla ? mla.nope_dim + mla.rope_dim : headWidth(f, hidden, n_heads);
    const moe = experts(f, n_layers);
    const dense = () => (factor ? f.integer(NAMES.intermediate, factor * hidden) : f.integer(NAMES.intermediate));
    const intermediate = moe && moe.dense_layers === 0 ? moe.moe_intermediate : dense();
    const model = {
      name: f.values._name_or_path || "config.json", model_type: type, n_layers, hidden, n_heads, n_kv_heads, head_dim,
      intermediate, vocab: f.integer(["vocab_size"]), tied_embeddings: f.flag("tie_word_embeddings"),
      layers: layers(f, rule, n_layers, kvElements(f, n_kv_heads, head_dim), mla, delta_net), context: f.integer(NAMES.context, null), moe, mla, delta_net,
    };
    const beyond = weights(f);
    return W.models.summary({ ...model, weights: beyond && { ...PLAIN, ...beyond } });
  }

  // The same from pasted text.
  function parse(text) {
    let content;
    try {
      content = JSON.parse(text.replace(/([[:,]\s*)(-?Infinity|NaN)(?=\s*[,\]}])/g, "$1null")); // which Python writes into JSON
    } catch (error) {
      throw new Error(text.trim() ? `This is not JSON (${error.message}); paste the whole config.json, from the first { to the last }.` : "Nothing was pasted; paste the whole config.json, from the first { to the last }.");
    }
    if (!isObject(content)) throw new Error(`This is ${Array.isArray(content) ? "a list" : `a ${typeof content}`}, not the object of a config.json; paste it from the first { to the last }.`);
    return fromConfig(content);
  }

  Object.assign(W.models, { parse, fromConfig });
})(globalThis.labcoreWidgets);
