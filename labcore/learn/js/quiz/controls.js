// One control a kind: build(item, values, ctx) → { node, read() → the reader's answer or { error }, grade(answer),
// answer() → the right answer as nodes, stop() }. ctx: fill(text), shown(text) → nodes, say(text), order(n) → indices.
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

  const exhibit = (item, fill) =>
    item.exhibit && el("pre", { class: "lq-exhibit", tabindex: "0", role: "region", "aria-label": "Exhibit", text: fill(item.exhibit) });

  function choice(item, values, ctx) {
    const many = item.kind === "multi";
    const name = uid("choice");
    const boxes = [];
    const rows = ctx.order(item.options.length).map((index) => {
      const box = el("input", { type: many ? "checkbox" : "radio", name, value: String(index) });
      boxes.push(box);
      return el("label", { class: "lq-option" }, box, el("span", {}, ctx.shown(item.options[index].text)));
    });
    return {
      node: [exhibit(item, ctx.fill), el("fieldset", { class: "lq-options" }, el("legend", { text: many ? "Pick all that are right" : "Pick one" }), rows)],
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
      return el("li", {}, el("div", { class: "lq-entry" }, el("span", {}, ctx.shown(entry.text)), el("span", { class: "lq-moves" }, move("↑", "Move up"), move("↓", "Move down"))));
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
      el("fieldset", { class: "lq-options" }, el("legend", { text: "Then compare with three answers and grade yours" }),
        grades.map(([box, label, signs, sample]) => [
          el("label", { class: "lq-option" }, box, el("span", {}, el("strong", { text: `${label}: ` }), label === "Strong" ? "every point above" : ctx.shown(signs.join("; ")))),
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

  W.exhibit = exhibit;
  W.controls = { numeric: number, predict: number, single: choice, multi: choice, diagnose: choice, order, cloze, spoken };
})(globalThis.labcoreWidgets);
