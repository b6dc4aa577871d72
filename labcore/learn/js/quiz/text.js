// Texts of quiz items: values filled in, light markup as nodes, and the shuffle that Python makes too (quiz/text.py,
// quiz/variants.py).
(function (W) {
  "use strict";
  const { el, number } = W.ui;
  const FIELD = /\{(\w+)(?::([^{}]+))?\}/g;
  const FIXED = /^,?\.(\d)(f|%)$/;
  const MATH = /(\$[^$]+\$)/;
  const SPAN = /\x60([^\x60]+)\x60|\*\*([^*]+)\*\*|\*([^*]+)\*|\$([^$]+)\$/g;

  // mulberry32
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  const seedOf = (text) => new TextEncoder().encode(text).reduce((h, byte) => Math.imul(h ^ byte, 0x01000193) >>> 0, 0x811c9dc5);

  function shuffled(values, seed) {
    const order = [...values];
    const random = uniform(seed);
    for (let last = order.length - 1; last > 0; last--) {
      const other = Math.floor(random() * (last + 1));
      [order[last], order[other]] = [order[other], order[last]];
    }
    return order;
  }

  function fixed(value, decimals) {
    const [whole, part] = Math.abs(value).toFixed(decimals).split(".");
    return (value < 0 ? "−" : "") + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
  }

  function shown(value, spec, units) {
    if (typeof value === "string") return value;
    if (!spec) return number(value);
    const match = FIXED.exec(spec);
    if (!match) return `${number(value / units[spec])} ${spec}`;
    return match[2] === "%" ? `${fixed(value * 100, +match[1])} %` : fixed(value, +match[1]);
  }

  const fill = (text, values, units) =>
    text.split(MATH).map((part) => (part.startsWith("$") ? part : part.replace(FIELD, (_, name, spec) => shown(values[name], spec, units)))).join("");

  function math(tex) {
    const node = el("span", { class: "math mathjax_process", text: globalThis.MathJax?.typesetPromise ? `\\(${tex}\\)` : tex });
    if (globalThis.MathJax?.typesetPromise) queueMicrotask(() => globalThis.MathJax.typesetPromise([node]));
    return node;
  }

  // One paragraph as nodes: `code`, **strong**, *emphasis*, $math$.
  function inline(text) {
    const nodes = [];
    let end = 0;
    for (const match of text.matchAll(SPAN)) {
      const [whole, code, strong, emphasis, tex] = match;
      nodes.push(text.slice(end, match.index));
      nodes.push(tex ? math(tex) : el(code ? "code" : strong ? "strong" : "em", { text: code || strong || emphasis }));
      end = match.index + whole.length;
    }
    return [...nodes, text.slice(end)];
  }

  const paragraphs = (text) => text.trim().split(/\n\s*\n/).map((part) => el("p", {}, inline(part.replace(/\s+/g, " "))));

  W.text = { uniform, seedOf, shuffled, fixed, fill, inline, paragraphs };
})(globalThis.labcoreWidgets);
