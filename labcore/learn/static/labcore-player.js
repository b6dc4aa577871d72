// Generated from labcore/learn/js/player by `python -m labcore.learn.scripts`: read and edit there.
(function (W) {
"use strict";
const { el, button, storage, number, uid } = W.ui;
const CHANGED = "labcore:predict";
const withUnit = (value, unit) => number(value) + (unit === "1" ? "" : ` ${unit}`);
function verdict(mine, truth) {
if (mine === truth) return "exactly right";
if (!(mine / truth > 0)) return "of the wrong sign or size altogether";
const ratio = mine / truth;
const percent = Math.abs(ratio - 1) * 100;
if (percent < 100) return `${number(percent, 2)} % too ${ratio > 1 ? "high" : "low"}`;
return `${number(ratio, 2)} times the result`;
}
function render({ el: host, spec, emit }) {
const key = `predict.${spec.id}`;
const body = el("div", {});
const form = () => {
const id = uid("predict");
const kept = storage.get(key);
const box = el("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", class: "lq-number", value: kept ? String(kept.value) : "" });
const error = el("p", { class: "labcore-note labcore-error", role: "alert" });
const keep = (event) => {
event.preventDefault();
const given = W.grade.parse(box.value, spec.unit);
error.textContent = given.error || "";
if (given.error) return;
storage.set(key, { value: given.value, unit: spec.unit });
emit({ id: spec.id, value: given.value, unit: spec.unit });
dispatchEvent(new CustomEvent(CHANGED, { detail: { id: spec.id, from: host } }));
draw();
body.querySelector("button")?.focus();
};
return el("form", { novalidate: true, onsubmit: keep }, el("p", { class: "lq-row" }, el("label", { for: id, text: `Your number${spec.unit === "1" ? "" : ` in ${spec.unit}`}` }), box, button("Keep it", null, { type: "submit" })), error);
};
function draw(editing = false) {
const mine = storage.get(key);
const known = mine && mine.unit === spec.unit;
const revealed = spec.reveal !== undefined;
const change = !revealed && known && !editing && button("Change it", () => {
draw(true);
body.querySelector("input").focus();
});
const rows = revealed && el("p", { class: "lq-head" },
el("span", { class: "lp-mine", text: known ? `You predicted ${withUnit(mine.value, spec.unit)}` : "You made no prediction" }), " · ",
el("strong", { text: `computed ${withUnit(spec.reveal, spec.unit)}` }),
known ? ` · your number is ${verdict(mine.value, spec.reveal)}.` : ".");
const stated = !revealed && known && !editing && el("p", {}, "You predicted ", el("strong", { text: withUnit(mine.value, spec.unit) }), ". The result comes below. ", change);
body.replaceChildren(...[rows, stated, !revealed && (!known || editing) && form()].filter(Boolean));
}
const notice = spec.reveal === undefined && storage.notice();
const title = spec.reveal === undefined ? "Predict first. " : "Predicted and computed. ";
host.append(el("p", {}, el("strong", { text: title }), spec.question), body, ...(notice ? [notice] : []));
draw();
const follow = (event) => event.detail.id === spec.id && event.detail.from !== host && draw();
addEventListener(CHANGED, follow);
return () => removeEventListener(CHANGED, follow);
}
W.register("predict", { render });
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, svg, uid, number } = W.ui;
const COLOURS = ["decode", "prefill", "kv", "highlight", "waste"];
function blocksAt(spec, step) {
const state = { tables: {}, lengths: {}, refs: Array(spec.num_blocks).fill(0), touched: new Set() };
spec.steps.slice(0, step + 1).forEach(({ events }, number) => {
for (const e of events) {
const table = state.tables[e.seq] || [];
const whole = e.op === "free" || e.op === "preempt";
if (number === step) for (const b of whole ? table : [e.block, e.to, e.op === "append" ? table.at(-1) : undefined]) state.touched.add(b);
if (e.op === "allocate" || e.op === "share") {
state.refs[e.block] += 1;
state.tables[e.seq] = [...table, e.block];
state.lengths[e.seq] ??= 0;
} else if (e.op === "append") state.lengths[e.seq] += e.tokens;
else if (e.op === "copy") {
state.refs[e.block] -= 1;
state.refs[e.to] = 1;
table[table.indexOf(e.block)] = e.to;
} else {
for (const b of table) state.refs[b] -= 1;
delete state.tables[e.seq];
delete state.lengths[e.seq];
}
}
});
return state;
}
function blocks(spec) {
const seqs = [...new Set(spec.steps.flatMap((s) => s.events.map((e) => e.seq)))];
const colour = (seq) => `lp-${COLOURS[seqs.indexOf(seq) % COLOURS.length]}`;
const pool = el("div", { class: "lp-pool" });
const tables = el("div", { class: "lp-tables" });
function cell(block, state) {
const owners = Object.keys(state.tables).filter((s) => state.tables[s].includes(block));
const held = owners.map((s) => Math.min(spec.block_size, Math.max(0, state.lengths[s] - state.tables[s].indexOf(block) * spec.block_size)));
const filled = owners.length ? Math.max(...held) : 0;
const many = state.refs[block];
return el("div", { class: `lp-block ${owners.length ? colour(owners[0]) : "lp-free"}${state.touched.has(block) ? " lp-now" : ""}` },
el("span", { class: "lp-fill", style: { width: `${(100 * filled) / spec.block_size}%` } }),
el("span", { class: "lp-id", text: String(block) }),
el("span", { class: "lp-owner", text: owners.length ? owners.join(" ") : "free" }),
many > 1 && el("span", { class: "lp-ref", title: `${many} sequences hold this block`, text: `×${many}` }));
}
return {
node: el("div", {}, el("p", { class: "lp-caption", text: `Pool of ${spec.num_blocks} blocks, ${spec.block_size} tokens each` }), pool, el("p", { class: "lp-caption", text: "Block tables" }), tables),
show(step) {
const state = blocksAt(spec, step);
pool.replaceChildren(...state.refs.map((_, block) => cell(block, state)));
const rows = Object.entries(state.tables).map(([seq, table]) =>
el("p", { class: "lp-table" }, el("strong", { text: seq }), ` ${state.lengths[seq]} tokens → `, table.map((b) => el("span", { class: `lp-entry ${colour(seq)}`, text: String(b) }))));
tables.replaceChildren(...(rows.length ? rows : [el("p", { class: "lp-table", text: "no sequence holds a block" })]));
},
};
}
function gantt(spec) {
const [left, cellW, cellH] = [52, Math.max(14, Math.min(34, Math.floor(620 / spec.steps.length))), 30];
const [width, height] = [left + cellW * spec.steps.length + 8, cellH * spec.slots + 44];
const hatch = uid("hatch");
const chart = svg("svg", { class: "lp-svg", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
svg("defs", {}, svg("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { width: 2, height: 6, class: "lp-stripe" }))));
const columns = spec.steps.map((step, i) => {
const busy = new Map(step.events.map((e) => [e.slot, e]));
const cells = [...Array(spec.slots).keys()].map((slot) => {
const e = busy.get(slot);
const box = { x: left + i * cellW + 1, y: slot * cellH + 1, width: cellW - 2, height: cellH - 2 };
return [svg("rect", { ...box, class: `lp-cell lp-${e ? e.kind : "idle"}` }),
e?.kind === "prefill" && svg("rect", { ...box, fill: `url(#${hatch})` }),
e && cellW > 17 && svg("text", { x: box.x + box.width / 2, y: box.y + cellH / 2 + 4, class: `lp-in lp-${e.kind}`, text: e.request })];
});
return svg("g", {}, cells);
});
const cursor = svg("rect", { class: "lp-cursor", y: 0, width: cellW, height: cellH * spec.slots });
const every = Math.max(1, Math.ceil(36 / cellW));
chart.append(...[...Array(spec.slots).keys()].map((slot) => svg("text", { x: 0, y: slot * cellH + 20, text: `slot ${slot}` })), ...columns, cursor,
...spec.steps.flatMap((_, i) => (i % every ? [] : [svg("text", { x: left + (i + 0.5) * cellW, y: cellH * spec.slots + 18, "text-anchor": "middle", text: String(i) })])),
svg("text", { x: left, y: cellH * spec.slots + 38, text: `engine ${spec.step_unit}` }));
const key = (kind, label) => el("li", {}, el("span", { class: `lp-key lp-${kind}` }), label);
const box = el("div", { class: "lp-scroll", tabindex: "0", role: "region", "aria-label": "Gantt chart" }, chart);
return {
node: el("div", {}, el("ul", { class: "lp-legend" }, key("prefill", "prefill (hatched)"), key("decode", "decode"), key("idle", "idle slot")), box),
show(step) {
columns.forEach((column, i) => column.setAttribute("class", i > step ? "lp-future" : ""));
cursor.setAttribute("x", left + step * cellW);
const x = left + step * cellW;
if (x < box.scrollLeft || x + cellW > box.scrollLeft + box.clientWidth) box.scrollLeft = x - box.clientWidth / 2;
},
};
}
const MARKS = { accepted: "✓", rejected: "✗", resampled: "↻", bonus: "+" };
const chip = (kind, token) => el("span", { class: `lp-chip lp-${kind}` }, el("span", { class: "lp-mark", text: MARKS[kind] }), token.replace(/ /g, "␣").replace(/\n/g, "⏎"), el("span", { class: "labcore-sr", text: ` ${kind}` }));
function outcome(e) {
const kinds = e.drafted.map((token, i) => [i < e.accepted ? "accepted" : "rejected", token]);
return [...kinds, ...["resampled", "bonus"].filter((k) => k in e).map((k) => [k, e[k]])];
}
function tokens(spec) {
const tape = el("p", { class: "lp-tape" });
const round = el("p", { class: "lp-tape" });
const rounds = spec.steps.map((s) => s.events.flatMap(outcome));
return {
node: el("div", {}, el("p", { class: "lp-caption", text: "This round" }), round, el("p", { class: "lp-caption", text: "Text so far" }), tape,
el("ul", { class: "lp-legend" }, Object.entries(MARKS).map(([kind, mark]) => el("li", {}, el("span", { class: `lp-chip lp-${kind}`, text: mark }), ` ${kind}`)))),
show(step) {
round.replaceChildren(...(rounds[step].length ? rounds[step].map((r) => chip(...r)) : ["—"]));
tape.replaceChildren(...rounds.slice(0, step + 1).flat().filter(([kind]) => kind !== "rejected").map((r) => chip(...r)));
},
};
}
function tiles(spec) {
const rows = Math.ceil(spec.rows / spec.tile[0]);
const columns = Math.ceil(spec.columns / spec.tile[1]);
const size = Math.max(16, Math.min(46, Math.floor(300 / Math.max(rows, columns))));
const cells = new Map();
const chart = svg("svg", { class: "lp-svg", viewBox: `0 0 ${columns * size + 22} ${rows * size + 26}`, width: columns * size + 22, height: rows * size + 26, "aria-hidden": "true" });
for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
const cell = svg("rect", { x: 20 + c * size, y: 20 + r * size, width: size - 2, height: size - 2 });
const mark = svg("text", { x: 20 + c * size + size / 2 - 1, y: 20 + r * size + size / 2 + 4, class: "lp-in" });
cells.set(`${r},${c}`, [cell, mark]);
chart.append(cell, mark);
}
chart.append(svg("text", { x: 20, y: 13, text: `keys → ${number(spec.columns)}` }), svg("text", { x: 0, y: 0, transform: "translate(12 22) rotate(90)", text: `queries → ${number(spec.rows)}` }));
const values = el("p", { class: "lp-values" });
return {
node: el("div", { class: "lp-tiles" }, chart, values),
show(step) {
for (const [cell, mark] of cells.values()) {
cell.setAttribute("class", "lp-cell lp-idle");
mark.textContent = "";
}
let last = {};
spec.steps.slice(0, step + 1).forEach(({ events }, i) => {
for (const e of events) {
const [cell, mark] = cells.get(`${e.row},${e.column}`);
cell.setAttribute("class", `lp-cell lp-${i === step ? "current" : e.skipped ? "skipped" : "done"}`);
mark.textContent = e.skipped ? "×" : i === step ? "●" : "";
last = { ...last, ...e.values };
}
});
values.textContent = Object.entries(last).map(([name, value]) => `${name} = ${number(value)}`).join("   ");
},
};
}
W.views = { blocks, gantt, tokens, tiles };
W.blocksAt = blocksAt;
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, button, number, uid, live } = W.ui;
const SPEEDS = [0.5, 1, 2, 5, 10]; // steps a second
function table(spec, go) {
const head = ["step", "what happens", ...spec.counters.map((c) => c.label + (c.unit === "1" ? "" : ` (${c.unit})`))];
const rows = spec.steps.map((step, i) => {
const cells = [step.text, ...spec.counters.map((c) => number(step.counters[c.name] / c.scale))];
return el("tr", {}, el("td", {}, button(String(i), () => go(i), { "aria-label": `Go to step ${i}` })), cells.map((text) => el("td", { text })));
});
return el("div", { class: "lp-scroll", tabindex: "0", role: "region", "aria-label": "The trace as a table" },
el("table", { class: "lq-table labcore-table" }, el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, rows)));
}
function render({ el: host, spec, emit }) {
const last = spec.steps.length - 1;
const view = W.views[spec.view](spec);
const voice = live();
const id = uid("step");
let step = -1;
let timer = null;
const play = button("Play", () => (timer ? pause() : start()), { class: "labcore-button labcore-primary" });
const scrubber = el("input", { id, type: "range", min: 0, max: last, step: 1, value: "0", oninput: () => go(+scrubber.value) });
const speed = el("select", { "aria-label": "Speed", onchange: () => timer && start() }, SPEEDS.map((s) => el("option", { value: String(s), selected: s === 1, text: `${s} ${s > 1 ? "steps" : "step"}/s` })));
const what = el("p", { class: "lp-what" });
const counters = spec.counters.map((c) => [c, el("dd", {})]);
const listing = el("details", { class: "lp-listing" }, el("summary", { text: "Every step as a table" }));
listing.addEventListener("toggle", () => listing.open && listing.children.length === 1 && listing.append(table(spec, go)));
function go(to) {
const next = Math.max(0, Math.min(last, to));
if (next === step) return;
step = next;
view.show(step);
scrubber.value = String(step);
scrubber.setAttribute("aria-valuetext", `step ${step} of ${last}: ${spec.steps[step].text}`);
what.replaceChildren(el("strong", { text: `Step ${step} of ${last}. ` }), spec.steps[step].text);
for (const [c, node] of counters) node.textContent = number(spec.steps[step].counters[c.name] / c.scale) + (c.unit === "1" ? "" : ` ${c.unit}`);
emit({ step });
}
function pause() {
clearInterval(timer);
timer = null;
play.textContent = "Play";
voice.say(what.textContent);
}
function start() {
clearInterval(timer);
if (step === last) go(0);
play.textContent = "Pause";
timer = setInterval(() => {
go(step + 1);
if (step === last || !host.isConnected) pause();
}, 1000 / +speed.value);
}
const by = (to) => {
pause();
go(to);
voice.say(what.textContent);
};
const KEYS = { " ": () => play.click(), ArrowLeft: () => by(step - 1), ArrowRight: () => by(step + 1), Home: () => by(0), End: () => by(last) };
const stage = el("div", { class: "lp-stage", tabindex: "0", role: "group", "aria-label": `${spec.title}: space plays, arrows step, Home and End jump` }, view.node);
stage.addEventListener("keydown", (event) => {
if (event.target !== stage || !KEYS[event.key]) return;
event.preventDefault();
KEYS[event.key]();
});
host.append(
el("p", { class: "labcore-title", text: spec.title }), stage, what,
el("dl", { class: "lp-counters" }, counters.map(([c, node]) => el("div", {}, el("dt", { text: c.label }), node))),
el("div", { class: "lp-controls" }, play, button("‹", () => by(step - 1), { "aria-label": "Step back" }), button("›", () => by(step + 1), { "aria-label": "Step forward" }), el("label", { for: id, class: "labcore-sr", text: "Step" }), scrubber, speed),
listing, el("p", { class: "labcore-note", text: `Recorded: ${spec.source}` }), voice.node);
go(0);
return () => clearInterval(timer);
}
W.register("player", { render });
globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
