// Attainable FLOP/s against arithmetic intensity, both axes logarithmic, with the operating points under the roof.
(function (W) {
  "use strict";
  const { charts, ui } = W;
  const { number } = ui;

  // The intensities shown: from left of the leftmost point to past the ridge; a point much further right stands at the edge.
  function range(ridge, points) {
    const at = points.map((p) => p.I);
    return [Math.min(0.7, ...at.map((I) => I * 0.6)), Math.min(ridge * 30, Math.max(ridge * 4, ...at.map((I) => I * 1.6)))];
  }

  // spec: { bandwidth, roofs: [{ peak, label }], points: [{ intensity, label, shape, hue, hollow }] }, all names in env.
  charts.roofline = (spec, env, width) => {
    const height = width < 480 ? 280 : 350;
    const box = { left: 54, right: width - 12, top: 8, bottom: height - 26 };
    box.width = box.right - box.left;
    const beta = env[spec.bandwidth];
    const roofs = [];
    for (const r of spec.roofs) {
      const F = env[r.peak];
      if (F > 0 && !roofs.some((other) => other.F === F)) roofs.push({ ...r, F, main: r === spec.roofs[0] });
    }
    const points = spec.points.filter((p) => env[p.intensity] > 0).map((p) => ({ ...p, I: env[p.intensity] }));
    const measured = env.measured ? env.measured.points : [];
    const top = Math.max(...roofs.map((r) => r.F));
    const xs = range(top / beta, [...points, ...measured]);
    const x = charts.scale(xs[0], xs[1], box.left, box.right, true);
    const y = charts.scale(Math.min(xs[0] * beta, ...measured.map((m) => m.rate * 0.6)), top * 2.2, box.bottom, box.top, true);
    const attainable = (I, F) => Math.min(F, I * beta);

    const nodes = charts.axes(box, x, y);
    for (const roof of [...roofs].reverse()) {
      const ridge = roof.F / beta;
      const name = roof.main ? "lc-roof" : "lc-roof lc-other";
      if (roof.main) {
        const under = [[x(x.low), box.bottom], [x(x.low), y(attainable(x.low, roof.F))], [x(ridge), y(roof.F)], [x(ridge), box.bottom]];
        nodes.push(charts.path(under, "lc-bound"));
      }
      nodes.push(charts.path([[x(x.low), y(attainable(x.low, roof.F))], [x.clamp(ridge), y(attainable(ridge, roof.F))], [box.right, y(roof.F)]], name));
      nodes.push(charts.text(box.right - 2, y(roof.F) - 8, `${roof.label} ${ui.format(roof.F, "FLOP/s")}`, { "text-anchor": "end", class: roof.main ? "lc-label" : "lc-tick" }));
      if (roof.main) {
        nodes.push(charts.line(x(ridge), y(roof.F), x(ridge), box.bottom, "lc-ridge"));
        nodes.push(charts.text(x(ridge) + 6, box.bottom - 9, `ridge ${number(ridge)}${width < 480 ? "" : " FLOP/B"}`, ridgeSide(x(ridge), box)));
      }
    }
    const slope = (Math.atan2(y(x.low * 10 * beta) - y(x.low * beta), x(x.low * 10) - x(x.low)) * 180) / Math.PI;
    const [bx, by] = [x(x.low) + 14, y(x.low * beta) - 24];
    nodes.push(charts.text(bx, by, ui.format(beta, "B/s"), { class: "lc-label", transform: `rotate(${slope.toFixed(1)} ${bx} ${by})` }));

    const F = roofs[0].F;
    const placed = points.map((p) => ({ ...p, x: x.clamp(p.I), y: y(attainable(p.I, F)) }));
    const narrow = width < 480 || measured.length > 0; // too little room beside the points: their names go below
    if (!narrow) nodes.push(charts.labels(placed, box, (at) => (at > box.left ? y(attainable(x.invert(at), F)) : box.bottom)));
    for (const m of measured) {
      nodes.push(charts.marker("cross", x.clamp(m.I), y(m.rate), m.hue));
      nodes.push(charts.text(x.clamp(m.I), y(m.rate) + 22, m.label, { "text-anchor": "middle", class: "lc-tick lc-measured" }));
    }
    for (const p of placed) nodes.push(charts.marker(p.shape, p.x, p.y, p.hue, p.hollow));
    const spoken = points.map((p) => `${p.label} ${number(p.I)} FLOP/B reaches ${ui.format(attainable(p.I, F), "FLOP/s")}`);
    const label = `Roofline, log axes: ridge at ${number(F / beta)} FLOP/B under ${ui.format(F, "FLOP/s")}. ${[...spoken, ...measured.map((m) => `measured: ${m.text}`)].join("; ")}.`;
    const keys = [...(narrow ? placed : []), ...crosses(measured)];
    const source = measured.length ? ui.el("p", { class: "labcore-note" }, env.measured.provenance) : null;
    return ui.el("div", {}, charts.root(width, height, label, nodes, "arithmetic intensity (FLOP/B), log", "attainable rate (FLOP/s), log"), keys.length ? charts.legend(keys) : null, source);
  };

  // What the crosses are, once for each phase: the number under a cross counts sequences, or tokens of a prompt.
  const PHASES = { decode: "measured decode step, with its batch", prefill: "measured prefill, with its tokens" };
  const crosses = (measured) => Object.keys(PHASES).filter((hue) => measured.some((m) => m.hue === hue)).map((hue) => ({ shape: "cross", hue, label: PHASES[hue] }));

  const ridgeSide = (at, box) => (at > box.right - 130 ? { "text-anchor": "end", dx: -12, class: "lc-label" } : { class: "lc-label" });
})(globalThis.labcoreWidgets);
