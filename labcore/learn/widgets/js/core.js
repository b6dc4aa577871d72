// The registry, and the two ways in: `mount` for a page of the built book, `render` for a notebook (anywidget).
(function () {
  "use strict";
  const known = globalThis.labcoreWidgets;
  const components = known ? known.components : {}; // two widgets in one notebook run this file twice
  const MOUNTED = "data-labcore-mounted";

  // component: { render({ el, spec, model, emit }) → nothing, or a function that cleans up }.
  //   el     an empty element to fill (class "labcore-widget": the theme's variables apply inside it)
  //   spec   the plain object Python wrote
  //   emit   emit(value) hands a plain object back: Python's `widget.value`, and a "labcore:value" event on the page
  //   model  the anywidget model, only in a notebook with a kernel
  function register(name, component) {
    components[name] = component;
    if (globalThis.document && document.readyState === "complete") mount(document);
  }

  function draw(name, context) {
    const component = components[name];
    if (!component) throw new Error(`there is no component ${JSON.stringify(name)}`);
    context.el.classList.add("labcore-widget", `labcore-${name}`);
    return component.render(context);
  }

  function complain(name, error) {
    const note = document.createElement("p");
    note.className = "labcore-note labcore-error";
    note.textContent = `This ${name} could not start (${error.message}).`;
    console.error(error);
    return note;
  }

  // Replace the fallback of every [data-labcore-widget] under `root`; what is mounted already stays as it is.
  function mount(root) {
    const selector = `[data-labcore-widget]:not([${MOUNTED}])`;
    for (const host of (root || document).querySelectorAll(selector)) {
      const name = host.getAttribute("data-labcore-widget");
      if (!components[name]) continue; // its script may still be on its way
      host.setAttribute(MOUNTED, "");
      const el = document.createElement("div");
      const emit = (value) => host.dispatchEvent(new CustomEvent("labcore:value", { detail: value, bubbles: true }));
      try {
        const spec = JSON.parse(host.getAttribute("data-spec") || "{}");
        draw(name, { el, spec, emit, model: undefined });
        host.replaceChildren(el);
      } catch (error) {
        host.append(complain(name, error));
      }
    }
  }

  // anywidget's entry: called once per view, returns the view's clean-up.
  function render({ model, el }) {
    let cleanup;
    const emit = (value) => {
      model.set("value", value);
      model.save_changes();
    };
    const redraw = () => {
      if (typeof cleanup === "function") cleanup();
      const name = model.get("component");
      const inner = document.createElement("div");
      try {
        cleanup = draw(name, { el: inner, spec: model.get("spec"), emit, model });
        el.replaceChildren(inner);
      } catch (error) {
        el.replaceChildren(complain(name, error));
      }
    };
    // JupyterLab would take arrow keys and letters for its own; it asks the focused element itself
    el.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
    model.on("change:spec", redraw);
    redraw();
    return () => {
      model.off("change:spec", redraw);
      if (typeof cleanup === "function") cleanup();
    };
  }

  globalThis.labcoreWidgets = { components, register, render, mount, ui: {} };
  if (!globalThis.document) return; // under node
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => mount(document));
  else queueMicrotask(() => mount(document));
})();
