// Generated from labcore/learn/js/quiz by `python -m labcore.learn.scripts`: read and edit there.
(function (W) {
"use strict";
const LADDER = [0, 3, 7, 14, 21];
const TOP = 21;
const RETURN = 3;
const MS = 86400000;
const number = (day) => Date.parse(`${day}T00:00:00Z`) / MS; // no time zone enters the arithmetic
const add = (day, days) => new Date((number(day) + days) * MS).toISOString().slice(0, 10);
const between = (from, to) => number(to) - number(from);
function today() {
const now = new Date();
const two = (n) => String(n).padStart(2, "0");
return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}
const isDay = (text) => typeof text === "string" && /^\d{4}-\d\d-\d\d$/.test(text) && Number.isFinite(number(text)) && add(text, 0) === text;
const below = (rung) => LADDER[Math.max(0, LADDER.indexOf(rung) - 1)];
const enter = (rung, start) => ({ rung, base: 0, since: start });
function due(place, interview) {
if (place.rung === null) return null;
let wait = place.rung - place.base;
if (interview && interview > place.since) {
const needed = TOP - place.base;
const available = between(place.since, interview) - 1;
if (available < needed) wait = Math.min(wait, Math.max(1, Math.floor((wait * available) / needed)));
}
return add(place.since, wait);
}
function answer(place, outcome, day, interview) {
if (outcome === "fail") return { rung: RETURN, base: 0, since: day };
const when = due(place, interview);
if (when === null || day < when) return place; // practice
if (outcome === "hold") {
const rung = Math.max(RETURN, place.rung);
return { rung, base: below(rung), since: day };
}
if (place.rung === TOP) return { rung: null, base: TOP, since: day };
return { rung: LADDER[LADDER.indexOf(place.rung) + 1], base: place.rung, since: day };
}
const words = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const spoken = (day) => words.format(new Date(number(day) * MS));
W.ladder = { LADDER, add, between, today, isDay, enter, due, answer, spoken };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { ladder } = W;
const { storage } = W.ui;
const KEY = "progress";
const fresh = () => ({ version: 1, interview: null, started: {}, items: {}, days: {} });
const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x);
const count = (x) => Number.isInteger(x) && x >= 0;
const optionalDay = (x) => x === null || ladder.isDay(x);
const OUTCOMES = ["pass", "hold", "fail"];
const RULES = {
rung: (x) => x === null || ladder.LADDER.includes(x),
base: (x) => ladder.LADDER.includes(x),
since: ladder.isDay,
n: count,
right: count,
last: (x) => OUTCOMES.includes(x),
missed: optionalDay,
late: count,
};
function wrongRecord(where, record, fields) {
if (!isObject(record)) return `${where} is not a record`;
const bad = fields.find((f) => !RULES[f](record[f]));
if (bad) return `${where}: ${bad} is ${JSON.stringify(record[bad]) ?? "missing"}`;
return record.right > record.n ? `${where}: more right answers than answers` : null;
}
function wrong(data) {
if (!isObject(data)) return "it holds no progress";
if (data.version !== 1) return `its version is ${JSON.stringify(data.version) ?? "missing"}, this book reads version 1`;
if (!optionalDay(data.interview)) return `the interview date is ${JSON.stringify(data.interview)}`;
for (const part of ["started", "items", "days"]) if (!isObject(data[part])) return `${part} is missing`;
for (const [quiz, day] of Object.entries(data.started)) if (!ladder.isDay(day)) return `started ${quiz} is ${JSON.stringify(day)}`;
for (const [id, item] of Object.entries(data.items)) {
const found = wrongRecord(`item ${id}`, item, ["rung", "base", "since", "n", "right", "last", "missed"]);
if (found) return found;
}
for (const [day, record] of Object.entries(data.days)) {
const found = ladder.isDay(day) ? wrongRecord(`day ${day}`, record, ["n", "right", "late"]) : `${JSON.stringify(day)} is no day`;
if (found) return found;
}
return null;
}
let trouble = null; // a sentence for the reader
function load() {
if (!storage.keys(KEY).includes(KEY)) return fresh();
const data = storage.get(KEY);
const problem = wrong(data);
if (!problem) return data;
trouble = `The progress stored in this browser could not be read (${problem}). It was set aside, and counting starts anew.`;
storage.set(`${KEY}.damaged`, globalThis.localStorage.getItem(`labcore.v1.${KEY}`));
storage.remove(KEY);
return fresh();
}
function save(data) {
if (!storage.set(KEY, data) && storage.persistent) trouble = "The browser refused to store this answer: its storage is full.";
globalThis.dispatchEvent?.(new CustomEvent("labcore:progress"));
}
const place = (data, quiz, item, day) => data.items[item.id] || ladder.enter(item.rung, data.started[quiz] || day);
const when = (data, quiz, item, day) => ladder.due(place(data, quiz, item, day), data.interview);
function record(quiz, item, outcome, day = ladder.today()) {
const data = load();
data.started[quiz] = data.started[quiz] || day;
const asked = when(data, quiz, item, day);
const old = data.items[item.id];
const entry = ladder.answer(place(data, quiz, item, day), outcome, day, data.interview);
const right = outcome === "fail" ? 0 : 1;
data.items[item.id] = {
rung: entry.rung,
base: entry.base,
since: entry.since,
n: (old?.n || 0) + 1,
right: (old?.right || 0) + right,
last: outcome,
missed: outcome === "fail" ? day : old?.missed ?? null,
};
const line = data.days[day] || { n: 0, right: 0, late: 0 };
const late = asked === null ? 0 : Math.max(0, ladder.between(asked, day));
data.days[day] = { n: line.n + 1, right: line.right + right, late: Math.max(line.late, late) };
save(data);
return data.items[item.id];
}
function agenda(quizzes, data = load(), day = ladder.today(), also = null) {
const rows = [];
for (const quiz of Object.values(quizzes)) {
if (!data.started[quiz.id] && quiz.id !== also) continue;
for (const item of quiz.items) {
const due = when(data, quiz.id, item, day);
if (due !== null) rows.push({ quiz, item, due });
}
}
return rows.sort((a, b) => (a.due < b.due ? -1 : a.due > b.due ? 1 : 0));
}
function streak(data, rows, day = ladder.today()) {
if (rows.some((row) => row.due < day)) return 0;
let length = 0;
for (const active of Object.keys(data.days).sort().reverse()) {
length += 1;
if (data.days[active].late > 0) break;
}
return length;
}
function merge(mine, theirs) {
const out = { ...fresh(), interview: theirs.interview ?? mine.interview };
const later = (a, b) => (!a || (b && (b.since > a.since || (b.since === a.since && b.n > a.n))) ? b : a);
const fuller = (a, b) => (!a || (b && b.n > a.n) ? b : a);
const earlier = (a, b) => (!a || (b && b < a) ? b : a);
for (const [part, better] of [["items", later], ["days", fuller], ["started", earlier]]) {
for (const key of Object.keys({ ...mine[part], ...theirs[part] })) out[part][key] = better(mine[part][key], theirs[part][key]);
}
return out;
}
W.progress = { load, save, record, place, when, agenda, streak, merge, wrong, trouble: () => trouble };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, number } = W.ui;
const FIELD = /\{(\w+)(?::([^{}]+))?\}/g;
const FIXED = /^,?\.(\d)(f|%)$/;
const MATH = /(\$[^$]+\$)/;
const SPAN = /\x60([^\x60]+)\x60|\*\*([^*]+)\*\*|\*([^*]+)\*|\$([^$]+)\$/g;
function uniform(seed) {
let state = seed >>> 0;
return () => {
state = (state + 0x6d2b79f5) >>> 0;
let t = Math.imul(state ^ (state >>> 15), state | 1);
t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
}
const seedOf = (text) => new TextEncoder().encode(text).reduce((h, byte) => Math.imul(h ^ byte, 0x01000193) >>> 0, 0x811c9dc5);
function shuffled(values, seed) {
const order = [...values];
const random = uniform(seed);
for (let last = order.length - 1; last > 0; last--) {
const other = Math.floor(random() * (last + 1));
[order[last], order[other]] = [order[other], order[last]];
}
return order;
}
function fixed(value, decimals) {
const [whole, part] = Math.abs(value).toFixed(decimals).split(".");
return (value < 0 ? "−" : "") + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
}
function shown(value, spec, units) {
if (typeof value === "string") return value;
if (!spec) return number(value);
const match = FIXED.exec(spec);
if (!match) return `${number(value / units[spec])} ${spec}`;
return match[2] === "%" ? `${fixed(value * 100, +match[1])} %` : fixed(value, +match[1]);
}
const fill = (text, values, units) =>
text.split(MATH).map((part) => (part.startsWith("$") ? part : part.replace(FIELD, (_, name, spec) => shown(values[name], spec, units)))).join("");
function math(tex) {
const node = el("span", { class: "math mathjax_process", text: globalThis.MathJax?.typesetPromise ? `\\(${tex}\\)` : tex });
if (globalThis.MathJax?.typesetPromise) queueMicrotask(() => globalThis.MathJax.typesetPromise([node]));
return node;
}
function inline(text) {
const nodes = [];
let end = 0;
for (const match of text.matchAll(SPAN)) {
const [whole, code, strong, emphasis, tex] = match;
nodes.push(text.slice(end, match.index));
nodes.push(tex ? math(tex) : el(code ? "code" : strong ? "strong" : "em", { text: code || strong || emphasis }));
end = match.index + whole.length;
}
return [...nodes, text.slice(end)];
}
const paragraphs = (text) => text.trim().split(/\n\s*\n/).map((part) => el("p", {}, inline(part.replace(/\s+/g, " "))));
W.text = { uniform, seedOf, shuffled, fixed, fill, inline, paragraphs };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { number } = W.ui;
const { fixed } = W.text;
const compiled = new Map();
function evaluate(js, values) {
const names = Object.keys(values);
const key = `${names}:${js}`;
if (!compiled.has(key)) compiled.set(key, new Function(...names, `"use strict"; return (${js});`));
return compiled.get(key)(...names.map((n) => values[n]));
}
function draw(item, n) {
const rows = item.rows || [[]];
const values = Object.fromEntries((item.names || []).map((name, i) => [name, rows[n % rows.length][i]]));
for (const [name, js] of item.let || []) values[name] = evaluate(js, values);
return values;
}
const near = (a, b, tolerance) => Math.abs(a - b) <= tolerance * Math.abs(b);
const unitText = (unit) => (unit === "1" ? "" : ` ${unit}`);
function written(value, answer) {
const scaled = value / answer.scale;
return (answer.decimals === null || answer.decimals === undefined ? number(scaled) : fixed(scaled, answer.decimals)) + unitText(answer.unit);
}
function parse(text, unit = "1") {
const typed = text.trim().replace(/[−–]/g, "-");
if (!typed) return { error: "Enter a number." };
const bare = unit !== "1" && typed.endsWith(unit) ? typed.slice(0, -unit.length) : typed;
const plain = bare.replace(/[\s,_]/g, "").replace(/[×x*]10(?:\^|\*\*)/, "e");
const match = /^([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\/(\d+(?:\.\d+)?))?$/i.exec(plain);
if (!match) {
const hasUnit = /^[-+\d.,e\s]+\D+$/i.test(typed);
return { error: hasUnit && unit !== "1" ? `Give the number in ${unit}; the box has its unit already.` : `“${typed}” is not a number; write it like 1,250 or 3.2e5.` };
}
const value = Number(match[1]) / (match[2] ? Number(match[2]) : 1);
return Number.isFinite(value) ? { value } : { error: `“${typed}” is too large to be meant.` };
}
const SLIPS = [
[1e3, "a factor of 1,000: check the prefix"],
[1e6, "a factor of a million: check the prefix"],
[1e9, "a factor of a billion: check the prefix"],
[1e12, "a factor of 10¹²: check the prefix"],
[100, "a factor of 100: per cent and a plain fraction"],
[8, "a factor of 8: bits and bytes"],
[1.073741824, "the factor between GiB and GB, 1.074"],
[2, "a factor of 2"],
];
function slip(value, truth, tolerance) {
const ratio = Math.abs(value / truth);
const found = SLIPS.find(([factor]) => near(ratio, factor, tolerance) || near(ratio, 1 / factor, tolerance));
if (found) return `Your number is off by ${found[1]}.`;
if (!(ratio > 0)) return "";
return ratio > 1 ? `Your number is ${number(ratio, 2)} times too large.` : `Your number is ${number(1 / ratio, 2)} times too small.`;
}
function numeric(item, values, entered) {
const { answer } = item;
const truth = evaluate(answer.js, values);
const value = entered * answer.scale;
if (near(value, truth, answer.rel_tol)) return { outcome: "pass", says: `The answer is ${written(truth, answer)}.` };
const error = (item.distractors || []).find((d) => near(value, evaluate(d.js, values), answer.rel_tol));
return { outcome: "fail", why: error ? error.why : null, says: error ? "" : slip(value, truth, answer.rel_tol) };
}
function predict(item, values, entered) {
const { answer, within } = item;
const truth = evaluate(answer.js, values);
const ratio = (entered * answer.scale) / truth;
const says = `You said ${written(entered * answer.scale, answer)}; it is ${written(truth, answer)}.`;
if (ratio >= 1 / within && ratio <= within) return { outcome: "pass", says: `${says} That is within a factor of ${number(within)}.` };
const error = (item.distractors || []).find((d) => near(entered * answer.scale, evaluate(d.js, values), answer.rel_tol));
return { outcome: "fail", why: error ? error.why : null, says: `An estimate should come within a factor of ${number(within)}.` };
}
const isRight = (option, values) => (typeof option.right === "string" ? evaluate(option.right, values) : option.right);
function choice(item, values, picked) {
const wrongly = item.options.filter((o, i) => picked.includes(i) && !isRight(o, values));
const missing = item.options.filter((o, i) => !picked.includes(i) && isRight(o, values));
if (!wrongly.length && !missing.length) return { outcome: "pass", says: "" };
const says = wrongly.length || item.kind !== "multi" ? "" : `What you picked is right, but ${missing.length} more ${missing.length > 1 ? "are" : "is"}.`;
return { outcome: "fail", why: wrongly.length ? wrongly[0].why : null, says };
}
function sorted(item, values) {
const indices = item.order.map((_, i) => i);
if (!item.order[0].js) return indices;
const keys = item.order.map((entry) => evaluate(entry.js, values));
return indices.sort((a, b) => keys[a] - keys[b]);
}
function order(item, values, arranged) {
const right = sorted(item, values);
const first = right.findIndex((index, i) => arranged[i] !== index);
if (first < 0) return { outcome: "pass", says: "" };
return { outcome: "fail", why: null, says: `The first ${first} of ${right.length} are in place; look at position ${first + 1}.` };
}
const folded = (text) => text.trim().toLowerCase().replace(/\s+/g, " ");
function cloze(item, values, entered) {
const wrong = Object.entries(item.blanks).filter(([name, blank]) => {
if (blank.accept) return !blank.accept.some((word) => folded(word) === folded(entered[name]));
const { value } = parse(entered[name]);
return value === undefined || !near(value, evaluate(blank.js, values), blank.rel_tol);
});
if (!wrong.length) return { outcome: "pass", says: "" };
return { outcome: "fail", why: null, says: `Not right yet: ${wrong.map(([name]) => `“${entered[name].trim()}”`).join(", ")}.`, blanks: wrong.map(([name]) => name) };
}
function spoken(item, ticked, grade) {
const all = item.rubric.strong.length;
if (grade === "strong" && ticked < all) return { error: `Strong needs all ${all} points of its list, and you ticked ${ticked}: that is Lean.` };
if (grade === "lean" && !ticked) return { error: "Lean needs at least one point of the Strong list, and you ticked none." };
return { outcome: { strong: "pass", lean: "hold", no: "fail" }[grade], says: "" };
}
W.grade = { evaluate, draw, parse, written, numeric, predict, choice, isRight, sorted, order, cloze, spoken };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, button, uid } = W.ui;
const { grade } = W;
function number(item, values, ctx) {
const id = uid("answer");
const { unit } = item.answer;
const box = el("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", class: "lq-number" });
const label = item.kind === "predict" ? "Your estimate" : "Your answer";
const truth = () => grade.written(grade.evaluate(item.answer.js, values), item.answer);
return {
node: el("p", { class: "lq-field" }, el("label", { for: id }, label, unit === "1" ? "" : ` in ${unit === "%" ? "per cent" : unit}`), el("span", {}, box, unit === "1" ? "" : ` ${unit}`)),
read: () => grade.parse(box.value, unit),
grade: ({ value }) => grade[item.kind](item, values, value),
answer: () => [el("strong", { text: truth() })],
};
}
function choice(item, values, ctx) {
const many = item.kind === "multi";
const name = uid("choice");
const boxes = [];
const rows = ctx.order(item.options.length).map((index) => {
const box = el("input", { type: many ? "checkbox" : "radio", name, value: String(index) });
boxes.push(box);
return el("label", { class: "lq-option" }, box, el("span", {}, ctx.shown(item.options[index].text)));
});
const exhibit = item.exhibit && el("pre", { class: "lq-exhibit", tabindex: "0", role: "region", "aria-label": "Exhibit", text: ctx.fill(item.exhibit) });
return {
node: [exhibit, el("fieldset", { class: "lq-options" }, el("legend", { text: many ? "Pick all that are right" : "Pick one" }), rows)],
read() {
const picked = boxes.filter((b) => b.checked).map((b) => +b.value);
return picked.length ? { picked } : { error: many ? "Pick at least one." : "Pick one." };
},
grade: ({ picked }) => grade.choice(item, values, picked),
answer: () => el("ul", {}, item.options.filter((o) => grade.isRight(o, values)).map((o) => el("li", {}, ctx.shown(o.text)))),
};
}
function order(item, values, ctx) {
const list = el("ol", { class: "lq-order" });
let arranged = ctx.order(item.order.length);
if (grade.order(item, values, arranged).outcome === "pass") arranged.reverse(); // nothing is given away
const rows = item.order.map((entry, index) => {
const text = ctx.fill(entry.text);
const move = (sign, label) => button(sign, () => shift(index, sign === "↑" ? -1 : 1), { "aria-label": `${label}: ${text}` });
return el("li", {}, el("span", {}, ctx.shown(entry.text)), el("span", { class: "lq-moves" }, move("↑", "Move up"), move("↓", "Move down")));
});
function shift(index, by) {
const from = arranged.indexOf(index);
const to = from + by;
if (to < 0 || to >= arranged.length) return;
const focus = document.activeElement;
arranged.splice(to, 0, ...arranged.splice(from, 1));
list.append(...arranged.map((i) => rows[i]));
focus.focus(); // moving an element drops its focus
ctx.say(`Position ${to + 1} of ${arranged.length}`);
}
list.append(...arranged.map((i) => rows[i]));
return {
node: list,
read: () => ({ arranged: [...arranged] }),
grade: (given) => grade.order(item, values, given.arranged),
answer: () => el("ol", {}, grade.sorted(item, values).map((i) => el("li", {}, ctx.shown(item.order[i].text)))),
};
}
const BLANK = /\[\[(\w+)\]\]/;
function cloze(item, values, ctx) {
const boxes = {};
const nodes = ctx.fill(item.stem).replace(/\s+/g, " ").split(BLANK).map((part, i) => {
if (i % 2 === 0) return W.text.inline(part);
boxes[part] = el("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", class: "lq-blank", "aria-label": `Blank ${(i + 1) / 2}` });
return boxes[part];
});
const shown = (blank) => (blank.accept ? blank.accept[0] : W.ui.number(grade.evaluate(blank.js, values)));
return {
stem: el("p", { class: "lq-stem" }, nodes),
node: null,
read() {
const empty = Object.values(boxes).find((b) => !b.value.trim());
return empty ? { error: "Fill every blank." } : { entered: Object.fromEntries(Object.entries(boxes).map(([n, b]) => [n, b.value])) };
},
grade({ entered }) {
const result = grade.cloze(item, values, entered);
for (const [name, box] of Object.entries(boxes)) box.toggleAttribute("aria-invalid", (result.blanks || []).includes(name));
return result;
},
answer: () => el("ul", {}, Object.values(item.blanks).map((b) => el("li", {}, shown(b)))),
};
}
const GRADES = [["strong", "Strong"], ["lean", "Lean"], ["no", "No"]];
function spoken(item, values, ctx) {
const name = uid("grade");
const points = item.rubric.strong.map((point) => [el("input", { type: "checkbox" }), point]);
const grades = GRADES.map(([value, label]) => [el("input", { type: "radio", name, value }), label, item.rubric[value], item.samples[value]]);
const clock = el("span", { class: "lq-clock", role: "timer", text: `${item.seconds} s` });
let timer;
let started = 0;
const tick = () => {
const left = item.seconds - Math.round((Date.now() - started) / 1000);
clock.textContent = left >= 0 ? `${left} s left` : `${-left} s over`;
};
const compare = el("div", { hidden: true },
el("fieldset", { class: "lq-options" }, el("legend", { text: "Tick what you really said" }), points.map(([box, text]) => el("label", { class: "lq-option" }, box, el("span", {}, ctx.shown(text))))),
el("fieldset", { class: "lq-options" }, el("legend", { text: "Then compare with three answers, and grade yours" }),
grades.map(([box, label, signs, sample]) => [
el("label", { class: "lq-option" }, box, el("span", {}, el("strong", { text: `${label}: ` }), ctx.shown(signs.join("; ")))),
el("details", {}, el("summary", { text: `Sample answer: ${label}` }), el("blockquote", {}, W.text.paragraphs(ctx.fill(sample)))),
])),
);
const stop = () => clearInterval(timer);
const start = button("Start the clock", () => {
stop();
started = Date.now();
timer = setInterval(tick, 500);
tick();
});
const reveal = button("I have answered", () => {
stop();
compare.hidden = false;
steps.hidden = true;
ctx.ready();
points[0][0].focus();
});
const steps = el("p", { class: "lq-steps" }, `Answer aloud, as you would in the room, in about ${item.seconds} seconds.`, el("span", { class: "lq-row" }, start, reveal, clock));
return {
node: [steps, compare],
waits: true, // the form is not for checking until the reader has answered
label: "Record my grade",
read() {
const picked = grades.find(([box]) => box.checked);
if (!picked) return { error: "Pick Strong, Lean or No." };
const result = grade.spoken(item, points.filter(([box]) => box.checked).length, picked[0].value);
return result.error ? result : { result };
},
grade: ({ result }) => result,
answer: () => null,
stop,
};
}
W.controls = { numeric: number, predict: number, single: choice, multi: choice, diagnose: choice, order, cloze, spoken };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, button } = W.ui;
const { ladder, progress, text, grade } = W;
const KINDS = { numeric: "number", single: "one choice", multi: "several choices", order: "order", cloze: "fill in", predict: "estimate", diagnose: "diagnose", spoken: "say it aloud" };
const LEVELS = { M: "mid-level", S: "senior", T: "staff" };
function section(item) {
const root = document.documentElement.dataset.content_root;
return root === undefined ? null : `${root}${item.page}.html${item.section && `#${item.section}`}`;
}
const link = (item, label) => {
const href = section(item);
return href ? el("a", { href, text: label }) : el("span", { text: `${label}: ${item.page}${item.section && `, “${item.section.replace(/-/g, " ")}”`}` });
};
function comesBack(record) {
if (record.rung === null) return "It has passed the whole ladder.";
const day = ladder.due(record, progress.load().interview);
const wait = ladder.between(ladder.today(), day);
return wait <= 0 ? "It is due today." : `It comes back on ${ladder.spoken(day)}, in ${wait} ${wait === 1 ? "day" : "days"}.`;
}
function ask(card, { quiz, item }, place, { answered, next }) {
const live = W.ui.live();
const values = grade.draw(item, progress.load().items[item.id]?.n || 0);
const fill = (source) => text.fill(source, values, quiz.units);
const seed = text.seedOf(item.id) + (progress.load().items[item.id]?.n || 0);
const check = button("Check", null, { type: "submit", class: "labcore-button labcore-primary" });
const ctx = {
fill,
shown: (source) => text.inline(fill(source)),
say: live.say,
order: (n) => text.shuffled([...Array(n).keys()], seed),
ready: () => (check.hidden = false),
};
const control = W.controls[item.kind](item, values, ctx);
if (control.label) check.textContent = control.label;
check.hidden = Boolean(control.waits);
let hints = 0;
let record = null;
const hintList = el("div", { class: "lq-hints" });
const hint = item.hints && button(`Hint (${item.hints.length})`, () => {
hintList.append(el("p", {}, el("strong", { text: `Hint ${hints + 1}. ` }), ctx.shown(item.hints[hints])));
hints += 1;
hint.textContent = `Hint (${item.hints.length - hints})`;
hint.disabled = hints === item.hints.length;
live.say(hintList.lastChild.textContent);
});
const error = el("p", { class: "labcore-note labcore-error", role: "alert" });
const verdict = el("div", { class: "lq-verdict", tabindex: "-1" });
const fields = el("fieldset", { class: "lq-fields" }, el("legend", { class: "labcore-sr", text: "Your answer" }), control.stem, control.node);
const goOn = button(place.last ? "Finish" : "Next question", () => leave(), { class: "labcore-button labcore-primary" });
const leave = (followUp) => {
control.stop?.();
next(followUp);
};
const explanation = () => el("div", { class: "lq-explain" }, text.paragraphs(fill(item.explain)));
const follow = () => {
const other = item.follow_up && quiz.items.find((i) => i.id === item.follow_up);
return other && button("Change one assumption", () => leave({ quiz, item: other }));
};
function show(result) {
const good = result.outcome !== "fail";
const head = { pass: "✓ Right.", hold: item.kind === "spoken" ? "Lean." : "✓ Right, with a hint.", fail: item.kind === "spoken" ? "Noted: not there yet." : "✗ Not right." }[result.outcome];
const why = result.why && el("p", {}, el("strong", { text: "The likely error: " }), ctx.shown(result.why));
const state = el("p", { class: "labcore-note", text: `${comesBack(record)}${progress.trouble() ? ` ${progress.trouble()}` : ""}` });
const solved = good || item.kind === "spoken";
verdict.className = `lq-verdict lq-${good ? "good" : "bad"}`;
verdict.replaceChildren(...[el("p", { class: "lq-head" }, el("strong", { text: head }), result.says ? ` ${result.says}` : ""), why].filter(Boolean));
if (solved) verdict.append(explanation());
if (!good) verdict.append(el("p", {}, link(item, "Read the section again")));
const retry = button("Try again", () => {
fields.disabled = false;
check.hidden = false;
if (hint) hint.disabled = hints === item.hints.length;
verdict.replaceChildren();
verdict.className = "lq-verdict";
fields.querySelector("input, button")?.focus();
});
const reveal = button("Show the answer", () => {
reveal.remove();
retry.remove();
state.before(el("div", {}, el("p", { text: "The answer:" }), control.answer(), explanation()));
verdict.focus();
});
verdict.append(state, el("p", { class: "lq-row" }, goOn, solved ? follow() : [retry, reveal]));
verdict.focus();
}
function submit(event) {
event.preventDefault();
const given = control.read();
error.textContent = given.error || "";
if (given.error) return;
const result = control.grade(given);
if (result.outcome === "pass" && hints && !record) result.outcome = "hold";
fields.disabled = true;
check.hidden = true;
if (hint) hint.disabled = true;
if (!record) {
record = progress.record(quiz.id, item, result.outcome);
answered(result.outcome);
}
show(result);
}
const heading = el("p", { class: "lq-meta", tabindex: "-1", text: `Question ${place.index + 1} of ${place.count} · ${KINDS[item.kind]} · ${LEVELS[item.level]}` });
card.replaceChildren(
heading,
el("form", { novalidate: true, onsubmit: submit },
!control.stem && el("div", { class: "lq-stem" }, text.paragraphs(fill(item.stem))),
fields, error, hintList,
el("p", { class: "lq-row" }, check, hint)),
verdict, live.node);
heading.focus();
}
function session(card, rows, { emit, finished }) {
const queue = [...rows];
const results = [];
const step = (index) => {
if (index >= queue.length) return summary();
const row = queue[index];
ask(card, row, { index, count: queue.length, last: index === queue.length - 1 }, {
answered(outcome) {
results.push({ ...row, outcome });
emit({ quiz: row.quiz.id, item: row.item.id, outcome });
},
next(followUp) {
if (followUp) {
const later = queue.findIndex((r, i) => i > index && r.item.id === followUp.item.id);
if (later > 0) queue.splice(later, 1);
queue.splice(index + 1, 0, followUp);
}
step(index + 1);
},
});
};
function summary() {
const missed = results.filter((r) => r.outcome === "fail");
const head = el("p", { class: "lq-head", tabindex: "-1", text: results.length ? `${results.length - missed.length} of ${results.length} right.` : "Nothing was answered." });
const sections = new Map(missed.map(({ item }) => [`${item.page}#${item.section}`, item]));
const list = [...sections.values()].map((item) => el("li", {}, link(item, item.section.replace(/-/g, " "))));
card.replaceChildren(head, ...(list.length ? [el("p", { text: "Worth reading again:" }), el("ul", {}, list)] : []), el("p", {}, button("Done", finished)));
head.focus();
}
step(0);
}
W.session = session;
W.sectionLink = link;
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, button, storage } = W.ui;
const { ladder, progress } = W;
const quizzes = (spec) => spec.quizzes || globalThis.labcoreData?.quizzes || {};
function render({ el: host, spec, emit }) {
const quiz = quizzes(spec)[spec.quiz];
if (!quiz) throw new Error(`there is no quiz ${JSON.stringify(spec.quiz)}`);
const card = el("div", { class: "lq-card" });
function intro() {
const data = progress.load();
const day = ladder.today();
const rows = progress.agenda({ [quiz.id]: quiz }, data, day, quiz.id);
const due = rows.filter((row) => row.due <= day);
const later = [...new Set(rows.filter((row) => row.due > day).map((row) => row.due))];
const next = later.length ? ` The next ${due.length ? "after that " : ""}come on ${ladder.spoken(later[0])}.` : "";
const all = quiz.items.map((item) => ({ quiz, item }));
const go = (list) => () => W.session(card, list, { emit, finished: () => intro() });
const status = due.length ? `${due.length} of ${all.length} questions are due today.` : rows.length ? "Nothing is due today." : "Every question has passed the whole ladder.";
card.replaceChildren(
el("p", { text: status + next }),
el("p", { class: "lq-row" },
due.length > 0 && button(`Start: ${due.length} due`, go(due), { class: "labcore-button labcore-primary" }),
button(`Practise all ${all.length}`, go(all))));
const trouble = progress.trouble();
if (trouble) card.append(el("p", { class: "labcore-note labcore-error", role: "alert", text: trouble }));
}
const notice = storage.notice();
const top = el("p", { class: "labcore-title", role: "heading", "aria-level": "3", text: `Checkpoint: ${quiz.title}` });
host.append(top, card, ...(notice ? [notice] : []));
intro();
}
W.register("quiz", { render });
globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
