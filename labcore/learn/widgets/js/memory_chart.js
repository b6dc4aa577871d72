// One stacked bar of memory: what is taken, by whom, and whether it fits. Every segment has a pattern and a line of text.
(function (W) {
  "use strict";
  const { charts, ui } = W;
  const { svg, el } = ui;

  function patterns(prefix, segments) {
    return svg("defs", {}, segments.map((s, i) =>
      svg("pattern", { id: `${prefix}-${i}`, width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${[45, 135, 0, 90][i % 4]})` },
        svg("rect", { width: 8, height: 8, class: `lc-fill lc-${s.hue}` }), s.pattern ? svg("rect", { width: 3, height: 8, class: "lc-hatch" }) : null)));
  }

  // spec: { total, label, segments: [{ value, label, hue, pattern, spare }] }; values in bytes, drawn in order. A spare
  // segment is what is left over: it is not drawn once the others pass the total.
  charts.memory = (spec, env, width) => {
    const prefix = ui.uid("pattern");
    const total = env[spec.total];
    const all = spec.segments.map((s) => ({ ...s, bytes: Math.max(0, env[s.value] || 0) })).filter((s) => s.bytes > 0);
    const taken = all.reduce((sum, s) => sum + (s.spare ? 0 : s.bytes), 0);
    const segments = all.filter((s) => !s.spare || taken + s.bytes <= total * 1.0001);
    const used = segments.reduce((sum, s) => sum + s.bytes, 0);
    const box = { left: 8, right: width - 8, top: 30, bottom: 94, width: width - 16 };
    const x = charts.scale(0, Math.max(total, used) * 1.02, box.left, box.right, false);
    const nodes = [patterns(prefix, segments)];
    for (const v of charts.ticks(x, width < 480 ? 4 : 8)) {
      nodes.push(charts.line(x(v), box.bottom, x(v), box.bottom + 5, "lc-axis"));
      nodes.push(charts.text(x(v), box.bottom + 20, String(ui.number(v / 1e9)), { "text-anchor": v === 0 ? "start" : "middle", class: "lc-tick" }));
    }
    let at = 0;
    segments.forEach((s, i) => {
      const [from, to] = [x(at), x(at + s.bytes)];
      nodes.push(svg("rect", { x: from, y: box.top, width: Math.max(1, to - from), height: box.bottom - box.top, fill: `url(#${prefix}-${i})`, class: "lc-segment" }));
      at += s.bytes;
    });
    nodes.push(charts.line(x(total), box.top - 10, x(total), box.bottom + 4, "lc-limit"));
    const anchor = x(total) > width / 2 ? "end" : "start";
    nodes.push(charts.text(x(total) + (anchor === "end" ? -6 : 6), box.top - 13, `${spec.label}: ${ui.format(total, "B")}`, { "text-anchor": anchor, class: "lc-label" }));
    const texts = segments.map((s) => `${s.label} ${ui.format(s.bytes, "B")}`);
    const drawing = charts.root(width, box.bottom + 26, `Memory: ${texts.join("; ")}; of ${ui.format(total, "B")}.`, nodes, "memory (GB, 10⁹ bytes)");
    const key = segments.map((s, i) =>
      el("li", {}, svg("svg", { width: 18, height: 18, "aria-hidden": "true" }, svg("rect", { width: 18, height: 18, fill: `url(#${prefix}-${i})`, class: "lc-segment" })), el("span", {}, s.label), el("span", { class: "lc-amount" }, ui.format(s.bytes, "B"))));
    return el("div", {}, drawing, el("ul", { class: "lc-legend" }, key));
  };
})(globalThis.labcoreWidgets);
