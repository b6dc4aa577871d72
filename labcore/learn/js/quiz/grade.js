// Grading: pure functions from an item, a draw and what the reader entered to { outcome, says }.
(function (W) {
  "use strict";
  const { number } = W.ui;
  const { fixed } = W.text;
  const compiled = new Map();

  // Evaluate an expression that Python wrote (never anything the reader typed or imported).
  function evaluate(js, values) {
    const names = Object.keys(values);
    const key = `${names}:${js}`;
    if (!compiled.has(key)) compiled.set(key, new Function(...names, `"use strict"; return (${js});`));
    return compiled.get(key)(...names.map((n) => values[n]));
  }

  // The values of every name of an item when it is asked for the n-th time, from 0.
  function draw(item, n) {
    const rows = item.rows || [[]];
    const values = Object.fromEntries((item.names || []).map((name, i) => [name, rows[n % rows.length][i]]));
    for (const [name, js] of item.let || []) values[name] = evaluate(js, values);
    return values;
  }

  const near = (a, b, tolerance) => Math.abs(a - b) <= tolerance * Math.abs(b);
  const unitText = (unit) => (unit === "1" ? "" : ` ${unit}`);

  function written(value, answer) {
    const scaled = value / answer.scale;
    return (answer.decimals === null || answer.decimals === undefined ? number(scaled) : fixed(scaled, answer.decimals)) + unitText(answer.unit);
  }

  // "327,680", "3.2e5", "−4", "3.2 × 10^5", "1/8", "≈ 11.3x", "108K", "99.5 %" (the box's unit) → { value } or { error }
  function parse(text, unit = "1") {
    const typed = text.trim().replace(/[−–]/g, "-");
    if (!typed) return { error: "Enter a number." };
    const bare = unit !== "1" && typed.endsWith(unit) ? typed.slice(0, -unit.length) : typed;
    const unclear = /\d,(?!\d{3}(?!\d))|\d \d+\//.test(bare); // a comma groups thousands; “11,3” and “3 1/2” are asked for again
    const plain = bare.replace(/[\s,_]|^[≈~]|(?:[×x]|times)\s*$/g, "").replace(/[×x*]10(?:\^|\*\*)|K$/, (s) => (s === "K" ? "e3" : "e"));
    const match = !unclear && /^([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\/(\d+(?:\.\d+)?))?$/i.exec(plain);
    if (!match) {
      const hasUnit = /^[-+\d.,e\s]+\D+$/i.test(typed);
      return { error: hasUnit && unit !== "1" ? `Give the number in ${unit}; the box has its unit already.` : `“${typed}” is not a number; write it like 1,250, 11.3 or 3.2e5.` };
    }
    const value = Number(match[1]) / (match[2] ? Number(match[2]) : 1);
    return Number.isFinite(value) ? { value } : { error: `“${typed}” is too large to be meant.` };
  }

  // A wrong number that is off by a factor with a name.
  const SLIPS = [
    [1e3, "a factor of 1,000: check the prefix"],
    [1e6, "a factor of a million: check the prefix"],
    [1e9, "a factor of a billion: check the prefix"],
    [1e12, "a factor of 10¹²: check the prefix"],
    [100, "a factor of 100: per cent and a plain fraction"],
    [8, "a factor of 8: bits and bytes"],
    [1.073741824, "the factor between GiB and GB, 1.074"],
    [2, "a factor of 2"],
  ];
  function slip(value, truth, tolerance) {
    const ratio = Math.abs(value / truth);
    const found = SLIPS.find(([factor]) => near(ratio, factor, tolerance) || near(ratio, 1 / factor, tolerance));
    if (found) return `Your number is off by ${found[1]}.`;
    if (!(ratio > 0)) return "";
    return ratio > 1 ? `Your number is ${number(ratio, 2)} times too large.` : `Your number is ${number(1 / ratio, 2)} times too small.`;
  }

  // entered: in the unit of the box
  function numeric(item, values, entered) {
    const { answer } = item;
    const truth = evaluate(answer.js, values);
    const value = entered * answer.scale;
    if (near(value, truth, answer.rel_tol)) return { outcome: "pass", says: `The answer is ${written(truth, answer)}.` };
    const error = (item.distractors || []).find((d) => near(value, evaluate(d.js, values), answer.rel_tol));
    return { outcome: "fail", why: error ? error.why : null, says: error ? "" : slip(value, truth, answer.rel_tol) };
  }

  function predict(item, values, entered) {
    const { answer, within } = item;
    const truth = evaluate(answer.js, values);
    const ratio = (entered * answer.scale) / truth;
    const says = `You said ${written(entered * answer.scale, answer)}; it is ${written(truth, answer)}.`;
    if (ratio >= 1 / within && ratio <= within) return { outcome: "pass", says: `${says} That is within a factor of ${number(within)}.` };
    const error = (item.distractors || []).find((d) => near(entered * answer.scale, evaluate(d.js, values), answer.rel_tol));
    return { outcome: "fail", why: error ? error.why : null, says: `An estimate should come within a factor of ${number(within)}.` };
  }

  const isRight = (option, values) => (typeof option.right === "string" ? evaluate(option.right, values) : option.right);

  // picked: indices into item.options
  function choice(item, values, picked) {
    const wrongly = item.options.filter((o, i) => picked.includes(i) && !isRight(o, values));
    const missing = item.options.filter((o, i) => !picked.includes(i) && isRight(o, values));
    if (!wrongly.length && !missing.length) return { outcome: "pass", says: "" };
    const says = wrongly.length || item.kind !== "multi" ? "" : `What you picked is right, but ${missing.length} more ${missing.length > 1 ? "are" : "is"}.`;
    return { outcome: "fail", why: wrongly.length ? wrongly[0].why : null, says };
  }

  // The indices of item.order in their right order.
  function sorted(item, values) {
    const indices = item.order.map((_, i) => i);
    if (!item.order[0].js) return indices;
    const keys = item.order.map((entry) => evaluate(entry.js, values));
    return indices.sort((a, b) => keys[a] - keys[b]);
  }

  function order(item, values, arranged) {
    const right = sorted(item, values);
    const first = right.findIndex((index, i) => arranged[i] !== index);
    if (first < 0) return { outcome: "pass", says: "" };
    return { outcome: "fail", why: null, says: first ? `The first ${first} of ${right.length} are in place.` : "The first one is out of place." };
  }

  const folded = (text) => text.trim().toLowerCase().replace(/\s+/g, " ");

  // entered: { blank: text }
  function cloze(item, values, entered) {
    const wrong = Object.entries(item.blanks).filter(([name, blank]) => {
      if (blank.accept) return !blank.accept.some((word) => folded(word) === folded(entered[name]));
      const { value } = parse(entered[name]);
      return value === undefined || !near(value, evaluate(blank.js, values), blank.rel_tol);
    });
    if (!wrong.length) return { outcome: "pass", says: "" };
    return { outcome: "fail", why: null, says: `Not right yet: ${wrong.map(([name]) => `“${entered[name].trim()}”`).join(", ")}.`, blanks: wrong.map(([name]) => name) };
  }

  // ticked: how many points of the strong rubric the reader claims; grade: what they give themselves
  function spoken(item, ticked, grade) {
    const all = item.rubric.strong.length;
    if (grade === "strong" && ticked < all) return { error: `Strong needs all ${all} points of its list, and you ticked ${ticked}: that is Lean.` };
    if (grade === "lean" && !ticked) return { error: "Lean needs at least one point of the Strong list." };
    return { outcome: { strong: "pass", lean: "hold", no: "fail" }[grade], says: "" };
  }

  W.grade = { evaluate, draw, parse, written, numeric, predict, choice, isRight, sorted, order, cloze, spoken };
})(globalThis.labcoreWidgets);
