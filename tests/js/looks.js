// Makes a long page cheap for axe: marks one visible element of each look, and makes repeated code tokens plain text.
// A look is what decides contrast: the element's colours, size and weight, and the tags, classes and backgrounds around it.
() => {
  const marked = new Set(), grounds = new Map();
  const ground = (element) => {
    if (!element) return "";
    if (!grounds.has(element)) {
      const style = getComputedStyle(element);
      const own = [element.localName, element.className, style.backgroundColor, style.backgroundImage, style.opacity];
      grounds.set(element, `${ground(element.parentElement)}>${own.join()}`);
    }
    return grounds.get(element);
  };
  const says = (element) =>
    element.matches("input, select, textarea") || [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  for (const element of document.querySelectorAll("#main-content *")) {
    if (!says(element) || !element.checkVisibility({ visibilityProperty: true })) continue;
    const { color, backgroundColor, fontSize, fontWeight, opacity, textShadow } = getComputedStyle(element);
    const ink = [element.localName, color, backgroundColor, fontSize, fontWeight, opacity, textShadow];
    const look = `${ground(element.parentElement)}>${ink.join()}`;
    if (!marked.has(look)) element.setAttribute("data-look", "");
    marked.add(look);
  }
  for (const block of document.querySelectorAll(".highlight pre")) {
    for (const token of block.querySelectorAll("span[class]:not([data-look])")) {
      if (!token.childElementCount && token.attributes.length === 1) token.replaceWith(token.textContent);
    }
    block.normalize();
  }
  return marked.size;
}
