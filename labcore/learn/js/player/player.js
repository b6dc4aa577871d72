// The Player component: play, pause, step, scrub a recorded trace (labcore/learn/trace.py); a table of the same.
(function (W) {
  "use strict";
  const { el, button, number, uid, live, PRIMARY } = W.ui;
  const SPEEDS = [0.5, 1, 2, 5, 10]; // steps a second

  function table(spec, go) {
    const head = ["step", "what happens", ...spec.counters.map((c) => c.label + (c.unit === "1" ? "" : ` (${c.unit})`))];
    const rows = spec.steps.map((step, i) => {
      const cells = [step.text, ...spec.counters.map((c) => number(step.counters[c.name] / c.scale))];
      return el("tr", {}, el("td", {}, button(String(i), () => go(i), { "aria-label": `Go to step ${i}` })), cells.map((text) => el("td", { text })));
    });
    return el("div", { class: "lp-scroll", tabindex: "0", role: "region", "aria-label": "The trace as a table" },
      el("table", { class: "lq-table labcore-table" }, el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, rows)));
  }

  function render({ el: host, spec, emit }) {
    const last = spec.steps.length - 1;
    const view = W.views[spec.view](spec);
    const voice = live();
    const id = uid("step");
    let step = -1;
    let timer = null;

    const play = button("Play", () => (timer ? pause() : start()), PRIMARY);
    const scrubber = el("input", { id, type: "range", min: 0, max: last, step: 1, value: "0", oninput: () => go(+scrubber.value) });
    const speed = el("select", { "aria-label": "Speed", onchange: () => timer && start() }, SPEEDS.map((s) => el("option", { value: String(s), selected: s === 1, text: `${s} ${s > 1 ? "steps" : "step"}/s` })));
    const what = el("p", { class: "lp-what" });
    const counters = spec.counters.map((c) => [c, el("dd", {})]);
    const listing = el("details", { class: "lp-listing" }, el("summary", { text: "Every step as a table" }));
    listing.addEventListener("toggle", () => listing.open && listing.children.length === 1 && listing.append(table(spec, go)));

    function go(to) {
      const next = Math.max(0, Math.min(last, to));
      if (next === step) return;
      step = next;
      view.show(step);
      scrubber.value = String(step);
      scrubber.setAttribute("aria-valuetext", `step ${step} of ${last}: ${spec.steps[step].text}`);
      what.replaceChildren(el("strong", { text: `Step ${step} of ${last}. ` }), spec.steps[step].text);
      for (const [c, node] of counters) node.textContent = number(spec.steps[step].counters[c.name] / c.scale) + (c.unit === "1" ? "" : ` ${c.unit}`);
      emit({ step });
    }
    function pause() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
      voice.say(what.textContent);
    }
    function start() {
      clearInterval(timer);
      if (step === last) go(0);
      play.textContent = "Pause";
      timer = setInterval(() => {
        go(step + 1);
        if (step === last || !host.isConnected) pause();
      }, 1000 / +speed.value);
    }
    const by = (to) => {
      pause();
      go(to);
      voice.say(what.textContent);
    };
    const KEYS = { " ": () => play.click(), ArrowLeft: () => by(step - 1), ArrowRight: () => by(step + 1), Home: () => by(0), End: () => by(last) };
    const stage = el("div", { class: "lp-stage", tabindex: "0", role: "group", "aria-label": `${spec.title}: space plays, arrows step, Home and End jump` }, view.node);
    stage.addEventListener("keydown", (event) => {
      if (event.target !== stage || !KEYS[event.key]) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    host.append(
      el("p", { class: "labcore-title", text: spec.title }), stage, what,
      el("dl", { class: "lp-counters" }, counters.map(([c, node]) => el("div", {}, el("dt", { text: c.label }), node))),
      el("div", { class: "lp-controls" }, play, button("‹", () => by(step - 1), { "aria-label": "Step back" }), button("›", () => by(step + 1), { "aria-label": "Step forward" }), el("label", { for: id, class: "labcore-sr", text: "Step" }), scrubber, speed),
      listing, el("p", { class: "labcore-note", text: `Recorded: ${spec.source}` }), voice.node);
    go(0);
    return () => clearInterval(timer);
  }

  W.register("player", { render });
  globalThis.document?.addEventListener("DOMContentLoaded", () => W.mount(document));
})(globalThis.labcoreWidgets);
