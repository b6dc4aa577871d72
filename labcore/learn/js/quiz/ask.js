// A session: questions one after the other, each graded at its first answer, and a summary at the end.
(function (W) {
  "use strict";
  const { el, button, alert, PRIMARY } = W.ui;
  const { ladder, progress, text, grade } = W;
  const KINDS = { numeric: "number", single: "one choice", multi: "several choices", order: "order", cloze: "fill in", predict: "estimate", diagnose: "diagnose", spoken: "say it aloud" };
  const LEVELS = { M: "mid-level", S: "senior", T: "staff" };

  // A link to the section that explains an item, from any page of the built book; in a notebook, its name.
  const link = (item, label) => {
    const root = document.documentElement.dataset.content_root;
    return root !== undefined ? el("a", { href: `${root}${item.page}.html${item.section && `#${item.section}`}`, text: label }) : el("span", { text: `${label}: ${item.heading} (${item.page})` });
  };

  function comesBack(record) {
    if (record.rung === null) return "It has passed the whole ladder.";
    const day = ladder.due(record, progress.load().interview);
    const wait = ladder.between(ladder.today(), day);
    return wait <= 0 ? "It is due today." : `It comes back on ${ladder.spoken(day)}, in ${wait} ${wait === 1 ? "day" : "days"}.`;
  }

  // Ask one item in `card`. next(followUp) goes on; answered(outcome) is called once.
  function ask(card, { quiz, item }, place, { answered, next }) {
    const live = W.ui.live();
    const values = grade.draw(item, progress.load().items[item.id]?.n || 0);
    const fill = (source) => text.fill(source, values, quiz.units);
    const seed = text.seedOf(item.id) + (progress.load().items[item.id]?.n || 0);
    const check = button("Check", null, { type: "submit", ...PRIMARY });
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
    const error = alert();
    const verdict = el("div", { class: "lq-verdict", tabindex: "-1", role: "group", "aria-label": "Result" });
    const fields = el("fieldset", { class: "lq-fields" }, el("legend", { class: "labcore-sr", text: "Your answer" }), control.stem, control.node);
    const goOn = button(place.last ? "Finish" : "Next question", () => leave(), PRIMARY);
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
        if (hint) hint.hidden = false;
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
      if (hint) hint.hidden = true;
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

  // Ask all `rows` ({ quiz, item }) in `card`, then summarise; finished() is called at the end.
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
      const list = [...sections.values()].map((item) => el("li", {}, link(item, item.heading)));
      card.replaceChildren(head, ...(list.length ? [el("p", { text: "Worth reading again:" }), el("ul", {}, list)] : []), el("p", {}, button("Done", finished)));
      head.focus();
    }
    step(0);
  }

  W.session = session;
  W.sectionLink = link;
})(globalThis.labcoreWidgets);
