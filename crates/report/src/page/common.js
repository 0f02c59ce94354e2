/* What is shown, and how values are written. */
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const hues = [262, 24, 152, 205, 340, 48, 180, 300, 100, 0];
const isDark = () => document.documentElement.classList.contains("dark");
const colour = (run, alpha = 1) =>
  `hsl(${hues[run % hues.length]} ${isDark() ? 75 : 70}% ${isDark() ? 68 : 45 - 8 * (Math.floor(run / hues.length) % 2)}% / ${alpha})`;
// The runs whose boxes are not ticked.
const hidden = new Set();

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  if (content !== undefined && content !== null) made.append(...(Array.isArray(content) ? content : [String(content)]));
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function shown(value) {
  if (typeof value !== "number") return value === null || value === undefined ? "" : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3).replace(/\.?0+e/, "e") : value.toPrecision(5).replace(/\.?0+$/, "");
}

