// Small SVG charts drawn at the width they get, so that text keeps its size on a phone.
(function (W) {
  "use strict";
  const { ui } = W;
  const { svg, number } = ui;
  const charts = (W.charts = {});
  const SHORT = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1e-4, ""], [1e-6, "µ"], [1e-9, "n"]];

  // 2e12 → "2T", 0.5 → "0.5": a tick label; the axis title carries the unit.
  charts.tick = (value) => {
    if (value === 0) return "0";
    const [scale, prefix] = SHORT.find(([step]) => Math.abs(value) >= step * 0.9999) || SHORT[SHORT.length - 1];
    return number(prefix ? value / scale : value, 3) + prefix;
  };

  charts.scale = (low, high, from, to, log) => {
    const f = log ? Math.log10 : (x) => x;
    const place = (x) => from + ((f(x) - f(low)) / (f(high) - f(low))) * (to - from);
    const invert = (at) => {
      const u = f(low) + ((at - from) / (to - from)) * (f(high) - f(low));
      return log ? 10 ** u : u;
    };
    return Object.assign(place, { low, high, log, invert, clamp: (x) => place(Math.min(high, Math.max(low, x))) });
  };

  // About `count` round values in range: powers of ten on a log axis, multiples of 1, 2 or 5 on a linear one.
  charts.ticks = (scale, count) => {
    const out = [];
    if (scale.log) {
      const [first, last] = [Math.ceil(Math.log10(scale.low) - 1e-9), Math.floor(Math.log10(scale.high) + 1e-9)];
      const every = Math.max(1, Math.ceil((last - first + 1) / count));
      for (let power = first; power <= last; power += every) out.push(10 ** power);
      if (out.length >= 3) return out;
      const fine = [];
      for (let power = first - 1; power <= last; power++) for (const m of [1, 2, 5]) fine.push(m * 10 ** power);
      return fine.filter((x) => x >= scale.low * 0.999 && x <= scale.high * 1.001);
    }
    const rough = (scale.high - scale.low) / count;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough);
    for (let x = Math.ceil(scale.low / step) * step; x <= scale.high * 1.0001; x += step) out.push(Number(x.toPrecision(12)));
    return out;
  };

  charts.line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
  charts.text = (x, y, label, attrs) => svg("text", { x, y, ...attrs }, label);
  charts.path = (points, name) => svg("path", { d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), class: name });

  // Both axes with ticks and grid.
  charts.axes = (box, x, y) => {
    const nodes = [];
    for (const v of charts.ticks(x, box.width < 480 ? 4 : 7)) {
      nodes.push(charts.line(x(v), box.top, x(v), box.bottom, "lc-grid"));
      nodes.push(charts.text(x(v), box.bottom + 18, charts.tick(v), { "text-anchor": "middle", class: "lc-tick" }));
    }
    for (const v of charts.ticks(y, 5)) {
      nodes.push(charts.line(box.left, y(v), box.right, y(v), "lc-grid"));
      nodes.push(charts.text(box.left - 7, y(v) + 4, charts.tick(v), { "text-anchor": "end", class: "lc-tick" }));
    }
    nodes.push(charts.line(box.left, box.bottom, box.right, box.bottom, "lc-axis"));
    nodes.push(charts.line(box.left, box.top, box.left, box.bottom, "lc-axis"));
    return nodes;
  };

  const SHAPES = {
    circle: "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0Z",
    square: "M-6-6H6V6H-6Z",
    triangle: "M0-8L7.5 6H-7.5Z",
    diamond: "M0-8L8 0L0 8L-8 0Z",
    cross: "M-7-4.5L-4.5-7L0-2.5L4.5-7L7-4.5L2.5 0L7 4.5L4.5 7L0 2.5L-4.5 7L-7 4.5L-2.5 0Z",
  };
  // Points differ by shape first, by colour second.
  charts.marker = (shape, x, y, hue, hollow) =>
    svg("path", { d: SHAPES[shape], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `lc-marker lc-${hue}${hollow ? " lc-hollow" : ""}` });

  // The same marker inline, to tie a table row or a sentence to its point.
  charts.key = (shape, hue, hollow) =>
    svg("svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, class: "lc-key", "aria-hidden": "true" }, charts.marker(shape, 0, 0, hue, hollow));

  charts.legend = (points) =>
    ui.el("ul", { class: "lc-keys" }, points.map((p) => ui.el("li", {}, charts.key(p.shape, p.hue, p.hollow), p.label)));

  // The drawing, with the axis titles as text around it that wraps on a phone.
  charts.root = (width, height, label, nodes, xTitle, yTitle) =>
    ui.el("div", {}, yTitle ? ui.el("p", { class: "lc-axis-title" }, `↑ ${yTitle}`) : null,
      svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "lc-chart" }, nodes),
      ui.el("p", { class: "lc-axis-title lc-x" }, `${xTitle} →`));

  // Labels beside points, to the right and below, pushed apart until none overlaps; a thin leader ties each to its point.
  // `under(x)` is the lowest y that something drawn reaches at x: a label that has to stand left of its point keeps below.
  charts.labels = (points, box, under = () => -Infinity) => {
    const apart = 19;
    const placed = [...points].sort((a, b) => a.y - b.y || b.x - a.x).map((p) => {
      const wide = p.label.length * 8.2;
      const right = p.x + 18 + wide < box.right;
      return { ...p, right, at: Math.max(p.y + 22, right ? 0 : under(p.x - 18 - wide) + 18) };
    });
    placed.forEach((p, i) => (p.at = Math.max(p.at, i ? placed[i - 1].at + apart : 0)));
    let room = box.bottom - 7;
    for (const p of placed.reverse()) [p.at, room] = [Math.min(p.at, room), Math.min(p.at, room) - apart];
    return placed.map(({ x, y, label, right, at }) => {
      const start = right ? x + 18 : x - 18;
      const leader = charts.line(x, y, start + (right ? -3 : 3), at - 4, "lc-leader");
      return [leader, charts.text(start, at, label, { "text-anchor": right ? "start" : "end", class: "lc-label" })];
    });
  };
})(globalThis.labcoreWidgets);
