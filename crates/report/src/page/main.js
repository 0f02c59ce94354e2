/* What is drawn anew, and when. */
function draw() { charts.forEach(drawChart); }

function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  tables();
  draw();
}

byId("smoothing").addEventListener("input", (event) => { state.smoothing = Number(event.target.value); byId("smoothed").textContent = event.target.value; draw(); });
byId("axis").addEventListener("change", (event) => { state.axis = event.target.value; charts.forEach((made) => { made.range = null; }); draw(); });
byId("log").addEventListener("change", (event) => { state.log = event.target.checked; draw(); });
byId("find").addEventListener("input", (event) => {
  charts.forEach((made) => { made.box.hidden = !made.chart.name.includes(event.target.value); });
  draw();
});
for (const table of ["params", "environment"]) {
  const differ = data[table].some((row) => row.differs);
  // Those in which runs differ are what one looks for.
  byId(table).classList.toggle("differing", differ);
  byId(`all-${table}`).hidden = !differ;
  byId(`all-${table}`).addEventListener("click", () => byId(table).classList.toggle("differing"));
}
byId("theme").addEventListener("click", () => theme(!isDark()));
window.addEventListener("resize", draw);
summaries();
document.title = data.runs.length === 1 ? data.runs[0].name : `${data.runs.length} runs`;
const scheme = window.matchMedia("(prefers-color-scheme: dark)");
scheme.addEventListener("change", (event) => theme(event.matches));
theme(scheme.matches);
