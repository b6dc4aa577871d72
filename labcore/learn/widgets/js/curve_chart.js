// One result against one input, everything else held: the line, and the point where the inputs stand now.
(function (W) {
  "use strict";
  const { charts, ui } = W;

  // spec: { input, results: [{ value, label, hue }], log: [x?, y?], unit, xTitle, yTitle }
  charts.curve = (spec, env, width, steps, given, range) => {
    const height = width < 480 ? 250 : 310;
    const box = { left: 54, right: width - 14, top: 8, bottom: height - 26, width: width - 68 };
    const [xlog, ylog] = spec.log;
    const samples = Array.from({ length: 81 }, (_, i) => {
      const u = i / 80;
      return xlog ? range[0] * (range[1] / range[0]) ** u : range[0] + (range[1] - range[0]) * u;
    });
    const runs = samples.map((v) => [v, W.steps.run(W.steps.plain(steps), { ...given, [spec.input]: v })]);
    const good = (v) => Number.isFinite(v) && (!ylog || v > 0);
    const values = [...runs.map(([, e]) => e), env].flatMap((e) => spec.results.map((r) => e[r.value])).filter(good);
    if (!values.length) return ui.el("p", { class: "labcore-note", text: "Nothing to draw for these inputs." });
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (ylog) [low, high] = [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))];
    else {
      if (low > 0 && low < 0.6 * high) low = 0; // else the axis starts near the lowest value, and its ticks say so
      const room = (high - low || Math.abs(high) || 1) * 0.08;
      [low, high] = [low === 0 ? 0 : low - room, high + room];
    }
    const x = charts.scale(range[0], range[1], box.left, box.right, xlog);
    const y = charts.scale(low, high, box.bottom, box.top, ylog);
    const nodes = charts.axes(box, x, y);
    const here = x.clamp(env[spec.input]);
    nodes.push(charts.line(here, box.top, here, box.bottom, "lc-ridge"));
    const points = [];
    spec.results.forEach((r, i) => {
      const drawn = runs.filter(([, e]) => good(e[r.value])).map(([v, e]) => [x(v), y(e[r.value])]);
      nodes.push(charts.path(drawn, `lc-curve lc-${r.hue}${i ? " lc-dashed" : ""}`));
      if (good(env[r.value])) points.push({ ...r, x: here, y: y(env[r.value]), shape: ["circle", "square", "triangle"][i % 3] });
    });
    const shown = points.map((p) => ({ ...p, text: ui.format(env[p.value], spec.unit) }));
    nodes.push(charts.labels(shown.map((p) => ({ ...p, label: p.text })), box));
    nodes.push(points.map((p) => charts.marker(p.shape, p.x, p.y, p.hue)));
    const label = shown.map((p) => `${p.label} ${p.text}`).join("; ");
    const drawing = charts.root(width, height, `${spec.yTitle} against ${spec.xTitle}. Now: ${label}.`, nodes, spec.xTitle + (xlog ? ", log" : ""), spec.yTitle + (ylog ? ", log" : ""));
    return ui.el("div", {}, drawing, points.length > 1 ? charts.legend(points) : null);
  };
})(globalThis.labcoreWidgets);
