// Generated from labcore/learn/widgets/js by `python -m labcore.learn.widgets.bundle`: read and edit there.
// core.js
(function () {
"use strict";
const known = globalThis.labcoreWidgets;
const components = known ? known.components : {}; // two widgets in one notebook run this file twice
const MOUNTED = "data-labcore-mounted";
function register(name, component) {
components[name] = component;
if (globalThis.document && document.readyState === "complete") mount(document);
}
function draw(name, context) {
const component = components[name];
if (!component) throw new Error(`there is no component ${JSON.stringify(name)}`);
context.el.classList.add("labcore-widget", `labcore-${name}`);
return component.render(context);
}
function complain(name, error) {
const note = document.createElement("p");
note.className = "labcore-note labcore-error";
note.textContent = `This ${name} could not start (${error.message}); the text around it stands on its own.`;
console.error(error);
return note;
}
function mount(root) {
const selector = `[data-labcore-widget]:not([${MOUNTED}])`;
for (const host of (root || document).querySelectorAll(selector)) {
const name = host.getAttribute("data-labcore-widget");
if (!components[name]) continue; // its script may still be on its way
host.setAttribute(MOUNTED, "");
const el = document.createElement("div");
const emit = (value) => host.dispatchEvent(new CustomEvent("labcore:value", { detail: value, bubbles: true }));
try {
const spec = JSON.parse(host.getAttribute("data-spec") || "{}");
draw(name, { el, spec, emit, model: undefined });
host.replaceChildren(el);
} catch (error) {
host.append(complain(name, error));
}
}
}
function render({ model, el }) {
let cleanup;
const emit = (value) => {
model.set("value", value);
model.save_changes();
};
const redraw = () => {
if (typeof cleanup === "function") cleanup();
const name = model.get("component");
const inner = document.createElement("div");
try {
cleanup = draw(name, { el: inner, spec: model.get("spec"), emit, model });
el.replaceChildren(inner);
} catch (error) {
el.replaceChildren(complain(name, error));
}
};
model.on("change:spec", redraw);
redraw();
return () => {
model.off("change:spec", redraw);
if (typeof cleanup === "function") cleanup();
};
}
globalThis.labcoreWidgets = { components, register, render, mount, ui: {} };
if (!globalThis.document) return; // under node
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => mount(document));
else queueMicrotask(() => mount(document));
})();
// ui.js
(function (ui) {
"use strict";
const SVG = "http://www.w3.org/2000/svg";
let serial = 0;
function fill(node, attrs, children) {
for (const [key, value] of Object.entries(attrs || {})) {
if (value === null || value === undefined || value === false) continue;
if (key.startsWith("on") && typeof value === "function") node.addEventListener(key.slice(2), value);
else if (key === "text") node.textContent = value;
else if (key === "value" && "value" in node) node.value = value;
else if (key === "style" && typeof value === "object") Object.assign(node.style, value);
else node.setAttribute(key, value === true ? "" : value);
}
for (const child of children.flat(Infinity)) {
if (child !== null && child !== undefined && child !== false) node.append(child);
}
return node;
}
ui.el = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
ui.svg = (tag, attrs, ...children) => fill(document.createElementNS(SVG, tag), attrs, children);
ui.uid = (prefix) => `labcore-${prefix}-${++serial}`;
ui.button = (label, onclick, attrs) => ui.el("button", { type: "button", class: "labcore-button", onclick, ...attrs }, label);
ui.live = () => {
const node = ui.el("div", { class: "labcore-sr", role: "status", "aria-live": "polite" });
let timer;
return {
node,
say(text) {
clearTimeout(timer);
timer = setTimeout(() => (node.textContent = text), 400);
},
};
};
ui.calm = () => globalThis.matchMedia && matchMedia("(prefers-reduced-motion: reduce)").matches;
const group = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");
ui.number = (value, digits = 4) => {
if (value === null || value === undefined || Number.isNaN(value)) return "—";
if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
const size = Math.abs(value);
if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(digits - 1).replace("-", "−");
const text = size >= 1000 ? size.toFixed(0) : String(Number(size.toPrecision(digits)));
const [whole, part] = text.split(".");
return (value < 0 ? "−" : "") + group(whole) + (part ? `.${part}` : "");
};
const UP = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const DOWN = [...UP, [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const BINARY = [[2 ** 40, "Ti"], [2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"]];
const PREFIXED = { B: UP, FLOP: UP, "FLOP/s": UP, "B/s": UP, s: DOWN, J: DOWN, W: UP };
function prefixed(value, unit, table) {
const [scale, prefix] = table.find(([step]) => Math.abs(value) >= step * 0.99995) || table[table.length - 1];
return `${ui.number(value / scale)} ${prefix}${unit}`;
}
ui.format = (value, unit) => {
if (value === null || value === undefined || !Number.isFinite(value)) return ui.number(value);
if (!unit || unit === "1") return ui.number(value);
if (unit.startsWith("USD")) return `USD ${ui.number(value)}${unit.slice(3)}`;
if (unit === "%") return `${ui.number(value * 100)} %`;
const table = PREFIXED[unit];
if (!table) return `${ui.number(value)} ${unit}`;
const decimal = prefixed(value === 0 ? 0 : value, unit, value === 0 ? [[1, ""]] : table);
return unit === "B" && Math.abs(value) >= 1024 ? `${decimal} = ${prefixed(value, unit, BINARY)}` : decimal;
};
const PREFIX = "labcore.v1.";
const memory = new Map();
const store = (() => {
try {
const probe = `${PREFIX}probe`;
localStorage.setItem(probe, "1");
localStorage.removeItem(probe);
return localStorage;
} catch {
return null;
}
})();
ui.storage = {
persistent: store !== null,
get(key, otherwise = null) {
try {
const text = store ? store.getItem(PREFIX + key) : memory.get(key);
return text === null || text === undefined ? otherwise : JSON.parse(text);
} catch {
return otherwise; // damaged by another program: as if it were not there
}
},
set(key, value) {
const text = JSON.stringify(value);
try {
if (store) store.setItem(PREFIX + key, text);
else memory.set(key, text);
return store !== null;
} catch {
return false; // quota
}
},
remove(key) {
if (store) store.removeItem(PREFIX + key);
memory.delete(key);
},
keys(prefix = "") {
const all = store ? Object.keys(store).filter((k) => k.startsWith(PREFIX)).map((k) => k.slice(PREFIX.length)) : [...memory.keys()];
return all.filter((k) => k.startsWith(prefix)).sort();
},
notice: () =>
store ? null : ui.el("p", { class: "labcore-note", text: "This browser keeps nothing for this page (private mode, or storage is blocked): what you enter is lost when the page closes." }),
};
})(globalThis.labcoreWidgets.ui);
// steps.js
(function (W) {
"use strict";
const SIGNS = { "<": (a, b) => a < b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
const look = (env, name) => (typeof name === "number" ? name : env[name]);
function holds(conditions, env) {
return (conditions || []).every(([left, sign, right]) => {
const [a, b] = [look(env, left), look(env, right)];
return a !== undefined && a !== null && b !== undefined && b !== null && SIGNS[sign](a, b);
});
}
function needs(step) {
if (!step.formula) return Object.entries(step.product || step.ratio || step.sum.map(([name]) => name));
const formula = (globalThis.labcoreFormulas || {})[step.formula];
if (!formula) throw new Error(`formula ${step.formula} is not registered`);
return formula.inputs.map(({ name }) => [name, (step.with || {})[name] ?? name]);
}
function evaluate(step, env) {
const v = {};
for (const [key, name] of needs(step)) {
if (typeof name === "string" && !(name in env)) throw new Error(`step ${step.id} needs ${name}`);
v[key] = look(env, name);
}
if (Object.values(v).includes(null)) return null;
if (step.formula) return globalThis.labcoreFormulas[step.formula].evaluate(v);
if (step.product) return v[0] * v[1];
if (step.ratio) return v[0] / v[1];
return step.sum.reduce((total, [, factor], i) => total + v[i] * factor, 0);
}
function search(step, earlier, given) {
const enough = (x) => {
const env = run(earlier, { ...given, [step.search]: x });
const [value, bar] = [env[step.value], env[step.reaches]];
return value !== null && bar !== null && value >= bar;
};
let [low, high] = [0, 1];
while (!enough(high)) {
if (high >= 2 ** 30) return null;
[low, high] = [high, 2 * high];
}
while (high - low > 1) {
const middle = Math.floor((low + high) / 2);
if (enough(middle)) high = middle;
else low = middle;
}
return high;
}
function run(steps, given) {
const env = { ...given };
steps.forEach((step, i) => {
env[step.id] ??= null;
if (env[step.id] !== null || !holds(step.when, env)) return;
env[step.id] = step.search ? search(step, steps.slice(0, i), given) : evaluate(step, env);
});
return env;
}
function sentence(cases, env) {
const found = (cases || []).find((item) => holds(item.when, env));
return found ? found.text.replace(/\{(\w+)(?:\|([^}]*))?\}/g, (_, name, unit) => W.ui.format(env[name], unit)) : "";
}
W.steps = { run, holds, sentence };
})(globalThis.labcoreWidgets);
// model.js
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
function parameters(c) {
const w = c.weights;
if (!w) return null;
const embeddings = c.vocab * c.hidden * (c.tied_embeddings ? 1 : 2) + w.positions * c.hidden;
const one = { linear: linearAttention, mla: latentAttention };
const mixing = sum(c.layers, (layer) => (one[layer.kind] || attention)(c));
return embeddings + mixing + feedForward(c) + (c.n_layers * w.norms_per_layer + 1) * c.hidden * w.norm_vectors;
}
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
const active_parameters = every === null ? null : every - (idle ? idle * mlp(c, moe.moe_intermediate) : 0);
return { name, n_layers, n_heads, n_kv_heads, head_dim, context, moe, mla, layers: [...groups.values()], parameters: every, active_parameters };
}
const perToken = (m) => sum(m.layers, (layer) => layer.count * (layer.kv_elements || 0));
const kvElements = (m, tokens) => sum(m.layers, (layer) => layer.count * (layer.kv_elements || 0) * Math.min(tokens, layer.window ?? Infinity));
function environment(m, { L, b_kv }) {
const [total, { n_experts, top_k, dense_layers = 0 }] = [m.parameters, m.moe || { n_experts: 0, top_k: 0 }];
const known = total !== null;
const n_moe = m.moe ? m.n_layers - dense_layers : 0;
const expert = m.moe && known ? Math.floor((total - m.active_parameters) / (n_moe * (n_experts - top_k))) : 0;
const [kappa, held] = [perToken(m) * b_kv, kvElements(m, L) * b_kv];
return {
P: m.active_parameters,
P_total: total,
P_dense: known ? total - n_moe * n_experts * expert : null,
P_expert: expert,
n_moe,
E: n_experts,
k: top_k,
moe: Number(Boolean(m.moe)),
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
function describe(m) {
const kinds = m.layers.map((g) => `${g.count} ${g.kind}${g.window ? ` (window ${W.ui.number(g.window)})` : ""}`).join(", ");
const heads = m.mla ? `${m.n_heads} query heads on one latent of ${m.mla.kv_rank} + ${m.mla.rope_dim}` : `${m.n_heads} query and ${m.n_kv_heads} KV heads of ${m.head_dim}`;
const size = m.parameters === null ? "parameters unknown for this model_type" : `${W.ui.number(m.parameters)} parameters`;
return `Read: layers ${kinds}; ${heads}; ${size}.`;
}
W.models = { summary, environment, describe };
})(globalThis.labcoreWidgets);
// config.js
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
global_head_dim: "heads of two widths",
num_kv_shared_layers: "layers that share one cache",
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
for (const name of names) if (name in this.defaults) return this.defaults[name];
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
const each = (n, f) => Array.from({ length: n }, (_, i) => f(i));
const full = (f, n) => each(n, () => "full");
const sliding = (f, n) => each(n, () => (f.get(["sliding_window"], null) === null ? "full" : "sliding"));
const upperSlide = (f, n) => {
if (!f.flag("use_sliding_window")) return full(f, n);
const first = f.integer(["max_window_layers"], REQUIRED, 0);
return each(n, (i) => (i >= first ? "sliding" : "full"));
};
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
const modern = f.flag("new_decoder_architecture");
const bias = everyBias(f.flag("bias"));
return { ...bias, norms_per_layer: modern ? f.integer(["num_ln_in_parallel_attn"], 2) : f.flag("parallel_attn", true) ? 1 : 2 };
};
const gpt2 = (f) => (f.flag("add_cross_attention") ? null : { ...everyBias(true), positions: f.integer(["n_positions", "max_position_embeddings"]) });
const opt = (f) => {
if (f.integer(["word_embed_proj_dim"], 0) !== f.integer(["hidden_size"]) || !f.flag("do_layer_norm_before", true)) return null;
return { ...everyBias(f.flag("enable_bias", true)), positions: f.integer(["max_position_embeddings"]) + 2 };
};
const gptOss = (f) => ({ ...attentionBias(f), mlp_bias: true, sinks: true, router_bias: true });
const DELTA_NET = {
linear_conv_kernel_dim: 4, linear_key_head_dim: 128, linear_value_head_dim: 128, linear_num_key_heads: 16,
linear_num_value_heads: 32, full_attention_interval: 4, head_dim: 256,
};
const GEMMA = { tie_word_embeddings: true, head_dim: 256 };
const GEMMA3 = { ...GEMMA, vocab_size: 262208, sliding_window: 4096, num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 131072 };
const TIED = { tie_word_embeddings: true };
const FAMILIES = {
llama: [llama],
mistral: [plain, sliding, { num_key_value_heads: 8, sliding_window: 4096 }],
mixtral: [plain, sliding, { num_key_value_heads: 8 }],
qwen2: [() => ({ qkv_bias: true }), upperSlide, { max_window_layers: 28 }],
qwen3: [qwen3, upperSlide, { max_window_layers: 28, head_dim: 128 }],
qwen3_moe: [qwen3],
qwen3_next: [hybrid, nthAttends, DELTA_NET],
qwen3_5_text: [hybrid, nthAttends, DELTA_NET],
qwen3_5_moe_text: [hybrid, nthAttends, DELTA_NET],
phi3: [plain, sliding],
gemma: [gemma(2), full, GEMMA],
gemma2: [gemma(4), nthFull(2), { ...GEMMA, sliding_window: 4096 }],
gemma3_text: [gemma(4, true), nthFull(6), GEMMA3],
cohere2: [() => null, nthFull(4), TIED],
falcon: [falcon, full, TIED],
RefinedWeb: [falcon, full, TIED],
RefinedWebModel: [falcon, full, TIED],
gpt2: [gpt2, full, TIED],
opt: [opt, full, TIED],
deepseek_v2: [llama],
deepseek_v3: [llama],
kimi_k2: [llama],
gpt_oss: [gptOss, otherSlides],
};
function keyValueHeads(f, heads, type) {
const old = ["falcon", "RefinedWebModel"].includes(type) && !f.flag("new_decoder_architecture");
if (old || type === "gpt_bigcode") return f.flag("multi_query", true) ? 1 : heads;
const shared = f.integer(NAMES.kvHeads, heads);
if (shared > heads || heads % shared) throw f.error(`${shared} key-value heads cannot be shared evenly by num_attention_heads=${heads}`);
return shared;
}
function headWidth(f, hidden, heads) {
const explicit = f.integer(["head_dim", "kv_channels"], null);
if (explicit === null && hidden % heads) throw f.error(`head_dim is missing, and hidden_size=${hidden} is not a multiple of num_attention_heads=${heads}`);
return explicit ?? hidden / heads;
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
const own = f.given("moe_intermediate_size");
const moe_intermediate = own ? f.integer(["moe_intermediate_size"]) : f.integer(["moe_intermediate_size", ...NAMES.intermediate]);
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
function layers(f, rule, n, kv_elements, mla, net) {
const found = kinds(f, rule, n);
if (mla) {
if (found.some((kind) => kind !== "full")) throw f.error(`kv_lora_rank is set, but not every layer is full attention (${short(found)})`);
return found.map(() => ({ kind: "mla", kv_elements: mla.kv_rank + mla.rope_dim, window: null }));
}
const slides = found.includes("sliding");
const window = slides ? f.integer(["sliding_window"], null) : null;
if (slides && window === null) throw f.error("layers use sliding attention, but sliding_window is missing or null");
if (found.includes("linear") && !net) throw f.error("layer_types has linear_attention, but linear_num_value_heads is missing: unknown state size");
return found.map((kind) => ({ kind, kv_elements: kind === "linear" ? 0 : kv_elements, window: kind === "sliding" ? window : null }));
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
const [weights, rule = full, defaults = {}] = Object.hasOwn(FAMILIES, type) ? FAMILIES[type] : [() => null, unknownRule];
return { f: new Fields(values, defaults, source), type, weights, rule };
}
function fromConfig(content) {
const { f, type, weights, rule } = enter(content);
for (const [field, why] of Object.entries(REFUSED)) {
if (truthy(f.values[field])) throw f.error(`${field}=${short(f.values[field])} means ${why}, which this reader does not model`);
}
const [n_layers, hidden, n_heads] = [f.integer(NAMES.layers), f.integer(NAMES.hidden), f.integer(NAMES.heads)];
const [mla, delta_net] = [latent(f), deltaNet(f)];
const n_kv_heads = keyValueHeads(f, n_heads, type);
const head_dim = mla ? mla.nope_dim + mla.rope_dim : headWidth(f, hidden, n_heads);
const moe = experts(f, n_layers);
const width = f.integer(NAMES.intermediate, moe ? null : 4 * hidden);
if (width === null && moe.dense_layers) throw f.error(`${NAMES.intermediate[0]} is missing, and ${moe.dense_layers} layers have a dense MLP`);
const model = {
name: f.values._name_or_path || "config.json", model_type: type, n_layers, hidden, n_heads, n_kv_heads, head_dim,
intermediate: width || moe.moe_intermediate, vocab: f.integer(["vocab_size"]), tied_embeddings: f.flag("tie_word_embeddings"),
layers: layers(f, rule, n_layers, 2 * n_kv_heads * head_dim, mla, delta_net), context: f.integer(NAMES.context, null), moe, mla, delta_net,
};
const beyond = weights(f);
return W.models.summary({ ...model, weights: beyond && { ...PLAIN, ...beyond } });
}
function parse(text) {
let content;
try {
content = JSON.parse(text);
} catch (error) {
throw new Error(text.trim() ? `This is not JSON (${error.message}); paste the whole config.json, from the first { to the last }.` : "Nothing was pasted; paste the whole config.json, from the first { to the last }.");
}
if (!isObject(content)) throw new Error(`This is ${Array.isArray(content) ? "a list" : `a ${typeof content}`}, not the object of a config.json; paste it from the first { to the last }.`);
return fromConfig(content);
}
Object.assign(W.models, { parse, fromConfig });
})(globalThis.labcoreWidgets);
// chart.js
(function (W) {
"use strict";
const { ui } = W;
const { svg, number } = ui;
const charts = (W.charts = {});
const SHORT = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
charts.tick = (value) => {
if (value === 0) return "0";
const [scale, prefix] = SHORT.find(([step]) => Math.abs(value) >= step * 0.9999) || SHORT[SHORT.length - 1];
return number(value / scale, 3) + prefix;
};
charts.scale = (low, high, from, to, log) => {
const f = log ? Math.log10 : (x) => x;
const place = (x) => from + ((f(x) - f(low)) / (f(high) - f(low))) * (to - from);
const invert = (at) => {
const u = f(low) + ((at - from) / (to - from)) * (f(high) - f(low));
return log ? 10 ** u : u;
};
return Object.assign(place, { low, high, log, invert, clamp: (x) => place(Math.min(high, Math.max(low, x))) });
};
charts.ticks = (scale, count) => {
const out = [];
if (scale.log) {
const [first, last] = [Math.ceil(Math.log10(scale.low) - 1e-9), Math.floor(Math.log10(scale.high) + 1e-9)];
const every = Math.max(1, Math.ceil((last - first + 1) / count));
for (let power = first; power <= last; power += every) out.push(10 ** power);
if (out.length >= 3) return out;
const fine = [];
for (let power = first - 1; power <= last; power++) for (const m of [1, 2, 5]) fine.push(m * 10 ** power);
return fine.filter((x) => x >= scale.low * 0.999 && x <= scale.high * 1.001);
}
const rough = (scale.high - scale.low) / count;
const unit = 10 ** Math.floor(Math.log10(rough));
const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough);
for (let x = Math.ceil(scale.low / step) * step; x <= scale.high * 1.0001; x += step) out.push(Number(x.toPrecision(12)));
return out;
};
charts.line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
charts.text = (x, y, label, attrs) => svg("text", { x, y, ...attrs }, label);
charts.path = (points, name) => svg("path", { d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), class: name });
charts.axes = (box, x, y, xTitle, yTitle) => {
const nodes = [];
for (const v of charts.ticks(x, box.width < 480 ? 4 : 7)) {
nodes.push(charts.line(x(v), box.top, x(v), box.bottom, "lc-grid"));
nodes.push(charts.text(x(v), box.bottom + 18, charts.tick(v), { "text-anchor": "middle", class: "lc-tick" }));
}
for (const v of charts.ticks(y, 5)) {
nodes.push(charts.line(box.left, y(v), box.right, y(v), "lc-grid"));
nodes.push(charts.text(box.left - 7, y(v) + 4, charts.tick(v), { "text-anchor": "end", class: "lc-tick" }));
}
nodes.push(charts.line(box.left, box.bottom, box.right, box.bottom, "lc-axis"));
nodes.push(charts.line(box.left, box.top, box.left, box.bottom, "lc-axis"));
nodes.push(charts.text((box.left + box.right) / 2, box.bottom + 40, xTitle, { "text-anchor": "middle", class: "lc-axis-title" }));
nodes.push(charts.text(box.left - 40, box.top - 14, yTitle, { class: "lc-axis-title" }));
return nodes;
};
const SHAPES = {
circle: "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0Z",
square: "M-6-6H6V6H-6Z",
triangle: "M0-8L7.5 6H-7.5Z",
diamond: "M0-8L8 0L0 8L-8 0Z",
};
charts.marker = (shape, x, y, hue, hollow) =>
svg("path", { d: SHAPES[shape], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `lc-marker lc-${hue}${hollow ? " lc-hollow" : ""}` });
charts.key = (shape, hue, hollow) =>
svg("svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, class: "lc-key", "aria-hidden": "true" }, charts.marker(shape, 0, 0, hue, hollow));
charts.legend = (points) =>
ui.el("ul", { class: "lc-keys" }, points.map((p) => ui.el("li", {}, charts.key(p.shape, p.hue, p.hollow), p.label)));
charts.root = (width, height, label, nodes) =>
svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "lc-chart" }, nodes);
charts.labels = (points, box, under = () => -Infinity) => {
const nodes = [];
let floor = -Infinity;
for (const p of [...points].sort((a, b) => a.y - b.y || b.x - a.x)) {
const wide = p.label.length * 8.2;
const right = p.x + 18 + wide < box.right;
const x = right ? p.x + 18 : p.x - 18;
const y = Math.min(box.bottom - 6, Math.max(p.y + 22, floor + 19, right ? 0 : under(x - wide) + 18));
floor = y;
nodes.push(charts.line(p.x, p.y, x + (right ? -3 : 3), y - 4, "lc-leader"));
nodes.push(charts.text(x, y, p.label, { "text-anchor": right ? "start" : "end", class: "lc-label" }));
}
return nodes;
};
})(globalThis.labcoreWidgets);
// roofline_chart.js
(function (W) {
"use strict";
const { charts, ui } = W;
const { number } = ui;
function range(ridge, points) {
const at = points.map((p) => p.I);
return [Math.min(0.7, ...at.map((I) => I * 0.6)), Math.min(ridge * 30, Math.max(ridge * 4, ...at.map((I) => I * 1.6)))];
}
charts.roofline = (spec, env, width) => {
const height = width < 480 ? 330 : 400;
const box = { left: 54, right: width - 12, top: 34, bottom: height - 48 };
box.width = box.right - box.left;
const beta = env[spec.bandwidth];
const roofs = [];
for (const r of spec.roofs) {
const F = env[r.peak];
if (F > 0 && !roofs.some((other) => other.F === F)) roofs.push({ ...r, F, main: r === spec.roofs[0] });
}
const points = spec.points.filter((p) => env[p.intensity] > 0).map((p) => ({ ...p, I: env[p.intensity] }));
const top = Math.max(...roofs.map((r) => r.F));
const xs = range(top / beta, points);
const x = charts.scale(xs[0], xs[1], box.left, box.right, true);
const y = charts.scale(xs[0] * beta, top * 2.2, box.bottom, box.top, true);
const attainable = (I, F) => Math.min(F, I * beta);
const nodes = charts.axes(box, x, y, "arithmetic intensity (FLOP/B), log", "attainable (FLOP/s), log");
for (const roof of [...roofs].reverse()) {
const ridge = roof.F / beta;
const name = roof.main ? "lc-roof" : "lc-roof lc-other";
if (roof.main) {
const under = [[x(x.low), box.bottom], [x(x.low), y(attainable(x.low, roof.F))], [x(ridge), y(roof.F)], [x(ridge), box.bottom]];
nodes.push(charts.path(under, "lc-bound"));
}
nodes.push(charts.path([[x(x.low), y(attainable(x.low, roof.F))], [x.clamp(ridge), y(attainable(ridge, roof.F))], [box.right, y(roof.F)]], name));
nodes.push(charts.text(box.right - 2, y(roof.F) - 8, `${roof.label} ${ui.format(roof.F, "FLOP/s")}`, { "text-anchor": "end", class: roof.main ? "lc-label" : "lc-tick" }));
if (roof.main) {
nodes.push(charts.line(x(ridge), y(roof.F), x(ridge), box.bottom, "lc-ridge"));
nodes.push(charts.text(x(ridge) + 6, box.bottom - 9, `ridge ${number(ridge)} FLOP/B`, ridgeSide(x(ridge), box)));
}
}
const slope = (Math.atan2(y(x.low * 10 * beta) - y(x.low * beta), x(x.low * 10) - x(x.low)) * 180) / Math.PI;
const [bx, by] = [x(x.low) + 14, y(x.low * beta) - 24];
nodes.push(charts.text(bx, by, ui.format(beta, "B/s"), { class: "lc-label", transform: `rotate(${slope.toFixed(1)} ${bx} ${by})` }));
const F = roofs[0].F;
const placed = points.map((p) => ({ ...p, x: x.clamp(p.I), y: y(attainable(p.I, F)) }));
const narrow = width < 480; // too little room beside the points: their names go below
if (!narrow) nodes.push(charts.labels(placed, box, (at) => (at > box.left ? y(attainable(x.invert(at), F)) : box.bottom)));
for (const p of placed) nodes.push(charts.marker(p.shape, p.x, p.y, p.hue, p.hollow));
const spoken = points.map((p) => `${p.label} ${number(p.I)} FLOP/B reaches ${ui.format(attainable(p.I, F), "FLOP/s")}`);
const label = `Roofline, log axes: ridge at ${number(F / beta)} FLOP/B under ${ui.format(F, "FLOP/s")}. ${spoken.join("; ")}.`;
return ui.el("div", {}, charts.root(width, height, label, nodes), narrow ? charts.legend(placed) : null);
};
const ridgeSide = (at, box) => (at > box.right - 130 ? { "text-anchor": "end", dx: -12, class: "lc-label" } : { class: "lc-label" });
})(globalThis.labcoreWidgets);
// memory_chart.js
(function (W) {
"use strict";
const { charts, ui } = W;
const { svg, el } = ui;
const GiB = 2 ** 30;
function patterns(prefix, segments) {
return svg("defs", {}, segments.map((s, i) =>
svg("pattern", { id: `${prefix}-${i}`, width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${[45, 135, 0, 90][i % 4]})` },
svg("rect", { width: 8, height: 8, class: `lc-fill lc-${s.hue}` }), s.pattern ? svg("rect", { width: 3, height: 8, class: "lc-hatch" }) : null)));
}
charts.memory = (spec, env, width) => {
const prefix = ui.uid("pattern");
const total = env[spec.total];
const segments = spec.segments.map((s) => ({ ...s, bytes: Math.max(0, env[s.value] || 0) })).filter((s) => s.bytes > 0);
const used = segments.reduce((sum, s) => sum + s.bytes, 0);
const box = { left: 8, right: width - 8, top: 40, bottom: 104, width: width - 16 };
const x = charts.scale(0, Math.max(total, used) * 1.02, box.left, box.right, false);
const nodes = [patterns(prefix, segments)];
for (const v of charts.ticks(x, width < 480 ? 4 : 8)) {
nodes.push(charts.line(x(v), box.bottom, x(v), box.bottom + 5, "lc-axis"));
nodes.push(charts.text(x(v), box.bottom + 20, String(ui.number(v / 1e9)), { "text-anchor": v === 0 ? "start" : "middle", class: "lc-tick" }));
}
nodes.push(charts.text((box.left + box.right) / 2, box.bottom + 42, "memory (GB, 10⁹ bytes)", { "text-anchor": "middle", class: "lc-axis-title" }));
let at = 0;
segments.forEach((s, i) => {
const [from, to] = [x(at), x(at + s.bytes)];
nodes.push(svg("rect", { x: from, y: box.top, width: Math.max(1, to - from), height: box.bottom - box.top, fill: `url(#${prefix}-${i})`, class: "lc-segment" }));
at += s.bytes;
});
nodes.push(charts.line(x(total), box.top - 10, x(total), box.bottom + 4, "lc-limit"));
nodes.push(charts.text(x(total) - 5, box.top - 14, `${spec.label}: ${ui.format(total, "B")}`, { "text-anchor": "end", class: "lc-label" }));
const texts = segments.map((s) => `${s.label} ${ui.format(s.bytes, "B")}`);
const drawing = charts.root(width, box.bottom + 52, `Memory: ${texts.join("; ")}; of ${ui.format(total, "B")}.`, nodes);
const key = segments.map((s, i) =>
el("li", {}, svg("svg", { width: 18, height: 18, "aria-hidden": "true" }, svg("rect", { width: 18, height: 18, fill: `url(#${prefix}-${i})`, class: "lc-segment" })), el("span", {}, s.label), el("span", { class: "lc-amount" }, ui.format(s.bytes, "B"))));
return el("div", {}, drawing, el("ul", { class: "lc-legend" }, key));
};
})(globalThis.labcoreWidgets);
// curve_chart.js
(function (W) {
"use strict";
const { charts, ui } = W;
charts.curve = (spec, env, width, steps, given, range) => {
const height = width < 480 ? 300 : 360;
const box = { left: 54, right: width - 14, top: 34, bottom: height - 48, width: width - 68 };
const [xlog, ylog] = spec.log;
const samples = Array.from({ length: 81 }, (_, i) => {
const u = i / 80;
return xlog ? range[0] * (range[1] / range[0]) ** u : range[0] + (range[1] - range[0]) * u;
});
const runs = samples.map((v) => [v, W.steps.run(steps, { ...given, [spec.input]: v })]);
const good = (v) => Number.isFinite(v) && (!ylog || v > 0);
const values = [...runs.map(([, e]) => e), env].flatMap((e) => spec.results.map((r) => e[r.value])).filter(good);
if (!values.length) return ui.el("p", { class: "labcore-note", text: "Nothing to draw for these inputs." });
let [low, high] = [Math.min(...values), Math.max(...values)];
if (ylog) [low, high] = [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))];
else [low, high] = [Math.min(0, low), high + (high - Math.min(0, low) || 1) * 0.06];
const x = charts.scale(range[0], range[1], box.left, box.right, xlog);
const y = charts.scale(low, high, box.bottom, box.top, ylog);
const nodes = charts.axes(box, x, y, spec.xTitle + (xlog ? ", log" : ""), spec.yTitle + (ylog ? ", log" : ""));
const here = x.clamp(env[spec.input]);
nodes.push(charts.line(here, box.top, here, box.bottom, "lc-ridge"));
const points = [];
spec.results.forEach((r, i) => {
const drawn = runs.filter(([, e]) => good(e[r.value])).map(([v, e]) => [x(v), y(e[r.value])]);
nodes.push(charts.path(drawn, `lc-curve lc-${r.hue || "decode"}${i ? " lc-dashed" : ""}`));
if (good(env[r.value])) points.push({ ...r, x: here, y: y(env[r.value]), shape: ["circle", "square", "triangle"][i % 3], hue: r.hue || "decode" });
});
nodes.push(charts.labels(points, box), points.map((p) => charts.marker(p.shape, p.x, p.y, p.hue)));
const label = points.map((p) => `${p.label} ${ui.format(env[p.value], spec.unit)}`).join("; ");
return charts.root(width, height, `${spec.yTitle} against ${spec.xTitle}. Now: ${label}.`, nodes);
};
})(globalThis.labcoreWidgets);
// inputs.js
(function (W) {
"use strict";
const { ui } = W;
const { el, number } = ui;
const inputs = (W.inputs = {});
function field(spec, control, body, ...more) {
control.id = control.id || ui.uid(spec.id);
const hint = spec.hint ? el("p", { class: "lc-hint", id: `${control.id}-hint` }, spec.hint) : null;
if (hint) control.setAttribute("aria-describedby", hint.id);
const label = el("label", { for: control.id }, spec.label, spec.unit ? el("span", { class: "lc-unit" }, ` (${spec.unit})`) : null);
return el("div", { class: "lc-field" }, label, body || control, more, hint);
}
inputs.stops = ({ low, high, log, integer, step }) => {
const all = [low, high];
if (!log) {
const unit = step || (integer ? Math.max(1, Math.round((high - low) / 200)) : (high - low) / 200);
for (let v = low; v <= high + unit / 1e6; v += unit) all.push(Number(v.toPrecision(12)));
} else if (integer && high <= 2 ** 24) {
for (let v = 1; v <= high; v *= 2) all.push(v, ...(v > 1 ? [1.5 * v] : []));
} else {
for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) all.push(10 ** p, 2 * 10 ** p, 5 * 10 ** p);
}
return [...new Set(all)].filter((v) => v >= low && v <= high).sort((a, b) => a - b);
};
inputs.parse = (text, { label, low, high, integer }) => {
const match = /^([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([kKM]?)$/.exec(text.replace(/[,_\s]/g, ""));
const value = match ? Number(match[1]) * { "": 1, k: 1e3, K: 1024, M: 1e6 }[match[2]] : NaN;
const range = `${number(low)} to ${number(high)}`;
if (!Number.isFinite(value)) return { error: `${label}: “${text}” is not a number; write one from ${range}.` };
if (integer && !Number.isInteger(value)) return { error: `${label}: ${text} is not whole; write a whole number from ${range}.` };
if (value < low || value > high) return { error: `${label}: ${number(value)} is out of range; write a number from ${range}.` };
return { value };
};
inputs.number = (given, changed) => {
const scale = given.scale || 1;
const shownAs = (v) => v / scale;
const spec = { ...given, low: shownAs(given.low), high: shownAs(given.high), step: given.step && shownAs(given.step) };
const stops = inputs.stops(spec);
let value = shownAs(given.value);
const box = el("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", class: "lc-box" });
const error = el("p", { class: "labcore-error lc-hint", role: "alert", id: ui.uid("error"), hidden: true });
const slider = el("input", { type: "range", min: 0, max: stops.length - 1, step: 1, "aria-label": `${spec.label} slider` });
const nearest = () => stops.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(stops[best] - value) ? i : best), 0);
const show = () => {
slider.value = nearest();
slider.setAttribute("aria-valuetext", `${number(value)} ${spec.unit || ""}`.trim());
};
const write = () => (box.value = plain(value));
const judge = (message) => {
error.textContent = message || "";
error.hidden = !message;
box.setAttribute("aria-invalid", message ? "true" : "false");
box.setAttribute("aria-errormessage", error.id);
};
slider.addEventListener("input", () => {
value = stops[Number(slider.value)];
judge();
write();
show();
changed();
});
box.addEventListener("input", () => {
const read = inputs.parse(box.value, spec);
judge(read.error);
if (read.error) return;
value = read.value;
show();
changed();
});
box.addEventListener("change", () => {
if (error.hidden) write();
});
const set = (v) => {
value = shownAs(v);
judge();
write();
show();
};
set(given.value);
return { node: field(spec, box, el("div", { class: "lc-pair" }, slider, box), error), get: () => value * scale, set };
};
const plain = (v) => (Math.abs(v) >= 1e6 && !Number.isInteger(v / 1) ? v.toExponential(3) : number(v, 6));
inputs.select = (spec, changed, choices) => {
const select = el("select", { onchange: changed }, choices.map((c) => el("option", { value: c.value }, c.label)));
select.value = spec.value;
return { node: field(spec, select), select, get: () => select.value, set: (v) => (select.value = v) };
};
inputs.choice = (spec, changed) => inputs.select(spec, changed, spec.choices);
inputs.hardware = (spec, changed) => {
const known = globalThis.labcoreData.facts.hardware;
return inputs.select(spec, changed, (spec.choices || Object.keys(known)).map((id) => ({ value: id, label: known[id].name })));
};
inputs.peak = (choice, device) => choice.peaks.map((p) => device.peak[p]).find((f) => f > 0);
inputs.precision = (spec, changed) => {
const control = inputs.select(spec, changed, spec.choices);
control.refresh = (state) => {
const device = globalThis.labcoreData.facts.hardware[state[spec.of]];
spec.choices.forEach((choice, i) => {
const there = inputs.peak(choice, device) > 0;
control.select.options[i].disabled = !there;
control.select.options[i].text = there ? choice.label : `${choice.label}: not on this device`;
});
if (control.select.selectedOptions[0].disabled) control.set(spec.choices.find((c) => inputs.peak(c, device) > 0).value);
};
return control;
};
inputs.model = (spec, changed) => {
const known = globalThis.labcoreData.facts.models;
const PASTED = "pasted";
let pasted = null;
const select = el("select", {}, Object.keys(known).map((id) => el("option", { value: id }, known[id].name)), el("option", { value: PASTED }, "a config.json …"));
const text = el("textarea", { rows: 6, spellcheck: "false", id: ui.uid("config"), placeholder: '{"model_type": "llama", "num_hidden_layers": 32, …}' });
const error = el("p", { class: "labcore-error lc-hint", role: "alert", id: ui.uid("error") });
text.setAttribute("aria-errormessage", error.id);
const told = el("p", { class: "lc-hint", role: "status" });
const use = () => {
try {
pasted = W.models.parse(text.value);
error.textContent = "";
told.textContent = W.models.describe(pasted);
text.setAttribute("aria-invalid", "false");
select.value = PASTED;
last = PASTED;
changed();
} catch (problem) {
error.textContent = problem.message;
told.textContent = pasted ? `Still using the last good one: ${W.models.describe(pasted)}` : "";
text.setAttribute("aria-invalid", "true");
}
};
const file = el("input", { type: "file", accept: ".json,application/json", id: ui.uid("file"), onchange: async () => {
if (!file.files.length) return;
text.value = await file.files[0].text();
use();
} });
const paste = el("div", { class: "lc-paste", hidden: true },
el("label", { for: text.id }, "Paste a Hugging Face config.json"), text,
el("label", { for: file.id }, "or open the file"), file,
ui.button("Use this config", use), error, told);
let last = spec.value;
select.value = spec.value;
select.addEventListener("change", () => {
paste.hidden = select.value !== PASTED;
if (select.value === PASTED && !pasted) return text.focus(); // nothing to compute yet
last = select.value;
changed();
});
const set = (v) => {
if (typeof v === "object") {
text.value = JSON.stringify(v, null, 1);
paste.hidden = false;
return use();
}
last = select.value = v;
paste.hidden = true;
};
set(spec.value);
return { node: field(spec, select, null, paste), get: () => last, set, model: () => (last === PASTED ? pasted : known[last]) };
};
})(globalThis.labcoreWidgets);
// calculator.js
(function (W) {
"use strict";
const { ui, charts, inputs } = W;
const { el } = ui;
function environment(spec, state, model) {
const env = {};
const device = (id) => globalThis.labcoreData.facts.hardware[id];
const ofKind = (...kinds) => spec.inputs.filter((i) => kinds.includes(i.kind));
for (const i of ofKind("number")) env[i.id] = state[i.id];
for (const i of ofKind("choice")) Object.assign(env, i.choices.find((c) => c.value === state[i.id]).set);
for (const i of ofKind("hardware")) {
const { bandwidth, memory_bytes, usable_bytes, peak } = device(state[i.id]);
Object.assign(env, { beta: bandwidth, memory: usable_bytes || memory_bytes });
for (const [dtype, rate] of Object.entries(peak)) env[`peak_${dtype}`] = rate;
}
for (const i of ofKind("precision")) {
const choice = i.choices.find((c) => c.value === state[i.id]);
Object.assign(env, choice.set, { F: inputs.peak(choice, device(state[i.of])) });
}
for (const i of ofKind("model")) Object.assign(env, W.models.environment(model, env));
return env;
}
function row(result, env) {
const marker = result.shape ? charts.key(result.shape, result.hue, result.hollow) : null;
const there = env[result.id] != null && W.steps.holds(result.when, env);
const shown = there ? ui.format(env[result.id], result.unit) : W.steps.sentence(result.otherwise, env) || "—";
return el("tr", {}, el("th", { scope: "row" }, marker, result.label), el("td", { class: there ? "lc-value" : "lc-absent", "data-result": result.id }, shown));
}
function table(spec, env) {
const rows = spec.results.filter((r) => !r.show || W.steps.holds(r.show, env)).map((r) => row(r, env));
return [el("caption", { class: "labcore-sr" }, `Results: ${spec.title}`), el("tbody", {}, rows)];
}
function formulaList(spec) {
const ids = [...new Set(spec.steps.map((s) => s.formula).filter(Boolean))];
const known = globalThis.labcoreFormulas;
return el("details", { class: "lc-formulas" }, el("summary", {}, "The formulas behind it"),
el("ul", {}, ids.map((id) => el("li", {}, el("code", {}, `formula["${id}"]`), ` ${known[id].title}`))));
}
function render({ el: host, spec, emit }) {
const controls = {};
const live = ui.live();
const title = el("p", { class: "labcore-title", id: ui.uid("title") }, spec.title);
const figure = el("div", { class: "lc-figure" });
const summary = el("p", { class: "lc-summary" });
const results = el("table", { class: "labcore-table lc-results" });
let last;
const state = () => Object.fromEntries(spec.inputs.map((i) => [i.id, controls[i.id].get()]));
const draw = () => {
const width = Math.floor(figure.clientWidth) || 640;
const kind = spec.chart && spec.chart.kind;
if (!last || !kind) return;
const input = spec.inputs.find((i) => i.id === spec.chart.input);
figure.replaceChildren(charts[kind](spec.chart, last.env, width, spec.steps, last.given, input && [input.low, input.high]));
};
const update = () => {
for (const c of Object.values(controls)) if (c.refresh) c.refresh(state());
const now = state();
const model = Object.values(controls).find((c) => c.model);
const given = environment(spec, now, model && model.model());
const env = W.steps.run(spec.steps, given);
last = { env, given };
const text = W.steps.sentence(spec.summary, env);
summary.textContent = text;
live.say(text);
results.replaceChildren(...table(spec, env));
draw();
emit({ inputs: now, results: Object.fromEntries(spec.results.map((r) => [r.id, Number.isFinite(env[r.id]) ? env[r.id] : null])) });
};
for (const i of spec.inputs) controls[i.id] = inputs[i.kind](i, update);
const reset = ui.button("Reset", () => {
for (const i of spec.inputs) controls[i.id].set(i.value);
update();
});
const form = el("form", { class: "lc-inputs", "aria-labelledby": title.id, onsubmit: (e) => e.preventDefault() }, spec.inputs.map((i) => controls[i.id].node), reset);
host.append(title, spec.about ? el("p", { class: "labcore-note" }, spec.about) : "",
summary, el("div", { class: "lc-columns" }, form, el("div", { class: "lc-outcome" }, figure, results)), formulaList(spec), live.node);
update();
const watch = new ResizeObserver(() => requestAnimationFrame(draw));
watch.observe(figure);
return () => watch.disconnect();
}
W.calculator = { environment };
W.register("calculator", { render });
})(globalThis.labcoreWidgets);
