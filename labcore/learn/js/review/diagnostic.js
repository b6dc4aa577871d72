// The Diagnostic component: questions without feedback in between, then a score, a path and its days.
// spec: { quiz, paths, topics, section_minutes, review }, see labcore/learn/book_ext/diagnostic.py. Kept under labcore.v1.diagnostic:
// { day, n, answers: { item id: "right" | "wrong" | "skipped" }, path: what the reader chose instead, or null }.
(function (W) {
  "use strict";
  const { el, button, storage, table, alert, PRIMARY } = W.ui;
  const { ladder, progress, text, grade, plan } = W;
  const KEY = "diagnostic";
  const ANSWERS = { right: "✓ right", wrong: "✗ wrong", skipped: "– not known" };

  // Whether a kept or imported record can be used.
  function good(data) {
    const { day, n, answers, path } = data || {};
    const known = (answer) => Object.keys(ANSWERS).includes(answer);
    return ladder.isDay(day) && Number.isInteger(n) && n >= 0 && Object.values(answers || [""]).every(known) && (path === null || typeof path === "string");
  }

  function load() {
    const data = storage.get(KEY);
    return good(data) ? data : null;
  }

  // An item under its n-th draw: the control of its kind, its texts with the values written in.
  function pose(quiz, item, n, say) {
    const values = grade.draw(item, n);
    const fill = (source) => text.fill(source, values, quiz.units);
    const order = (count) => text.shuffled([...Array(count).keys()], text.seedOf(item.id) + n);
    const control = W.controls[item.kind](item, values, { fill, shown: (source) => text.inline(fill(source)), say, order });
    const written = (source) => el("div", {}, text.paragraphs(fill(source)));
    return { control, fill, stem: written(item.stem), explain: () => written(item.explain) };
  }

  // Ask one item; done("right" | "wrong" | "skipped") is called once.
  function ask(card, quiz, item, n, done) {
    const live = W.ui.live();
    const { control, stem } = pose(quiz, item, n, live.say);
    const error = alert();
    const submit = (event) => {
      event.preventDefault();
      const given = control.read();
      error.textContent = given.error || "";
      if (!given.error) done(control.grade(given).outcome === "fail" ? "wrong" : "right");
    };
    const heading = el("p", { class: "lq-meta", tabindex: "-1", text: `Question ${quiz.items.indexOf(item) + 1} of ${quiz.items.length}` });
    card.replaceChildren(heading,
      el("form", { novalidate: true, onsubmit: submit },
        el("div", { class: "lq-stem" }, stem),
        el("fieldset", { class: "lq-fields" }, el("legend", { class: "labcore-sr", text: "Your answer" }), control.node), error,
        el("p", { class: "lq-row" }, button("Answer", null, { type: "submit", ...PRIMARY }), button("I do not know", () => done("skipped")))),
      live.node);
    heading.focus();
  }

  function explained(quiz, item, { n, answers }) {
    const { control, fill, stem, explain } = pose(quiz, item, n);
    const mark = el("p", {}, el("strong", { text: ANSWERS[answers[item.id]] }), " · ", W.sectionLink(item, item.heading));
    return el("li", {}, mark, stem, W.exhibit(item, fill), el("div", {}, "The answer: ", control.answer()), explain());
  }

  // Why this path, in a sentence. left: days to the interview, or null.
  function why({ asked, path }, score, left) {
    const wants = `${score} right. That asks for the ${asked.id} path`;
    if (left === null) return `${wants}. With an interview date set in Review, it is fitted to the days you have.`;
    const days = `your interview is in ${left} ${left === 1 ? "day" : "days"}`;
    return asked === path ? `${wants}, and ${days}.` : `${wants}, but ${days}: take the ${path.id} path.`;
  }

  function render({ el: host, spec, emit }) {
    const { quiz, paths, topics } = spec;
    const count = quiz.items.length;
    const card = el("div", { class: "lq-card" });
    const trouble = alert();
    let record = load();
    const keep = (data) => {
      record = data;
      trouble.textContent = storage.set(KEY, data) || !storage.persistent ? "" : "The browser refused to store this answer: its storage is full.";
    };
    const open = () => quiz.items.find((item) => !record?.answers[item.id]);
    const restart = (n) => {
      record = { day: ladder.today(), n, answers: {}, path: null };
      step();
    };

    function step() {
      const item = open();
      if (!item) return draw(true);
      ask(card, quiz, item, record.n, (answer) => {
        keep({ ...record, day: ladder.today(), answers: { ...record.answers, [item.id]: answer } });
        step();
      });
    }

    function intro() {
      const at = quiz.items.indexOf(open());
      const [label, begin] = at ? [`Go on with question ${at + 1}`, step] : ["Start the diagnostic", () => restart(0)];
      card.replaceChildren(
        el("p", { text: `${count} questions, about ten minutes, with a calculator if you like. “I do not know” is a good answer: the path is built from what you miss.` }),
        el("p", {}, button(label, begin, PRIMARY)));
    }

    function pick(path, chosen) {
      const one = (option) => {
        const choose = () => {
          keep({ ...record, path: option === chosen ? null : option.id });
          draw();
          card.querySelector(":checked").focus();
        };
        return el("label", { class: "lq-option" }, el("input", { type: "radio", name: KEY, checked: option === path, onchange: choose }), el("span", {}, option.id + (option === chosen ? ", yours" : "")));
      };
      return el("fieldset", { class: "lq-options lq-picks" }, el("legend", { text: "Path" }), paths.map(one));
    }

    function calendar(path, missed, left) {
      const length = left === null ? path.days : Math.min(path.days, Math.max(1, left));
      const { daily, rows } = plan.schedule(plan.tasks(path, topics, missed, spec.section_minutes), length);
      const on = (day) => ladder.spoken(ladder.add(record.day, day - 1));
      const when = ({ first, last }) => (first === last ? `Day ${first}, ${on(first)}` : `Days ${first} to ${last}, until ${on(last)}`);
      const what = (task) => el("div", {}, W.sectionLink({ ...task, heading: task.label }, task.label), ` ${task.minutes} min`);
      return table(`The ${path.id} path: about ${Math.ceil(daily / 5) * 5} minutes a day`, ["When", "What"], rows.map((row) => [when(row), row.tasks.map(what)]));
    }

    function result(focus) {
      const missed = quiz.items.filter((item) => record.answers[item.id] !== "right");
      const right = count - missed.length;
      const { interview } = progress.load();
      const until = interview ? ladder.between(ladder.today(), interview) : -1;
      const left = until < 0 ? null : until;
      const found = plan.choose(paths, right / count, left);
      const path = paths.find((one) => one.id === record.path) || found.path;
      const head = el("p", { class: "lq-head", tabindex: "-1", text: why(found, `${right} of ${count}`, left) });
      card.replaceChildren(head, pick(path, found.path), calendar(path, missed, left),
        el("p", {}, "Every day besides: what ", W.sectionLink({ page: spec.review, section: "review", heading: "Review" }, "Review"), " asks for."),
        el("details", {}, el("summary", { text: "Your answers, and the right ones" }), el("ol", {}, quiz.items.map((item) => explained(quiz, item, record)))),
        el("p", {}, button("Take it again, with other numbers", () => restart(record.n + 1))));
      if (focus) head.focus();
      emit({ right, of: count, path: path.id });
    }

    const draw = (focus) => (open() ? intro() : result(focus));
    host.append(el("p", { class: "labcore-title", role: "heading", "aria-level": "3", text: quiz.title }), card, trouble, storage.notice() || "");
    draw();
    return W.ui.follow(() => {
      if (card.querySelector("form")) return;
      record = load() || record;
      draw();
    });
  }

  W.diagnostic = { KEY, load, good };
  W.register("diagnostic", { render });
})(globalThis.labcoreWidgets);
