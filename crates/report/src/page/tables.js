/* Tables and the account of the time. */
function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) { count /= 1000; at += 1; }
  return `${at ? count.toFixed(1) : count} ${units[at]}`;
}

function lasting(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  let rest = Math.round(seconds / (parts[first + 1] ?? parts[first])[0]) * (parts[first + 1] ?? parts[first])[0];
  return parts.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count ? `${count} ${unit}` : "";
  }).filter(Boolean).join(" ");
}

const moment = (seconds) => new Date(seconds * 1000).toLocaleString("sv");
const percent = (part) => `${(100 * part).toFixed(part < 0.1 && part > 0 ? 1 : 0)} %`;

function fill(table, head, rows) {
  const cell = (tag, value) => (value instanceof Node ? value : element(tag, value));
  table.replaceChildren(
    element("thead", [element("tr", head.map((value) => cell("th", value)))]),
    element("tbody", rows.map(([cells, kind]) => element("tr", cells.map((value) => cell("td", value)), kind ? { class: kind } : {}))),
  );
}

const number = (value, tag = "td") => element(tag, shown(value), { class: "number" });
const numbers = (names) => names.map((name) => element("th", name, { class: "number" }));
const swatch = (style) => element("span", null, { class: "swatch", style: `background: ${style}` });
const runName = (index) => element("td", [swatch(colour(index)), " ", data.runs[index].name]);
const badge = (status, why) => element("td", status ? [element("span", status, { class: `badge ${status}`, title: why ?? "" })] : "");

function runLabel(run, index) {
  const box = element("input", null, { type: "checkbox", "aria-label": `show ${run.name}` });
  box.checked = !hidden.has(index);
  box.addEventListener("change", () => { box.checked ? hidden.delete(index) : hidden.add(index); draw(); });
  return element("td", [element("label", [box, swatch(colour(index)), element("strong", run.name)], { title: run.folder })]);
}

/** Parts of the time: name, what is shown, colour. */
const PARTS = [
  ["training", "training", 145, 50], ["data", "waiting for data", 40, 85], ["validation", "validation", 215, 70],
  ["test", "test", 190, 60], ["prediction", "prediction", 175, 50], ["checkpoints", "checkpoints", 280, 50],
  ["setup", "set-up", 220, 12], ["teardown", "teardown", 220, 6], ["lost", "lost to restarts", 2, 70],
];
const partColour = ([, , hue, saturation]) => `hsl(${hue} ${saturation}% ${isDark() ? 58 : 48}%)`;
const recorded = data.runs.map((run, index) => [run.record?.ledger, index]).filter(([ledger]) => ledger);

function partOf(ledger, name) {
  return name === "lost" ? ledger.lost : (ledger.spent.find(([other]) => other === name)?.[1] ?? 0);
}

function times() {
  byId("ledger").hidden = recorded.length === 0;
  if (!recorded.length) return;
  const longest = Math.max(...recorded.map(([ledger]) => ledger.total), 1e-9);
  byId("bars").replaceChildren(...recorded.flatMap(([ledger, index]) => {
    const parts = PARTS.map((part) => [part, partOf(ledger, part[0])]).filter(([, seconds]) => seconds > 0);
    const bar = element("div", parts.map(([part, seconds]) => element("i", null, {
      style: `flex: ${seconds} 0 0; background: ${partColour(part)}`, title: `${part[1]}: ${lasting(seconds)}, ${percent(seconds / ledger.total)}`,
    })), { class: "bar", style: `width: ${(100 * ledger.total) / longest}%`, role: "img", "aria-label": `time of ${data.runs[index].name}` });
    const goodput = ledger.goodput === null ? "" : `goodput ${percent(ledger.goodput)}`;
    return [element("span", [swatch(colour(index)), " ", data.runs[index].name]), bar, element("output", goodput)];
  }));
  const row = (label, value) => [[element("th", label), ...recorded.map(([ledger]) => element("td", value(ledger), { class: "number" }))]];
  const used = PARTS.filter((part) => recorded.some(([ledger]) => partOf(ledger, part[0]) > 0));
  const rows = used.map((part) => row([swatch(partColour(part)), ` ${part[1]}`], (ledger) => {
    const seconds = partOf(ledger, part[0]);
    return seconds ? [lasting(seconds), " ", element("span", percent(seconds / ledger.total), { class: "share" })] : "";
  }));
  const more = [
    ["together", (ledger) => [lasting(ledger.total), " ", element("span", "", { class: "share" })]],
    ["goodput", (ledger) => (ledger.goodput === null ? "" : percent(ledger.goodput))],
    ["restarts", (ledger) => shown(ledger.restarts.length)],
    ["steps done again", (ledger) => (ledger.steps_redone ? `${shown(ledger.steps_redone)}, ${lasting(ledger.redone)}` : "")],
    ["down", (ledger) => (ledger.down ? lasting(ledger.down) : "")],
    ["optimizer steps", (ledger) => shown(ledger.steps)],
    ["samples", (ledger) => shown(ledger.samples)],
    ["steps per second", (ledger) => shown(ledger.steps_per_second)],
    ["samples per second", (ledger) => shown(ledger.samples_per_second)],
  ];
  const filled = more.filter(([, value]) => recorded.some(([ledger]) => ![undefined, "", "0"].includes(value(ledger))));
  fill(byId("times"), ["", ...numbers(recorded.map(([, index]) => data.runs[index].name))],
    [...rows, ...filled.map(([label, value]) => row(label, value))]);
}

/** A row for each name, those first in which runs differ. */
function comparison(table, rows, none) {
  const value = (name, text) => (name === "memory" && text ? bytes(Number(text)) : text ?? "");
  fill(byId(table), ["", ...data.runs.map((run) => run.name)], rows.length === 0
    ? [[[element("td", none, { class: "none" })]]]
    : rows.map((row) => [[element("th", row.name), ...row.values.map((text) =>
      element("td", value(row.name, text), { class: "long", title: text ?? "" }))], row.differs ? "" : "same"]));
}

function checkpoints() {
  const rows = data.checkpoints.map((file) => [[runName(file.run), element("td", file.best ? [element("strong", `${file.name} ★`, { title: "the best" })] : file.name),
    number(file.step), element("td", file.monitor), number(file.score), element("td", bytes(file.bytes), { class: "number" })]]);
  fill(byId("checkpoints"), ["run", "file", ...numbers(["step"]), "monitor", ...numbers(["score", "size"])],
    rows.length ? rows : [[[element("td", "none", { class: "none" })]]]);
}

/** How the program was started, and what it had to say. */
function history() {
  const before = (count, what) => (count ? [[[element("td", `${shown(count)} earlier ${what} are left out`, { class: "none" })]]] : []);
  const runs = data.runs.map((run, index) => [run.record, index]).filter(([record]) => record);
  byId("started").hidden = runs.length === 0;
  const more = [["resumed_from", "resumed from", "long"], ["error", "error", "text"]].filter(([name]) => runs.some(([record]) => record.starts.some((start) => start[name])));
  fill(byId("starts"), ["run", "began", "entry point", ...numbers(["lasted", "from step", "to step"]), "end", ...more.map(([, heading]) => heading)],
    runs.flatMap(([record, index]) => [...before(record.starts_before, "starts"), ...record.starts.map((start) => [[
      runName(index), moment(start.begun), start.entry, element("td", lasting(start.lasted), { class: "number" }), number(start.from), number(start.to),
      badge(start.status), ...more.map(([name, , kind]) => element("td", start[name], start[name] ? { class: kind, title: start[name] } : {}))]])]));
  const warnings = runs.flatMap(([record, index]) => [...before(record.warnings_before, "warnings"),
    ...record.warnings.map(([time, text]) => [[runName(index), moment(time), element("td", text, { class: "text" })]])]);
  byId("warned").hidden = warnings.length === 0;
  fill(byId("warnings"), ["run", "when", "warning"], warnings);
}

function summaries() {
  const runs = data.runs.filter((run) => run.record?.summary);
  byId("summaries").hidden = runs.length === 0;
  byId("summaries").replaceChildren(element("h2", "Model"), ...runs.map((run) =>
    element("details", [element("summary", run.name), element("pre", run.record.summary.trim())])));
}

function tables() {
  const names = data.charts.map((chart) => chart.name).filter((name) => /^(val|test)|_epoch$/.test(name)).slice(0, 12);
  fill(byId("runs"), ["run", ...(recorded.length ? [""] : []), ...numbers(["rows", "last step", "last epoch", ...names])],
    data.runs.map((run, index) => [[runLabel(run, index), ...(recorded.length ? [badge(run.record?.status, run.record?.error)] : []),
      number(run.rows), number(run.step), number(run.epoch), ...names.map((name) => number(run.last[name]))]]));
  times();
  comparison("params", data.params, "neither hparams.yaml nor config.yaml");
  byId("environments").hidden = data.environment.length === 0;
  comparison("environment", data.environment, "");
  checkpoints();
  history();
}

