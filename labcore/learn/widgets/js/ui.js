// What every component needs: build elements, write numbers with units, announce results, remember state.
(function (ui) {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  let serial = 0;

  function fill(node, attrs, children) {
    for (const [key, value] of Object.entries(attrs || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on") && typeof value === "function") node.addEventListener(key.slice(2), value);
      else if (key === "text") node.textContent = value;
      else if (key === "value" && "value" in node) node.value = value;
      else if (key === "style" && typeof value === "object") Object.assign(node.style, value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }

  // el("button", { class: "x", onclick: f, disabled: true }, "text", node, [more]); false, null, undefined are left out.
  ui.el = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
  ui.svg = (tag, attrs, ...children) => fill(document.createElementNS(SVG, tag), attrs, children);
  ui.uid = (prefix) => `labcore-${prefix}-${++serial}`;
  ui.button = (label, onclick, attrs) => ui.el("button", { type: "button", class: "labcore-button", onclick, ...attrs }, label);

  ui.PRIMARY = { class: "labcore-button labcore-primary" };
  ui.alert = (text) => ui.el("p", { class: "labcore-note labcore-error", role: "alert", text });

  // A table of data: a caption, column heads, and rows of cells (text, nodes, lists of them).
  ui.table = (caption, head, rows) => {
    const cells = (tag, row, attrs) => ui.el("tr", {}, row.map((cell) => ui.el(tag, attrs, cell)));
    return ui.el("table", { class: "lq-table labcore-table" }, ui.el("caption", { text: caption }),
      ui.el("thead", {}, cells("th", head, { scope: "col" })), ui.el("tbody", {}, rows.map((row) => cells("td", row))));
  };

  // Call `redraw` whenever the reader's progress changes, in this tab or another; returns what ends that.
  ui.follow = (redraw) => {
    const events = ["storage", "labcore:progress"];
    for (const event of events) globalThis.addEventListener(event, redraw);
    return () => events.forEach((event) => globalThis.removeEventListener(event, redraw));
  };

  // A polite live region: append `.node`, then call `.say(text)`; bursts are spoken once, when they have settled.
  ui.live = () => {
    const node = ui.el("div", { class: "labcore-sr", role: "status", "aria-live": "polite" });
    let timer;
    return {
      node,
      say(text) {
        clearTimeout(timer);
        timer = setTimeout(() => (node.textContent = text), 400);
      },
    };
  };

  ui.calm = () => globalThis.matchMedia && matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---- numbers ----------------------------------------------------------------------------------------------
  const group = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");

  // Four significant digits below 1,000, whole numbers with thousands separators above: 0.3094, 12.5, 2,903.
  ui.number = (value, digits = 4) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "—";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(digits - 1).replaceAll("-", "−");
    const text = size >= 1000 ? size.toFixed(0) : String(Number(size.toPrecision(digits)));
    const [whole, part] = text.split(".");
    return (value < 0 ? "−" : "") + group(whole) + (part ? `.${part}` : "");
  };

  const UP = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
  const DOWN = [...UP, [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const BINARY = [[2 ** 40, "Ti"], [2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"]];
  const PREFIXED = { B: UP, FLOP: UP, "FLOP/s": UP, "B/s": UP, s: DOWN, J: DOWN, W: UP };

  function prefixed(value, unit, table) {
    const [scale, prefix] = table.find(([step]) => Math.abs(value) >= step * 0.99995) || table[table.length - 1];
    return `${ui.number(value / scale)} ${prefix}${unit}`;
  }

  // A value in base units as text: format(2.684e9, "B") is "2.684 GB = 2.5 GiB", format(0.0125, "s") is "12.5 ms".
  ui.format = (value, unit) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return ui.number(value);
    if (!unit || unit === "1") return ui.number(value);
    if (unit.startsWith("USD")) return `USD ${ui.number(value)}${unit.slice(3)}`;
    if (unit === "%") return `${ui.number(value * 100)} %`;
    const table = PREFIXED[unit];
    if (!table) return `${ui.number(value)} ${unit}`;
    const decimal = prefixed(value === 0 ? 0 : value, unit, value === 0 ? [[1, ""]] : table);
    return unit === "B" && Math.abs(value) >= 1024 ? `${decimal} = ${prefixed(value, unit, BINARY)}` : decimal;
  };

  // ---- state ------------------------------------------------------------------------------------------------
  // Everything lives under labcore.v1.*; without localStorage (private mode, blocked) it lives until the page closes.
  const PREFIX = "labcore.v1.";
  const memory = new Map();
  const store = (() => {
    try {
      const probe = `${PREFIX}probe`;
      localStorage.setItem(probe, "1");
      localStorage.removeItem(probe);
      return localStorage;
    } catch {
      return null;
    }
  })();

  ui.storage = {
    persistent: store !== null,
    get(key, otherwise = null) {
      try {
        const text = store ? store.getItem(PREFIX + key) : memory.get(key);
        return text === null || text === undefined ? otherwise : JSON.parse(text);
      } catch {
        return otherwise; // damaged by another program: as if it were not there
      }
    },
    // true when the value outlives the page
    set(key, value) {
      const text = JSON.stringify(value);
      try {
        if (store) store.setItem(PREFIX + key, text);
        else memory.set(key, text);
        return store !== null;
      } catch {
        return false; // quota
      }
    },
    remove(key) {
      if (store) store.removeItem(PREFIX + key);
      memory.delete(key);
    },
    keys(prefix = "") {
      const all = store ? Object.keys(store).filter((k) => k.startsWith(PREFIX)).map((k) => k.slice(PREFIX.length)) : [...memory.keys()];
      return all.filter((k) => k.startsWith(prefix)).sort();
    },
    // an element that says so when nothing is kept, else null
    notice: () =>
      store ? null : ui.el("p", { class: "labcore-note", text: "This browser keeps nothing for this page (private mode?): closing it loses what you enter." }),
  };
})(globalThis.labcoreWidgets.ui);
