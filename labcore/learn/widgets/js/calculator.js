// The Calculator component: controls → steps → a sentence, a chart and a table, recomputed on every change.
(function (W) {
  "use strict";
  const { ui, charts, inputs } = W;
  const { el } = ui;

  // State → the names the steps use. Order matters: a precision needs its device, a model needs context and KV width.
  function environment(spec, state, model) {
    const env = {};
    const device = (id) => inputs.device(spec.inputs, id, state);
    const ofKind = (...kinds) => spec.inputs.filter((i) => kinds.includes(i.kind));
    for (const i of ofKind("number")) env[i.id] = state[i.id];
    for (const i of ofKind("choice")) Object.assign(env, i.choices.find((c) => c.value === state[i.id]).set);
    for (const i of ofKind("hardware")) {
      const { bandwidth, memory_bytes, usable_bytes, peak, measured } = device(i.id);
      Object.assign(env, { beta: bandwidth, memory: usable_bytes || memory_bytes, measured });
      for (const [dtype, rate] of Object.entries(peak)) env[`peak_${dtype}`] = rate;
    }
    for (const i of ofKind("precision")) {
      const choice = i.choices.find((c) => c.value === state[i.id]);
      Object.assign(env, choice.set, { F: inputs.peak(choice, device(i.of)) });
    }
    for (const i of ofKind("model")) Object.assign(env, W.models.environment(model, env));
    return env;
  }

  function row(result, env) {
    const marker = result.shape ? charts.key(result.shape, result.hue, result.hollow) : null;
    const there = env[result.id] != null && W.steps.holds(result.when, env);
    const shown = there ? ui.format(env[result.id], result.unit) : W.steps.sentence(result.otherwise, env) || "—";
    return el("tr", {}, el("th", { scope: "row" }, marker, result.label), el("td", { class: there ? "lc-value" : "lc-absent", "data-result": result.id }, shown));
  }

  function table(spec, env) {
    const rows = spec.results.filter((r) => !r.show || W.steps.holds(r.show, env)).map((r) => row(r, env));
    return [el("caption", { class: "labcore-sr" }, `Results: ${spec.title}`), el("tbody", {}, rows)];
  }

  function formulaList(spec) {
    const ids = [...new Set(spec.steps.map((s) => s.formula).filter(Boolean))];
    const known = globalThis.labcoreFormulas;
    return el("details", { class: "lc-formulas" }, el("summary", {}, "The formulas behind it"),
      el("ul", {}, ids.map((id) => el("li", {}, el("code", {}, `formula["${id}"]`), ` ${known[id].title}`))));
  }

  function render({ el: host, spec, emit }) {
    const controls = {};
    const live = ui.live();
    const title = el("p", { class: "labcore-title", id: ui.uid("title") }, spec.title);
    const figure = el("div", { class: "lc-figure" });
    const summary = el("p", { class: "lc-summary" });
    const results = el("table", { class: "labcore-table lc-results" });
    let last;

    const state = () => Object.fromEntries(spec.inputs.map((i) => [i.id, controls[i.id].get()]));
    const draw = () => {
      const width = Math.floor(figure.clientWidth) || 640;
      const kind = spec.chart && spec.chart.kind;
      if (!last || !kind) return;
      const input = spec.inputs.find((i) => i.id === spec.chart.input);
      figure.replaceChildren(charts[kind](spec.chart, last.env, width, spec.steps, last.given, input && [input.low, input.high]));
    };
    const update = () => {
      for (const c of Object.values(controls)) if (c.refresh) c.refresh(state(), spec.inputs);
      const now = state();
      const model = Object.values(controls).find((c) => c.model);
      const given = environment(spec, now, model && model.model());
      const env = W.steps.run(spec.steps, given);
      last = { env, given };
      const text = W.steps.sentence(spec.summary, env);
      summary.textContent = text;
      live.say(text);
      results.replaceChildren(...table(spec, env));
      draw();
      emit({ inputs: now, results: Object.fromEntries(spec.results.map((r) => [r.id, Number.isFinite(env[r.id]) ? env[r.id] : null])) });
    };

    for (const i of spec.inputs) controls[i.id] = inputs[i.kind](i, update);
    const reset = ui.button("Reset", () => {
      for (const i of spec.inputs) controls[i.id].set(i.value);
      update();
    });
    const form = el("form", { class: "lc-inputs", "aria-labelledby": title.id, onsubmit: (e) => e.preventDefault() }, spec.inputs.map((i) => controls[i.id].node), reset);
    host.append(title, spec.about ? el("p", { class: "labcore-note" }, spec.about) : "",
      summary, el("div", { class: "lc-columns" }, form, el("div", { class: "lc-outcome" }, figure, results)), live.node);
    update();
    host.append(formulaList(spec));
    const watch = new ResizeObserver(() => requestAnimationFrame(draw));
    watch.observe(figure);
    return () => watch.disconnect();
  }

  W.calculator = { environment };
  W.register("calculator", { render });
})(globalThis.labcoreWidgets);
