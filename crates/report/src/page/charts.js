/* Curves. */
const toNumber = (value) => (typeof value === "number" ? value : value === "Infinity" ? Infinity : value === "-Infinity" ? -Infinity : NaN);

/** Each value as an exponential moving average without bias to the first, as TensorBoard smooths. */
function smooth(values, weight) {
  if (!weight) return values;
  let last = 0, count = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    last = last * weight + (1 - weight) * value;
    count += 1;
    return last / (1 - weight ** count);
  });
}

/** Round numbers between two, at most about `most`. */
function ticks(low, high, most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((candidate) => candidate >= raw) ?? raw;
  const first = Math.ceil(low / step);
  // A number that is too small to be added to another one must not be added for ever.
  return Array.from({ length: 2 * most + 2 }, (_, at) => (first + at) * step)
    .filter((value) => value <= high + step * 1e-9)
    .map((value) => (Math.abs(value) < step * 1e-9 ? 0 : value));
}

const groups = new Map();

/** The charts under a heading, which is there if there are several. */
function placeIn(group) {
  if (!groups.has(group)) {
    const place = element("div", null, { class: "charts" });
    const heading = element("h3", group, { class: "group" });
    heading.hidden = new Set(data.charts.map((chart) => chart.group)).size < 2;
    const isAlone = data.charts.filter((chart) => chart.group === group).length === 1;
    byId("charts").append(element("section", [heading, place], isAlone ? {} : { class: "several" }));
    groups.set(group, place);
  }
  return groups.get(group);
}

const state = { smoothing: 0, axis: "step", log: false };
const charts = data.charts.map((chart) => {
  const canvas = element("canvas", null, { "aria-label": `curves of ${chart.name}` });
  const wide = element("button", "⤢", { type: "button", title: "larger or smaller" });
  const box = element("div", [element("h3", [element("span", chart.name), wide]), canvas], { class: "chart" });
  const made = { chart, canvas, box, range: null, drag: null, hover: null };
  wide.addEventListener("click", () => { box.classList.toggle("wide"); drawChart(made); });
  placeIn(chart.group).append(box);
  return listen(made);
});

function lines(made) {
  return made.chart.curves.filter((curve) => !hidden.has(curve.run)).map((curve) => {
    const xs = curve[state.axis].map(toNumber), values = curve.value.map(toNumber);
    return { run: curve.run, xs, values, smoothed: smooth(values, state.smoothing) };
  });
}

function geometry(made) {
  const { width, height } = made.canvas.getBoundingClientRect();
  return { left: 58, right: width - 8, top: 8, bottom: height - 22, width, height };
}

function extent(made, all) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const line of all) {
    line.xs.forEach((x, i) => {
      const y = state.smoothing ? line.smoothed[i] : line.values[i];
      if (!Number.isFinite(x) || (made.range && (x < made.range[0] || x > made.range[1]))) return;
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      if (Number.isFinite(y) && !(state.log && y <= 0)) { y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
    });
  }
  if (x0 > x1) [x0, x1] = [0, 1];
  if (y0 > y1) [y0, y1] = state.log ? [0.1, 1] : [0, 1];
  if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
  // A point at an edge is seen whole.
  [x0, x1] = made.range ?? [x0 - (x1 - x0) * 0.015, x1 + (x1 - x0) * 0.015];
  const scale = (y) => (state.log ? Math.log10(y) : y);
  let [low, high] = [scale(y0), scale(y1)];
  // What differs by rounding alone is constant.
  const isConstant = high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  const margin = (isConstant ? Math.abs(high) || 1 : high - low) * 0.06;
  return { x0, x1, low: low - margin, high: high + margin, scale };
}

function drawChart(made) {
  const place = geometry(made), ratio = window.devicePixelRatio || 1;
  if (!place.width) return;
  made.canvas.width = place.width * ratio;
  made.canvas.height = place.height * ratio;
  const pen = made.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const all = lines(made), view = extent(made, all);
  const toX = (x) => place.left + ((x - view.x0) / (view.x1 - view.x0)) * (place.right - place.left);
  const toY = (y) => place.bottom - ((view.scale(y) - view.low) / (view.high - view.low)) * (place.bottom - place.top);
  made.view = { ...view, toX, place };
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = style.getPropertyValue("--faint");
  pen.strokeStyle = style.getPropertyValue("--grid");
  pen.lineWidth = 1;
  pen.textAlign = "right"; pen.textBaseline = "middle";
  for (const tick of ticks(view.low, view.high, 5)) {
    const value = state.log ? 10 ** tick : tick, y = toY(value);
    pen.beginPath(); pen.moveTo(place.left, y); pen.lineTo(place.right, y); pen.stroke();
    pen.fillText(shown(Number(value.toPrecision(4))), place.left - 5, y);
  }
  pen.textAlign = "center"; pen.textBaseline = "top";
  for (const tick of ticks(view.x0, view.x1, Math.max(2, place.width / 90))) pen.fillText(shown(Number(tick.toPrecision(9))), toX(tick), place.bottom + 6);
  pen.save();
  pen.beginPath(); pen.rect(place.left, 0, place.right - place.left, place.bottom + 2); pen.clip();
  restarts(pen, all, toX, place);
  for (const line of all) {
    if (state.smoothing) stroke(pen, line, line.values, toX, toY, colour(line.run, 0.22), 1);
    stroke(pen, line, line.smoothed, toX, toY, colour(line.run), 1.6);
    marks(pen, line, toX, place);
  }
  if (made.drag) {
    pen.fillStyle = style.getPropertyValue("--accent") + "33";
    pen.fillRect(Math.min(...made.drag), place.top, Math.abs(made.drag[1] - made.drag[0]), place.bottom - place.top);
  } else if (made.hover !== null) {
    pen.strokeStyle = style.getPropertyValue("--faint");
    pen.beginPath(); pen.moveTo(made.hover, place.top); pen.lineTo(made.hover, place.bottom); pen.stroke();
  }
  pen.restore();
}

/** A broken line where a run went on after it had been cut off. */
function restarts(pen, all, toX, place) {
  pen.setLineDash([3, 4]);
  pen.lineWidth = 1;
  for (const run of new Set(all.map((line) => line.run))) {
    pen.strokeStyle = colour(run, 0.55);
    for (const restart of data.runs[run].record?.ledger.restarts ?? []) {
      const x = toX(restart[state.axis]);
      pen.beginPath(); pen.moveTo(x, place.top); pen.lineTo(x, place.bottom); pen.stroke();
    }
  }
  pen.setLineDash([]);
}

function stroke(pen, line, values, toX, toY, style, width) {
  pen.strokeStyle = pen.fillStyle = style;
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.beginPath();
  let open = false, drawn = 0, last = null;
  values.forEach((value, i) => {
    const fits = Number.isFinite(value) && Number.isFinite(line.xs[i]) && !(state.log && value <= 0);
    if (!fits) { open = false; return; }
    last = [toX(line.xs[i]), toY(value)];
    open ? pen.lineTo(...last) : pen.moveTo(...last);
    open = true; drawn += 1;
  });
  pen.stroke();
  if (drawn === 1) { pen.beginPath(); pen.arc(last[0], last[1], 3, 0, 7); pen.fill(); }
}

/** What is no number stands as a triangle at the lower edge. */
function marks(pen, line, toX, place) {
  pen.fillStyle = colour(line.run);
  line.values.forEach((value, i) => {
    if (Number.isFinite(value) || !Number.isFinite(line.xs[i])) return;
    const x = toX(line.xs[i]);
    pen.beginPath(); pen.moveTo(x, place.bottom - 7); pen.lineTo(x - 4, place.bottom); pen.lineTo(x + 4, place.bottom); pen.fill();
  });
}

function nearest(xs, x) {
  let best = -1;
  xs.forEach((candidate, i) => { if (Number.isFinite(candidate) && (best < 0 || Math.abs(candidate - x) < Math.abs(xs[best] - x))) best = i; });
  return best;
}

function tell(made, event) {
  const tip = byId("tip"), { x0, x1, place } = made.view;
  const x = x0 + ((made.hover - place.left) / (place.right - place.left)) * (x1 - x0);
  const rows = lines(made).map((line) => [line, nearest(line.xs, x)]).filter(([, at]) => at >= 0);
  tip.replaceChildren(...rows.map(([line, at]) => element("div", [
    element("span", null, { class: "swatch", style: `background: ${colour(line.run)}` }),
    `${data.runs[line.run].name}  ${state.axis} ${shown(line.xs[at])}:  `,
    element("strong", state.smoothing ? `${shown(line.smoothed[at])} (${shown(line.values[at])})` : shown(line.values[at])),
  ])));
  tip.style.display = rows.length ? "block" : "none";
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - width - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - height - 8)}px`;
}

function listen(made) {
  const at = (event) => event.clientX - made.canvas.getBoundingClientRect().left;
  const inside = (x) => Math.min(Math.max(x, made.view.place.left), made.view.place.right);
  made.canvas.addEventListener("pointerdown", (event) => {
    made.drag = [inside(at(event)), inside(at(event))];
    made.canvas.setPointerCapture(event.pointerId);
  });
  made.canvas.addEventListener("pointermove", (event) => {
    made.hover = inside(at(event));
    if (made.drag) made.drag[1] = made.hover;
    drawChart(made);
    tell(made, event);
  });
  made.canvas.addEventListener("pointerup", () => {
    const [from, to] = [Math.min(...made.drag ?? [0, 0]), Math.max(...made.drag ?? [0, 0])];
    const { x0, x1, place } = made.view;
    const value = (x) => x0 + ((x - place.left) / (place.right - place.left)) * (x1 - x0);
    made.drag = null;
    if (to - from > 5) made.range = [value(from), value(to)];
    drawChart(made);
  });
  made.canvas.addEventListener("pointerleave", () => { made.hover = null; byId("tip").style.display = "none"; drawChart(made); });
  made.canvas.addEventListener("dblclick", () => { made.range = null; drawChart(made); });
  return made;
}

