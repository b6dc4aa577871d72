// The controls of a calculator. Each control: { node, get(), set(value), refresh(state) }; bad input keeps the last good value.
(function (W) {
  "use strict";
  const { ui } = W;
  const { el, number } = ui;
  const inputs = (W.inputs = {});

  // A label tied to `control`, then `body` (the control itself unless it sits inside something), then the hint.
  function field(spec, control, body, ...more) {
    control.id = control.id || ui.uid(spec.id);
    const hint = spec.hint ? el("p", { class: "lc-hint", id: `${control.id}-hint` }, spec.hint) : null;
    if (hint) control.setAttribute("aria-describedby", hint.id);
    const label = el("label", { for: control.id }, spec.label, spec.unit ? el("span", { class: "lc-unit" }, ` (${spec.unit})`) : null);
    return el("div", { class: "lc-field" }, label, body || control, more, hint);
  }

  // Where a slider can stand: powers of two and halves between them, decades in 1-2-5, or even steps.
  inputs.stops = ({ low, high, log, integer, step }) => {
    const all = [low, high];
    if (!log) {
      const unit = step || (integer ? Math.max(1, Math.round((high - low) / 200)) : (high - low) / 200);
      for (let v = low; v <= high + unit / 1e6; v += unit) all.push(Number(v.toPrecision(12)));
    } else if (integer && high <= 2 ** 24) {
      for (let v = 1; v <= high; v *= 2) all.push(v, ...(v > 1 ? [1.5 * v] : []));
    } else {
      for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) all.push(10 ** p, 2 * 10 ** p, 5 * 10 ** p);
    }
    return [...new Set(all)].filter((v) => v >= low && v <= high).sort((a, b) => a - b);
  };

  // Text → number or a sentence that names the value and the fix. Accepts 4,096 and 128k, 2M.
  inputs.parse = (text, { label, low, high, integer }) => {
    const match = /^([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([kKM]?)$/.exec(text.replace(/[,_\s]/g, ""));
    const value = match ? Number(match[1]) * { "": 1, k: 1e3, K: 1024, M: 1e6 }[match[2]] : NaN;
    const range = `${number(low)} to ${number(high)}`;
    if (!Number.isFinite(value)) return { error: `${label}: “${text}” is not a number; write one from ${range}.` };
    if (integer && !Number.isInteger(value)) return { error: `${label}: ${text} is not whole; write a whole number from ${range}.` };
    if (value < low || value > high) return { error: `${label}: ${number(value)} is out of range; write a number from ${range}.` };
    return { value };
  };

  // Slider and number box in step. Values are in base units; `scale` is the size of the unit shown (1e9 for GB).
  inputs.number = (given, changed) => {
    const scale = given.scale || 1;
    const shownAs = (v) => v / scale;
    const spec = { ...given, low: shownAs(given.low), high: shownAs(given.high), step: given.step && shownAs(given.step) };
    const stops = inputs.stops(spec);
    let value = shownAs(given.value);
    const box = el("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", class: "lc-box" });
    const error = el("p", { class: "labcore-error lc-hint", role: "alert", id: ui.uid("error"), hidden: true });
    const slider = el("input", { type: "range", min: 0, max: stops.length - 1, step: 1, "aria-label": `${spec.label} slider` });
    const nearest = () => stops.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(stops[best] - value) ? i : best), 0);
    const show = () => {
      slider.value = nearest();
      slider.setAttribute("aria-valuetext", `${number(value)} ${spec.unit || ""}`.trim());
    };
    const write = () => (box.value = plain(value));
    const judge = (message) => {
      error.textContent = message || "";
      error.hidden = !message;
      box.setAttribute("aria-invalid", message ? "true" : "false");
      box.setAttribute("aria-errormessage", error.id);
    };
    slider.addEventListener("input", () => {
      value = stops[Number(slider.value)];
      judge();
      write();
      show();
      changed();
    });
    box.addEventListener("input", () => {
      const read = inputs.parse(box.value, spec);
      judge(read.error);
      if (read.error) return;
      value = read.value;
      show();
      changed();
    });
    box.addEventListener("change", () => {
      if (error.hidden) write();
    });
    const set = (v) => {
      value = shownAs(v);
      judge();
      write();
      show();
    };
    set(given.value);
    return { node: field(spec, box, el("div", { class: "lc-pair" }, slider, box), error), get: () => value * scale, set };
  };

  const plain = (v) => (Math.abs(v) >= 1e6 && !Number.isInteger(v / 1) ? v.toExponential(3) : number(v, 6));

  // choices: [{ value, label, off: why not }]; `refresh` may switch some off.
  inputs.select = (spec, changed, choices) => {
    const select = el("select", { onchange: changed }, choices.map((c) => el("option", { value: c.value }, c.label)));
    select.value = spec.value;
    return { node: field(spec, select), select, get: () => select.value, set: (v) => (select.value = v) };
  };

  inputs.choice = (spec, changed) => inputs.select(spec, changed, spec.choices);

  // A device of the facts, or a measured one that the control brings along.
  const devices = (spec) => ({ ...spec.devices, ...globalThis.labcoreData.facts.hardware });
  inputs.device = (all, id, state) => devices(all.find((i) => i.id === id))[state[id]];

  inputs.hardware = (spec, changed) => {
    const known = devices(spec);
    return inputs.select(spec, changed, (spec.choices || Object.keys(known)).map((id) => ({ value: id, label: known[id].name })));
  };

  // The peak a precision runs at on a device: weight-only formats compute in 16 bits, so they get no higher roof.
  inputs.peak = (choice, device) => choice.peaks.map((p) => device.peak[p]).find((f) => f > 0);

  inputs.precision = (spec, changed) => {
    const control = inputs.select(spec, changed, spec.choices);
    control.refresh = (state, all) => {
      const device = inputs.device(all, spec.of, state);
      spec.choices.forEach((choice, i) => {
        const there = inputs.peak(choice, device) > 0;
        control.select.options[i].disabled = !there;
        control.select.options[i].text = there ? choice.label : `${choice.label}: not on this device`;
      });
      if (control.select.selectedOptions[0].disabled) control.set(spec.choices.find((c) => inputs.peak(c, device) > 0).value);
    };
    return control;
  };

  // A preset, or a config.json that is pasted or opened from disk; a refused one leaves the text and the last model alone.
  inputs.model = (spec, changed) => {
    const known = globalThis.labcoreData.facts.models;
    const PASTED = "pasted";
    let pasted = null;
    const select = el("select", {}, Object.keys(known).map((id) => el("option", { value: id }, known[id].name)), el("option", { value: PASTED }, "a config.json …"));
    const text = el("textarea", { rows: 6, spellcheck: "false", id: ui.uid("config"), placeholder: '{"model_type": "llama", "num_hidden_layers": 32, …}' });
    const error = el("p", { class: "labcore-error lc-hint", role: "alert", id: ui.uid("error") });
    text.setAttribute("aria-errormessage", error.id);
    const told = el("p", { class: "lc-hint", role: "status" });
    const use = () => {
      try {
        pasted = W.models.parse(text.value);
        error.textContent = "";
        told.textContent = W.models.describe(pasted);
        text.setAttribute("aria-invalid", "false");
        select.value = PASTED;
        last = PASTED;
        changed();
      } catch (problem) {
        error.textContent = problem.message;
        told.textContent = pasted ? `Still using the last good one: ${W.models.describe(pasted)}` : "";
        text.setAttribute("aria-invalid", "true");
      }
    };
    const file = el("input", { type: "file", accept: ".json,application/json", id: ui.uid("file"), onchange: async () => {
      if (!file.files.length) return;
      text.value = await file.files[0].text();
      use();
    } });
    const paste = el("div", { class: "lc-paste", hidden: true },
      el("label", { for: text.id }, "Paste a Hugging Face config.json"), text,
      el("label", { for: file.id }, "or open the file"), file,
      ui.button("Use this config", use), error, told);
    let last = spec.value;
    select.value = spec.value;
    select.addEventListener("change", () => {
      paste.hidden = select.value !== PASTED;
      if (select.value === PASTED && !pasted) return text.focus(); // nothing to compute yet
      last = select.value;
      changed();
    });
    const set = (v) => {
      if (typeof v === "object") {
        text.value = JSON.stringify(v, null, 1);
        paste.hidden = false;
        return use();
      }
      last = select.value = v;
      paste.hidden = true;
    };
    set(spec.value);
    return { node: field(spec, select, null, paste), get: () => last, set, model: () => (last === PASTED ? pasted : known[last]) };
  };
})(globalThis.labcoreWidgets);
