// Runs parts of labcore-widgets.js under node: reads {"scripts": […], "calls": [[name, …arguments], …]} from standard
// input and prints one result per call; a thrown error becomes {"error": message}.
"use strict";
const fs = require("fs");
const vm = require("vm");
const { scripts, calls } = JSON.parse(fs.readFileSync(0, "utf-8"));
for (const path of scripts) vm.runInThisContext(fs.readFileSync(path, "utf-8"), path);
const W = globalThis.labcoreWidgets;

const known = {
  format: W.ui.format,
  number: W.ui.number,
  parse: (text, spec) => W.inputs.parse(text, spec),
  stops: (spec) => W.inputs.stops(spec),
  model: (text) => W.models.parse(text),
  modelEnvironment: (model, env) => W.models.environment(model, env),
  // node has no localStorage, like a browser that blocks it
  storage: (key, value) => {
    const s = W.ui.storage;
    const kept = s.set(key, value);
    const seen = [s.get(key), s.keys("quiz."), s.get("nothing", 3)];
    s.remove(key);
    return { persistent: s.persistent, kept, seen, after: s.get(key) };
  },
  preset: (id) => globalThis.labcoreData.facts.models[id],
  // what a calculator computes for a state of its inputs; a model is a preset's id or a config
  results: (spec, state) => {
    const models = globalThis.labcoreData.facts.models;
    const chosen = state.model;
    const model = typeof chosen === "object" ? W.models.parse(JSON.stringify(chosen)) : models[chosen];
    const env = W.steps.run(spec.steps, W.calculator.environment(spec, state, model));
    const there = (row) => env[row.id] !== undefined && W.steps.holds(row.when, env);
    return {
      values: Object.fromEntries(spec.results.map((row) => [row.id, there(row) ? env[row.id] : null])),
      summary: W.steps.sentence(spec.summary, env),
    };
  },
};

// JSON has no infinities: they travel as text
const plain = (value) => JSON.stringify(value, (_, v) => (typeof v === "number" && !Number.isFinite(v) ? String(v) : v));
const answer = ([name, ...args]) => {
  try {
    return known[name](...args.map((a) => (a === "Infinity" ? Infinity : a === "-Infinity" ? -Infinity : a)));
  } catch (error) {
    return { error: error.message };
  }
};
process.stdout.write(plain(calls.map((call) => answer(call) ?? null)));
