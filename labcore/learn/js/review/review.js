// The Review component: what is due today across all chapters, what comes, what was missed, and the interview date.
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

  // One row a section that holds a miss, the latest first.
  function misses(quizzes, data) {
    const sections = new Map();
    for (const quiz of Object.values(quizzes)) {
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
    return rows.length ? table(["Read again", "Chapter", "Missed", "Last on"], rows.map(cells), "The section behind every miss") : null;
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
        !begun && first && el("p", {}, W.sectionLink(first.items[0], `Begin with ${first.title}`)),
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
