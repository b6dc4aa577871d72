// What the reader has done, kept under labcore.v1.progress: where every item stands, and a line for every day.
(function (W) {
  "use strict";
  const { ladder } = W;
  const { storage } = W.ui;
  const KEY = "progress";
  const fresh = () => ({ version: 1, interview: null, started: {}, items: {}, days: {} });

  // ---- validation: the first thing that is wrong, as the end of a sentence, or null --------------------------
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

  // ---- reading and writing --------------------------------------------------------------------------------------
  let trouble = null; // a sentence for the reader
  function load() {
    if (!storage.keys(KEY).includes(KEY)) return fresh();
    const data = storage.get(KEY);
    const problem = wrong(data);
    if (!problem) return data;
    // never throw away what somebody else damaged: it moves aside
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

  // Enter one answer. Returns the item's new record.
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

  // Every item of the quizzes the reader has begun (or of `also`), with the day it is due; soonest first.
  function agenda(quizzes, data = load(), day = ladder.today(), also = null) {
    const rows = [];
    for (const quiz of quizzes) {
      if (!data.started[quiz.id] && quiz.id !== also) continue;
      for (const item of quiz.items) {
        const due = when(data, quiz.id, item, day);
        if (due !== null) rows.push({ quiz, item, due });
      }
    }
    return rows.sort((a, b) => (a.due < b.due ? -1 : a.due > b.due ? 1 : 0));
  }

  // Days in a row on which nothing that was due had to wait. A day with nothing due neither counts nor breaks.
  function streak(data, rows, day = ladder.today()) {
    if (rows.some((row) => row.due < day)) return 0;
    let length = 0;
    for (const active of Object.keys(data.days).sort().reverse()) {
      length += 1;
      if (data.days[active].late > 0) break;
    }
    return length;
  }

  // Two histories as one: of each item and day the fuller record, so that importing never loses an answer.
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
