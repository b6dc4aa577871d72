// Sets every control of a calculator through the element a reader would use; returns what the page reports and shows.
([name, state]) => {
  const host = document.getElementById(name);
  const spec = JSON.parse(host.querySelector("[data-labcore-widget]").dataset.spec);
  const controls = [...host.querySelectorAll(".lc-field")];
  spec.inputs.forEach((input, i) => {
    const element = controls[i].querySelector("select, .lc-box");
    const value = state[input.id];
    element.value = element.matches("select") ? value : String(value / (input.scale || 1));
    for (const kind of ["input", "change"]) element.dispatchEvent(new Event(kind, { bubbles: true }));
  });
  const results = [...host.querySelectorAll("[data-result]")];
  return {
    reported: globalThis.seen[name],
    cells: Object.fromEntries(results.map((cell) => [cell.dataset.result, cell.textContent])),
    summary: host.querySelector(".lc-summary").textContent,
    errors: [...host.querySelectorAll("[role=alert]")].map((e) => e.textContent).join(""),
  };
}
