// Runs parts of the Quiz, Review and Player scripts under node: reads {"scripts": […], "calls": [[name, …arguments], …]}
// from standard input and prints one result per call.
"use strict";
const fs = require("fs");
const vm = require("vm");
const { scripts, calls } = JSON.parse(fs.readFileSync(0, "utf-8"));
for (const path of scripts) vm.runInThisContext(fs.readFileSync(path, "utf-8"), path);
const W = globalThis.labcoreWidgets;

// An item under its n-th draw: values, answer, distractors, which options are right, the right order.
function variant(item, n) {
  const values = W.grade.draw(item, n);
  const value = (x) => W.grade.evaluate(x.js, values);
  const out = { values };
  if (item.answer) out.answer = value(item.answer);
  if (item.answer) out.written = W.grade.written(out.answer, item.answer);
  if (item.distractors) out.distractors = item.distractors.map(value);
  if (item.options) out.right = item.options.map((o) => W.grade.isRight(o, values));
  if (item.order) out.order = W.grade.sorted(item, values);
  if (item.blanks) out.blanks = Object.values(item.blanks).map((b) => (b.js ? value(b) : null));
  return out;
}

// The walk of one item over the ladder: [outcome, day] after [outcome, day]; the place and its due day after each.
function walk(rung, start, interview, answers) {
  let place = W.ladder.enter(rung, start);
  const out = [[place, W.ladder.due(place, interview)]];
  for (const [outcome, day] of answers) {
    place = W.ladder.answer(place, outcome, day, interview);
    out.push([place, W.ladder.due(place, interview)]);
  }
  return out;
}

const known = {
  variant,
  walk,
  uniform: (seed, n) => {
    const next = W.text.uniform(seed);
    return Array.from({ length: n }, next);
  },
  seed: (text) => W.text.seedOf(text),
  shuffled: (n, seed) => W.text.shuffled([...Array(n).keys()], seed),
  fixed: (value, decimals) => W.text.fixed(value, decimals),
  fill: (text, values, units) => W.text.fill(text, values, units),
  parse: (text, unit) => W.grade.parse(text, unit),
  grade: (item, n, ...given) => W.grade[{ single: "choice", multi: "choice", diagnose: "choice" }[item.kind] || item.kind](item, ...(item.kind === "spoken" ? given : [W.grade.draw(item, n), ...given])),
  wrong: (data) => W.progress.wrong(data),
  merge: (mine, theirs) => W.progress.merge(mine, theirs),
  streak: (data, rows, day) => W.progress.streak(data, rows, day),
  record: (quiz, item, outcome, day) => W.progress.record(quiz, item, outcome, day),
  agenda: (quizzes, day) => W.progress.agenda(quizzes, W.progress.load(), day).map(({ item, due }) => [item.id, due]),
  write: () => JSON.parse(W.transfer.write()),
  read: (text) => W.transfer.read(text),
  choose: (paths, share, left) => W.plan.choose(paths, share, left),
  tasks: (path, topics, missed, minutes) => W.plan.tasks(path, topics, missed, minutes),
  schedule: (list, days) => W.plan.schedule(list, days),
  good: (data) => W.diagnostic.good(data),
  blocks: (spec, step) => {
    const { tables, lengths, refs, touched } = W.blocksAt(spec, step);
    return { tables, lengths, refs, touched: [...touched] };
  },
};
process.stdout.write(JSON.stringify(calls.map(([name, ...args]) => known[name](...args) ?? null)));
