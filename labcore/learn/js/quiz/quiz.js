// The Quiz component: one chapter's checkpoint. spec: { quiz: "03", title, quizzes? }; the built book has the items in
// labcoreData.quizzes, a notebook sends them along.
(function (W) {
  "use strict";
  const { el, button, storage, alert, PRIMARY } = W.ui;
  const { ladder, progress } = W;

  const quizzes = (spec) => spec.quizzes || globalThis.labcoreData?.quizzes || {};

  function render({ el: host, spec, emit }) {
    const quiz = quizzes(spec)[spec.quiz];
    if (!quiz) throw new Error(`there is no quiz ${JSON.stringify(spec.quiz)}`);
    const card = el("div", { class: "lq-card" });

    function intro() {
      const data = progress.load();
      const day = ladder.today();
      const rows = progress.agenda([quiz], data, day, quiz.id);
      const due = rows.filter((row) => row.due <= day);
      const later = [...new Set(rows.filter((row) => row.due > day).map((row) => row.due))];
      const next = later.length ? ` The next ${due.length ? "after that " : ""}come on ${ladder.spoken(later[0])}.` : "";
      const all = quiz.items.map((item) => ({ quiz, item }));
      const go = (list) => () => W.session(card, list, { emit, finished: () => intro() });
      const status = due.length ? `${due.length} of ${all.length} questions are due today.` : rows.length ? "Nothing is due today." : "Every question has passed the whole ladder.";
      card.replaceChildren(
        el("p", { text: status + next }),
        el("p", { class: "lq-row" },
          due.length > 0 && button(`Start: ${due.length} due`, go(due), PRIMARY),
          button(`Practise all ${all.length}`, go(all))));
      const trouble = progress.trouble();
      if (trouble) card.append(alert(trouble));
    }

    const notice = storage.notice();
    const top = el("p", { class: "labcore-title", role: "heading", "aria-level": "3", text: `Checkpoint: ${quiz.title}` });
    host.append(top, card, ...(notice ? [notice] : []));
    intro();
  }

  W.register("quiz", { render });
  // The page's first mount may have come before this script: ask again when all scripts have run.
  globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
