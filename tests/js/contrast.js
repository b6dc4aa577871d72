// WCAG contrast of everything a chart draws against the widget's surface: [[element, ratio], …] for text and for marks.
() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [r, g, b] = rgb(colour).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const surface = getComputedStyle(document.querySelector(".labcore-widget")).backgroundColor;
  const of = (selector, property) =>
    [...document.querySelectorAll(selector)].map((e) => [e.outerHTML.slice(0, 90), ratio(getComputedStyle(e)[property], surface)]);
  const filled = [".lc-marker:not(.lc-hollow)", ".lc-fill:not(.lc-free)"].flatMap((s) => of(s, "fill"));
  const lines = [".lc-hollow", ".lc-roof", ".lc-ridge", ".lc-curve", ".lc-limit", ".lc-axis"].flatMap((s) => of(s, "stroke"));
  return { text: of(".lc-chart text", "fill"), marks: [...filled, ...lines, ...of("select", "borderTopColor")] };
}
