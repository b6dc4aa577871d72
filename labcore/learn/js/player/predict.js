// The Predict box: asks for a number before it is computed, keeps it, and shows it beside the result.
// spec: { id, question, unit, reveal? }; `reveal` is in `unit`.
(function (W) {
  "use strict";
  const { el, button, storage, number, uid, alert } = W.ui;
  const CHANGED = "labcore:predict";

  const withUnit = (value, unit) => number(value) + (unit === "1" ? "" : ` ${unit}`);

  function verdict(mine, truth) {
    if (mine === truth) return "exactly right";
    if (!(mine / truth > 0)) return "of the wrong sign or size altogether";
    const ratio = mine / truth;
    const percent = Math.abs(ratio - 1) * 100;
    if (percent < 100) return `${number(percent, 2)} % too ${ratio > 1 ? "high" : "low"}`;
    return `${number(ratio, 2)} times the result`;
  }

  function render({ el: host, spec, emit }) {
    const key = `predict.${spec.id}`;
    const body = el("div", {});
    const form = () => {
      const id = uid("predict");
      const kept = storage.get(key);
      const box = el("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", class: "lq-number", value: kept ? String(kept.value) : "" });
      const error = alert();
      const keep = (event) => {
        event.preventDefault();
        const given = W.grade.parse(box.value, spec.unit);
        error.textContent = given.error || "";
        if (given.error) return;
        storage.set(key, { value: given.value, unit: spec.unit });
        emit({ id: spec.id, value: given.value, unit: spec.unit });
        dispatchEvent(new CustomEvent(CHANGED, { detail: { id: spec.id, from: host } }));
        draw();
        body.querySelector("button")?.focus();
      };
      return el("form", { novalidate: true, onsubmit: keep }, el("p", { class: "lq-row" }, el("label", { for: id, text: `Your number${spec.unit === "1" ? "" : ` in ${spec.unit}`}` }), box, button("Keep it", null, { type: "submit" })), error);
    };

    function draw(editing = false) {
      const mine = storage.get(key);
      const known = mine && mine.unit === spec.unit;
      const revealed = spec.reveal !== undefined;
      const change = !revealed && known && !editing && button("Change it", () => {
        draw(true);
        body.querySelector("input").focus();
      });
      const rows = revealed && el("p", { class: "lq-head" },
        el("span", { class: "lp-mine", text: known ? `You predicted ${withUnit(mine.value, spec.unit)}` : "You made no prediction" }), " · ",
        el("strong", { text: `computed ${withUnit(spec.reveal, spec.unit)}` }),
        known ? ` · your number is ${verdict(mine.value, spec.reveal)}.` : ".");
      const stated = !revealed && known && !editing && el("p", {}, "You predicted ", el("strong", { text: withUnit(mine.value, spec.unit) }), ". The result comes below. ", change);
      body.replaceChildren(...[rows, stated, !revealed && (!known || editing) && form()].filter(Boolean));
    }

    const notice = spec.reveal === undefined && storage.notice();
    const title = spec.reveal === undefined ? "Predict first. " : "Predicted and computed. ";
    host.append(el("p", {}, el("strong", { text: title }), spec.question), body, ...(notice ? [notice] : []));
    draw();
    const follow = (event) => event.detail.id === spec.id && event.detail.from !== host && draw();
    addEventListener(CHANGED, follow);
    return () => removeEventListener(CHANGED, follow);
  }

  W.register("predict", { render });
})(globalThis.labcoreWidgets);
