// Sizes of a model: the twin of labcore/facts/model.py and parameters.py, on the same field names. Tests compare both
// on every published config in tests/facts/configs.
(function (W) {
  "use strict";
  const sum = (list, f) => list.reduce((total, item) => total + f(item), 0);

  const mlp = (c, width) => {
    const inward = c.weights.gated_mlp ? 2 : 1;
    return (inward + 1) * c.hidden * width + (inward * width + c.hidden) * c.weights.mlp_bias;
  };

  function attention(c) {
    const w = c.weights;
    const queries = c.n_heads * c.head_dim;
    const projected = queries * (w.attention_gate ? 2 : 1) + 2 * c.n_kv_heads * c.head_dim;
    const matrices = c.hidden * projected + queries * c.hidden;
    return matrices + projected * w.qkv_bias + c.hidden * w.output_bias + 2 * c.head_dim * w.qk_norm + c.n_heads * w.sinks;
  }

  function latentAttention(c) {
    const [m, w] = [c.mla, c.weights];
    const queries = c.n_heads * (m.nope_dim + m.rope_dim);
    const compressed = c.hidden * m.q_rank + m.q_rank + m.q_rank * queries + m.q_rank * w.qkv_bias;
    const query = m.q_rank === null ? c.hidden * queries : compressed;
    const down = c.hidden * (m.kv_rank + m.rope_dim) + m.kv_rank + (m.kv_rank + m.rope_dim) * w.qkv_bias;
    const up = m.kv_rank * c.n_heads * (m.nope_dim + m.value_dim);
    return query + down + up + c.n_heads * m.value_dim * c.hidden + c.hidden * w.output_bias;
  }

  function linearAttention(c) {
    const d = c.delta_net;
    const values = d.value_heads * d.value_dim;
    const channels = 2 * d.key_heads * d.key_dim + values;
    const projections = c.hidden * (channels + values + 2 * d.value_heads);
    return projections + channels * d.conv_kernel + 2 * d.value_heads + d.value_dim + values * c.hidden;
  }

  function feedForward(c) {
    if (!c.moe) return c.n_layers * mlp(c, c.intermediate);
    const [m, w] = [c.moe, c.weights];
    const router = c.hidden * m.n_experts + m.n_experts * w.router_bias;
    const shared = (m.shared_intermediate ? mlp(c, m.shared_intermediate) : 0) + c.hidden * w.shared_gate;
    const sparse = router + m.n_experts * mlp(c, m.moe_intermediate) + shared;
    return (c.n_layers - m.dense_layers) * sparse + (m.dense_layers ? m.dense_layers * mlp(c, c.intermediate) : 0);
  }

  const embeddings = (c) => c.vocab * c.hidden * (c.tied_embeddings ? 1 : 2) + c.weights.positions * c.hidden;

  // All parameters; null where the weights of this model_type are not described.
  function parameters(c) {
    const w = c.weights;
    if (!w) return null;
    const one = { linear: linearAttention, mla: latentAttention };
    const mixing = sum(c.layers, (layer) => (one[layer.kind] || attention)(c));
    return embeddings(c) + mixing + feedForward(c) + (c.n_layers * w.norms_per_layer + 1) * c.hidden * w.norm_vectors;
  }

  // What facts.as_json() gives for a preset, of a model as config.js reads it: equal layers grouped, parameters counted.
  function summary(c) {
    const groups = new Map();
    for (const { kind, kv_elements, window } of c.layers) {
      const layer = { kind, ...(kv_elements ? { kv_elements } : {}), ...(window === null ? {} : { window }) };
      const key = JSON.stringify(layer);
      groups.set(key, { count: (groups.get(key)?.count || 0) + 1, ...layer });
    }
    const every = parameters(c);
    const idle = c.moe ? (c.n_layers - c.moe.dense_layers) * (c.moe.n_experts - c.moe.top_k) : 0;
    const { name, n_layers, n_heads, n_kv_heads, head_dim, context, moe, mla } = c;
    const embedding_parameters = every === null ? null : embeddings(c);
    const active_parameters = every === null ? null : every - (idle ? idle * mlp(c, moe.moe_intermediate) : 0);
    return { name, n_layers, n_heads, n_kv_heads, head_dim, context, moe, mla, layers: [...groups.values()], parameters: every, active_parameters, embedding_parameters };
  }

  // ---- of a preset or such a summary -------------------------------------------------------------------------
  const perToken = (m) => sum(m.layers, (layer) => layer.count * (layer.kv_elements || 0));
  const kvElements = (m, tokens) => sum(m.layers, (layer) => layer.count * (layer.kv_elements || 0) * Math.min(tokens, layer.window ?? Infinity));

  // The names a calculator's steps use; the twin of `of_model` in labcore/learn/widgets/environment.py, which explains them.
  function environment(m, known) {
    const [total, { n_experts, top_k, dense_layers = 0 }] = [m.parameters, m.moe || { n_experts: 0, top_k: 0 }];
    const n_moe = m.moe ? m.n_layers - dense_layers : 0;
    const expert = m.moe && total !== null ? Math.floor((total - m.active_parameters) / (n_moe * (n_experts - top_k))) : 0;
    const weights = {
      P: m.active_parameters,
      P_total: total,
      P_embed: m.embedding_parameters,
      P_dense: total === null ? null : total - n_moe * n_experts * expert,
      P_expert: expert,
      n_moe,
      E: n_experts,
      k: top_k,
      moe: Number(Boolean(m.moe)),
    };
    return "L" in known ? { ...weights, ...cache(m, known) } : weights;
  }

  function cache(m, { L, b_kv }) {
    const [kappa, held] = [perToken(m) * b_kv, kvElements(m, L) * b_kv];
    return {
      mla: Number(Boolean(m.mla)),
      d_c: m.mla ? m.mla.kv_rank : 0,
      d_R: m.mla ? m.mla.rope_dim : 0,
      n_layers: sum(m.layers, (layer) => (layer.kv_elements ? layer.count : 0)),
      n_q: m.n_heads,
      n_kv: m.mla ? 1 : m.n_kv_heads,
      d_h: m.mla ? m.mla.kv_rank + m.mla.rope_dim / 2 : m.head_dim,
      kappa,
      kv_sequence: held,
      L_kv: kappa ? held / kappa : 0,
    };
  }

  // One sentence about a model that was read, so that the reader sees what was understood.
  function describe(m) {
    const kinds = m.layers.map((g) => `${g.count} ${g.kind}${g.window ? ` (window ${W.ui.number(g.window)})` : ""}`).join(", ");
    const heads = m.mla ? `${m.n_heads} query heads on one latent of ${m.mla.kv_rank} + ${m.mla.rope_dim}` : `${m.n_heads} query and ${m.n_kv_heads} KV heads of ${m.head_dim}`;
    const size = m.parameters === null ? "parameters unknown for this model_type" : `${W.ui.number(m.parameters)} parameters`;
    return `Read: layers ${kinds}; ${heads}; ${size}.`;
  }

  W.models = { summary, environment, describe };
})(globalThis.labcoreWidgets);
