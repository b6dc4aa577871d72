// Generated from labcore/learn/js/review by `python -m labcore.learn.scripts`: read and edit there.
(function (W) {
"use strict";
const { storage } = W.ui;
const { progress, ladder } = W;
const FORMAT = "labcore-progress";
function write() {
const predictions = Object.fromEntries(storage.keys("predict.").map((key) => [key.slice(8), storage.get(key)]));
return JSON.stringify({ format: FORMAT, exported: ladder.today(), progress: progress.load(), predictions }, null, 1);
}
const isPrediction = (p) => p && typeof p.value === "number" && Number.isFinite(p.value) && typeof p.unit === "string";
function read(text) {
const refuse = (why) => ({ error: `This file was not imported: ${why}. Your progress is unchanged.` });
let data;
try {
data = JSON.parse(text);
} catch {
return refuse("it is not JSON, or it was cut short");
}
if (data?.format !== FORMAT) return refuse("it is not an exported progress file");
const problem = progress.wrong(data.progress);
if (problem) return refuse(problem);
const predictions = Object.entries(data.predictions || {});
const bad = predictions.find(([, p]) => !isPrediction(p));
return bad ? refuse(`prediction ${bad[0]} has no value`) : { progress: data.progress, predictions };
}
function join({ progress: theirs, predictions }) {
const mine = progress.load();
progress.save(progress.merge(mine, theirs));
for (const [id, prediction] of predictions) if (storage.get(`predict.${id}`) === null) storage.set(`predict.${id}`, prediction);
const count = Object.keys(theirs.items).length;
return `Imported ${count} ${count === 1 ? "question" : "questions"}; of two records of the same question the later one was kept.`;
}
W.transfer = { write, read, join };
})(globalThis.labcoreWidgets);
(function (W) {
"use strict";
const { el, button, storage, uid } = W.ui;
const { ladder, progress, transfer } = W;
const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
function today(rows, day) {
const due = rows.filter((row) => row.due <= day);
const chapters = new Map();
for (const { quiz } of due) chapters.set(quiz.title, (chapters.get(quiz.title) || 0) + 1);
return { due, chapters: [...chapters].map(([title, n]) => `${title} (${n})`).join(", ") };
}
function table(head, rows, caption) {
const cells = (tag, row) => row.map((cell) => el(tag, tag === "th" ? { scope: "col" } : {}, cell));
return el("table", { class: "lq-table labcore-table" }, el("caption", { text: caption }), el("thead", {}, el("tr", {}, cells("th", head))), el("tbody", {}, rows.map((row) => el("tr", {}, cells("td", row)))));
}
function ahead(rows, day) {
const counts = new Map();
for (const { due } of rows) if (due > day) counts.set(due, (counts.get(due) || 0) + 1);
const list = [...counts].slice(0, 7).map(([when, n]) => [ladder.spoken(when), `in ${many(ladder.between(day, when), "day")}`, String(n)]);
return list.length ? table(["Day", "", "Questions"], list, "What comes next") : null;
}
function misses(quizzes, data) {
const rows = [];
for (const quiz of Object.values(quizzes)) {
for (const item of quiz.items) {
const record = data.items[item.id];
if (record?.last === "fail") rows.push([record.missed, quiz.title, W.sectionLink(item, item.section.replace(/-/g, " "))]);
}
}
rows.sort((a, b) => (a[0] < b[0] ? 1 : -1));
return rows.length ? table(["Missed on", "Chapter", "Read again"], rows.map(([when, ...rest]) => [ladder.spoken(when), ...rest]), "The section behind every miss") : null;
}
function interview(data, day, changed) {
const id = uid("interview");
const box = el("input", { id, type: "date", value: data.interview || "" });
const set = (value) => changed(() => ({ ...progress.load(), interview: value }));
box.addEventListener("change", () => (box.value === "" || ladder.isDay(box.value)) && set(box.value || null));
const left = data.interview && ladder.between(day, data.interview);
const note = !data.interview ? "With a date, every wait is shortened so that the last review falls before it."
: left < 0 ? "That day has passed; the ladder runs at its ordinary pace."
: left === 0 ? "That is today. Good luck."
: `${many(left, "day")} left${left <= 21 ? "; waits are shortened to fit." : "; the whole ladder fits."}`;
return el("div", { class: "lq-interview" }, el("label", { for: id, text: "Interview on" }), box, data.interview && button("Clear", () => set(null)), el("p", { class: "labcore-note", text: note }));
}
function download() {
const url = URL.createObjectURL(new Blob([transfer.write()], { type: "application/json" }));
el("a", { href: url, download: `labcore-progress-${ladder.today()}.json` }).click();
setTimeout(() => URL.revokeObjectURL(url), 1000);
}
function files(report) {
const id = uid("import");
const input = el("input", { id, type: "file", accept: ".json,application/json" });
input.addEventListener("change", async () => {
if (!input.files.length) return;
const found = transfer.read(await input.files[0].text());
report(found.error || transfer.join(found), Boolean(found.error));
});
return el("div", { class: "lq-files" }, button("Export progress", download), el("p", { class: "lq-field" }, el("label", { for: id, text: "Import progress" }), input));
}
function render({ el: host, spec, emit }) {
const quizzes = spec.quizzes || globalThis.labcoreData?.quizzes || {};
const card = el("div", { class: "lq-card" });
const message = el("p", { class: "labcore-note", role: "status" });
let asking = false;
function overview() {
asking = false;
const data = progress.load();
const day = ladder.today();
const rows = progress.agenda(quizzes, data, day);
const { due, chapters } = today(rows, day);
const streak = progress.streak(data, rows, day);
const begun = Object.keys(data.started).length > 0;
const first = Object.values(quizzes)[0];
const status = due.length ? `${many(due.length, "question")} due today: ${chapters}.` : begun ? "Nothing is due today." : "Nothing yet: answer the checkpoint of a chapter, and its questions come back here.";
const start = () => {
asking = true;
W.session(card, due, { emit, finished: overview });
};
const nodes = [
el("p", { class: "lq-head", tabindex: "-1", text: status }),
due.length > 0 && el("p", {}, button("Start the review", start, { class: "labcore-button labcore-primary" })),
!begun && first && el("p", {}, W.sectionLink({ page: first.items[0].page, section: "" }, `Begin with ${first.title}`)),
streak > 1 && el("p", { class: "labcore-note", text: `${streak} review days in a row with nothing left waiting.` }),
interview(data, day, (change) => {
progress.save(change());
overview();
}),
ahead(rows, day),
misses(quizzes, data),
progress.trouble() && el("p", { class: "labcore-note labcore-error", role: "alert", text: progress.trouble() }),
];
card.replaceChildren(...nodes.filter(Boolean));
}
const report = (sentence, bad) => {
message.textContent = sentence;
message.classList.toggle("labcore-error", bad);
if (!bad) overview();
};
const refresh = () => asking || overview();
const notice = storage.notice();
host.append(card, files(report), message, ...(notice ? [notice] : []));
overview();
for (const event of ["storage", "labcore:progress"]) globalThis.addEventListener(event, refresh);
const wake = () => document.hidden || refresh(); // a page left open over midnight
document.addEventListener("visibilitychange", wake);
return () => {
for (const event of ["storage", "labcore:progress"]) globalThis.removeEventListener(event, refresh);
document.removeEventListener("visibilitychange", wake);
};
}
W.register("review", { render });
globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
