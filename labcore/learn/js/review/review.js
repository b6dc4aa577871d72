// The Review component: what is due today across all chapters, what comes, what was missed, and the interview date.
(function (W) {
  "use strict";
  const { el, button, storage, table, uid, alert, PRIMARY } = W.ui;
  const { ladder, progress, transfer } = W;

  const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  function today(rows, day) {
    const due = rows.filter((row) => row.due <= day);
    const chapters = new Map();
    for (const { quiz } of due) chapters.set(quiz.title, (chapters.get(quiz.title) || 0) + 1);
    return { due, chapters: [...chapters].map(([title, n]) => `${title} (${n})`).join(", ") };
  }

  function ahead(rows, day) {
    const counts = new Map();
    for (const { due } of rows) if (due > day) counts.set(due, (counts.get(due) || 0) + 1);
    const list = [...counts].slice(0, 7).map(([when, n]) => [ladder.spoken(when), `in ${many(ladder.between(day, when), "day")}`, String(n)]);
    return list.length ? table("What comes next", ["Day", "", "Questions"], list) : null;
  }

  // One row a section that holds a miss, the latest first.
  function misses(quizzes, data) {
    const sections = new Map();
    for (const quiz of quizzes) {
      for (const item of quiz.items) {
        const record = data.items[item.id];
        if (record?.last !== "fail") continue;
        const key = `${item.page}#${item.section}`;
        const row = sections.get(key) || { quiz, item, n: 0, missed: "" };
        sections.set(key, { ...row, n: row.n + 1, missed: record.missed > row.missed ? record.missed : row.missed });
      }
    }
    const rows = [...sections.values()].sort((a, b) => (a.missed < b.missed ? 1 : -1));
    const cells = ({ quiz, item, n, missed }) => [W.sectionLink(item, item.heading), quiz.title, String(n), ladder.spoken(missed)];
    return rows.length ? table("The section behind every miss", ["Read again", "Chapter", "Missed", "Last on"], rows.map(cells)) : null;
  }

  function timeLeft(interview, day) {
    if (!interview) return "With a date five days off or more, the last review falls before it.";
    const left = ladder.between(day, interview);
    if (left < 0) return "That day has passed; the ladder runs at its usual pace.";
    if (left === 0) return "That is today. Good luck.";
    return `${many(left, "day")} left${left < 5 ? "." : left <= 21 ? "; waits are shortened to fit." : "; the whole ladder fits."}`;
  }

  // The date stays in place while the rest is drawn anew: a date typed digit by digit changes at every digit.
  function interview() {
    const id = uid("interview");
    const note = el("p", { class: "labcore-note" });
    const set = (value) => progress.save({ ...progress.load(), interview: value });
    const box = el("input", { id, type: "date", onchange: () => (box.value === "" || ladder.isDay(box.value)) && set(box.value || null) });
    const clear = button("Clear", () => {
      set(null);
      box.focus();
    });
    return {
      node: el("div", { class: "lq-interview" }, el("label", { for: id, text: "Interview on" }), box, clear, note),
      show(date, day) {
        if (document.activeElement !== box) box.value = date || "";
        clear.hidden = !date;
        note.textContent = timeLeft(date, day);
      },
    };
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
    // sorted here: an object puts a key like "10" before "00"
    const quizzes = Object.values(spec.quizzes || globalThis.labcoreData?.quizzes || {}).sort((a, b) => (a.id < b.id ? -1 : 1));
    const card = el("div", { class: "lq-card" });
    const date = interview();
    const tables = el("div", {});
    const message = el("p", { class: "labcore-note", role: "status" });
    let asking = false;
    const ask = (rows) => () => {
      asking = date.node.hidden = tables.hidden = true;
      W.session(card, rows, { emit, finished: overview });
    };

    function overview() {
      asking = date.node.hidden = tables.hidden = false;
      const data = progress.load();
      const day = ladder.today();
      const rows = progress.agenda(quizzes, data, day);
      const { due, chapters } = today(rows, day);
      const streak = progress.streak(data, rows, day);
      const begun = Object.keys(data.started).length > 0;
      const first = quizzes[0];
      const status = due.length ? `${many(due.length, "question")} due today: ${chapters}.` : begun ? "Nothing is due today." : "Nothing yet: answer a checkpoint, and its questions come back here.";
      const top = [
        el("p", { class: "lq-head", text: status }),
        due.length > 0 && el("p", {}, button("Start the review", ask(due), PRIMARY)),
        !begun && first && el("p", {}, W.sectionLink(first.items[0], `Begin with ${first.title}`)),
        streak > 1 && el("p", { class: "labcore-note", text: `${streak} review days in a row with nothing left waiting.` }),
        progress.trouble() && alert(progress.trouble()),
      ];
      card.replaceChildren(...top.filter(Boolean));
      date.show(data.interview, day);
      tables.replaceChildren(...[ahead(rows, day), misses(quizzes, data)].filter(Boolean));
    }

    const report = (sentence, bad) => {
      message.textContent = sentence;
      message.classList.toggle("labcore-error", bad);
      if (!bad) overview();
    };
    const refresh = () => asking || overview();
    const notice = storage.notice();
    host.append(card, date.node, tables, files(report), message, ...(notice ? [notice] : []));
    overview();
    const deaf = W.ui.follow(refresh);
    const wake = () => document.hidden || refresh(); // a page left open over midnight
    document.addEventListener("visibilitychange", wake);
    return () => {
      deaf();
      document.removeEventListener("visibilitychange", wake);
    };
  }

  W.register("review", { render });
  globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
