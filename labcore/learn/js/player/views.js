// What the Player draws: view(spec) → { node, show(step) }, for each of the four views of labcore/learn/trace.py.
(function (W) {
  "use strict";
  const { el, svg, uid, number } = W.ui;
  const COLOURS = ["decode", "prefill", "kv", "highlight", "waste"];

  // ---- blocks: the pool, and one table a sequence -----------------------------------------------------------------
  // The state after `step`, applied as in trace.py; `touched` are the blocks that this step changed.
  function blocksAt(spec, step) {
    const state = { tables: {}, lengths: {}, refs: Array(spec.num_blocks).fill(0), touched: new Set() };
    spec.steps.slice(0, step + 1).forEach(({ events }, number) => {
      for (const e of events) {
        const table = state.tables[e.seq] || [];
        const whole = e.op === "free" || e.op === "preempt";
        if (number === step) for (const b of whole ? table : [e.block, e.to, e.op === "append" ? table.at(-1) : undefined]) state.touched.add(b);
        if (e.op === "allocate" || e.op === "share") {
          state.refs[e.block] += 1;
          state.tables[e.seq] = [...table, e.block];
          state.lengths[e.seq] ??= 0;
        } else if (e.op === "append") state.lengths[e.seq] += e.tokens;
        else if (e.op === "copy") {
          state.refs[e.block] -= 1;
          state.refs[e.to] = 1;
          table[table.indexOf(e.block)] = e.to;
        } else {
          for (const b of table) state.refs[b] -= 1;
          delete state.tables[e.seq];
          delete state.lengths[e.seq];
        }
      }
    });
    return state;
  }

  function blocks(spec) {
    const seqs = [...new Set(spec.steps.flatMap((s) => s.events.map((e) => e.seq)))];
    const colour = (seq) => `lp-${COLOURS[seqs.indexOf(seq) % COLOURS.length]}`;
    const pool = el("div", { class: "lp-pool" });
    const tables = el("div", { class: "lp-tables" });
    function cell(block, state) {
      const owners = Object.keys(state.tables).filter((s) => state.tables[s].includes(block));
      const held = owners.map((s) => Math.min(spec.block_size, Math.max(0, state.lengths[s] - state.tables[s].indexOf(block) * spec.block_size)));
      const filled = owners.length ? Math.max(...held) : 0;
      const many = state.refs[block];
      return el("div", { class: `lp-block ${owners.length ? colour(owners[0]) : "lp-free"}${state.touched.has(block) ? " lp-now" : ""}` },
        el("span", { class: "lp-fill", style: { width: `${(100 * filled) / spec.block_size}%` } }),
        el("span", { class: "lp-id", text: String(block) }),
        el("span", { class: "lp-owner", text: owners.length ? owners.join(" ") : block === spec.null_block ? "null" : "free" }),
        many > 1 && el("span", { class: "lp-ref", title: `${many} sequences hold this block`, text: `×${many}` }));
    }
    return {
      node: el("div", {}, el("p", { class: "lp-caption", text: `Pool of ${spec.num_blocks} blocks, ${spec.block_size} tokens each` }), pool, el("p", { class: "lp-caption", text: "Block tables" }), tables),
      show(step) {
        const state = blocksAt(spec, step);
        pool.replaceChildren(...state.refs.map((_, block) => cell(block, state)));
        const rows = Object.entries(state.tables).map(([seq, table]) =>
          el("p", { class: "lp-table" }, el("strong", { text: seq }), ` ${state.lengths[seq]} tokens → `, table.map((b) => el("span", { class: `lp-entry ${colour(seq)}`, text: String(b) }))));
        tables.replaceChildren(...(rows.length ? rows : [el("p", { class: "lp-table", text: "no sequence holds a block" })]));
      },
    };
  }

  // ---- gantt: x = step, y = slot -------------------------------------------------------------------------------------
  function gantt(spec) {
    const [left, cellW, cellH] = [52, Math.max(14, Math.min(34, Math.floor(590 / spec.steps.length))), 30];
    const [width, height] = [left + cellW * spec.steps.length + 8, cellH * spec.slots + 44];
    const hatch = uid("hatch");
    const chart = svg("svg", { class: "lp-svg", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("defs", {}, svg("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { width: 2, height: 6, class: "lp-stripe" }))));
    const columns = spec.steps.map((step, i) => {
      const busy = new Map(step.events.map((e) => [e.slot, e]));
      const cells = [...Array(spec.slots).keys()].map((slot) => {
        const e = busy.get(slot);
        const box = { x: left + i * cellW + 1, y: slot * cellH + 1, width: cellW - 2, height: cellH - 2 };
        return [svg("rect", { ...box, class: `lp-cell lp-${e ? e.kind : "idle"}` }),
          e?.kind === "prefill" && svg("rect", { ...box, fill: `url(#${hatch})` })];
      });
      return svg("g", {}, cells);
    });
    // A name is written once, over the steps that a request keeps its slot: in every cell it would run into the next.
    const names = spec.steps.flatMap((step, i) => step.events.map((e) => {
      const on = (at) => spec.steps[at]?.events.some((o) => o.slot === e.slot && o.request === e.request);
      let end = i;
      while (on(end)) end += 1;
      return !on(i - 1) && (end - i) * cellW > 7.6 * e.request.length && [i, svg("text", { x: left + ((i + end) * cellW) / 2, y: e.slot * cellH + 20, class: `lp-in lp-${e.kind}`, text: e.request })];
    })).filter(Boolean);
    const cursor = svg("rect", { class: "lp-cursor", y: 0, width: cellW, height: cellH * spec.slots });
    const every = Math.max(1, Math.ceil(36 / cellW));
    chart.append(...[...Array(spec.slots).keys()].map((slot) => svg("text", { x: 0, y: slot * cellH + 20, text: `slot ${slot}` })), ...columns, ...names.map((one) => one[1]), cursor,
      ...spec.steps.flatMap((_, i) => (i % every ? [] : [svg("text", { x: left + (i + 0.5) * cellW, y: cellH * spec.slots + 18, "text-anchor": "middle", text: String(i) })])),
      svg("text", { x: left, y: cellH * spec.slots + 38, text: `engine ${spec.step_unit}` }));
    const key = (kind, label) => el("li", {}, el("span", { class: `lp-key lp-${kind}` }), label);
    const box = el("div", { class: "lp-scroll", tabindex: "0", role: "region", "aria-label": "Gantt chart" }, chart);
    return {
      node: el("div", {}, el("ul", { class: "lp-legend" }, key("prefill", "prefill (hatched)"), key("decode", "decode"), key("idle", "idle slot")), box),
      show(step) {
        columns.forEach((column, i) => column.setAttribute("class", i > step ? "lp-future" : ""));
        names.forEach(([i, name]) => name.classList.toggle("lp-future", i > step));
        cursor.setAttribute("x", left + step * cellW);
        const x = left + step * cellW;
        if (x < box.scrollLeft || x + cellW > box.scrollLeft + box.clientWidth) box.scrollLeft = x - box.clientWidth / 2;
      },
    };
  }

  // ---- tokens: the tape, and this round's draft -------------------------------------------------------------------
  const MARKS = { accepted: "✓", rejected: "✗", resampled: "↻", bonus: "+" };
  const chip = (kind, token) => el("span", { class: `lp-chip lp-${kind}` }, el("span", { class: "lp-mark", text: MARKS[kind] }), token.replace(/ /g, "␣").replace(/\n/g, "⏎"), el("span", { class: "labcore-sr", text: ` ${kind}` }));
  function outcome(e) {
    const kinds = e.drafted.map((token, i) => [i < e.accepted ? "accepted" : "rejected", token]);
    return [...kinds, ...["resampled", "bonus"].filter((k) => k in e).map((k) => [k, e[k]])];
  }
  function tokens(spec) {
    const tape = el("p", { class: "lp-tape" });
    const round = el("p", { class: "lp-tape" });
    const rounds = spec.steps.map((s) => s.events.flatMap(outcome));
    return {
      node: el("div", {}, el("p", { class: "lp-caption", text: "This round" }), round, el("p", { class: "lp-caption", text: "Text so far" }), tape,
        el("ul", { class: "lp-legend" }, Object.entries(MARKS).map(([kind, mark]) => el("li", {}, el("span", { class: `lp-chip lp-${kind}`, text: mark }), ` ${kind}`)))),
      show(step) {
        round.replaceChildren(...(rounds[step].length ? rounds[step].map((r) => chip(...r)) : ["—"]));
        tape.replaceChildren(...rounds.slice(0, step + 1).flat().filter(([kind]) => kind !== "rejected").map((r) => chip(...r)));
      },
    };
  }

  // ---- tiles: the score plane ---------------------------------------------------------------------------------------
  function tiles(spec) {
    const rows = Math.ceil(spec.rows / spec.tile[0]);
    const columns = Math.ceil(spec.columns / spec.tile[1]);
    const size = Math.max(16, Math.min(46, Math.floor(300 / Math.max(rows, columns))));
    const cells = new Map();
    const chart = svg("svg", { class: "lp-svg", viewBox: `0 0 ${columns * size + 22} ${rows * size + 26}`, width: columns * size + 22, height: rows * size + 26, "aria-hidden": "true" });
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const cell = svg("rect", { x: 20 + c * size, y: 20 + r * size, width: size - 2, height: size - 2 });
      const mark = svg("text", { x: 20 + c * size + size / 2 - 1, y: 20 + r * size + size / 2 + 4, class: "lp-in" });
      cells.set(`${r},${c}`, [cell, mark]);
      chart.append(cell, mark);
    }
    chart.append(svg("text", { x: 20, y: 13, text: `keys → ${number(spec.columns)}` }), svg("text", { x: 0, y: 0, transform: "translate(12 22) rotate(90)", text: `queries → ${number(spec.rows)}` }));
    const values = el("p", { class: "lp-values" });
    return {
      node: el("div", { class: "lp-tiles" }, chart, values),
      show(step) {
        for (const [cell, mark] of cells.values()) {
          cell.setAttribute("class", "lp-cell lp-idle");
          mark.textContent = "";
        }
        let last = {};
        spec.steps.slice(0, step + 1).forEach(({ events }, i) => {
          for (const e of events) {
            const [cell, mark] = cells.get(`${e.row},${e.column}`);
            cell.setAttribute("class", `lp-cell lp-${i === step ? "current" : e.skipped ? "skipped" : "done"}`);
            mark.textContent = e.skipped ? "×" : i === step ? "●" : "";
            last = { ...last, ...e.values };
          }
        });
        values.textContent = Object.entries(last).map(([name, value]) => `${name} = ${number(value)}`).join("   ");
      },
    };
  }

  W.views = { blocks, gantt, tokens, tiles };
  W.blocksAt = blocksAt;
})(globalThis.labcoreWidgets);
