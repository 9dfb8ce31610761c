"use strict";
// The main table: its rows are in the page already; this sorts, filters, hides and exports them.
globalThis.requestIdleCallback ??= (work) => setTimeout(work, 50); // not every browser has idle callbacks
globalThis.cancelIdleCallback ??= clearTimeout;
const board = one("#board");
const everything = board.createTBody(); // rows of all settings while they are sorted by anything but rank
const groups = all("#board tbody.group");
const lines = data.rows.map((row, index) => {
  const line = document.getElementById(`row-${index}`);
  const text = [row.entry, row.defence, row.net, row.architecture, row.verdict, row.kind, ...row.flags].join(" ").toLowerCase();
  return { row, index, line, text, group: line.parentElement };
});
const FILTERS = ["kind", "defence", "net", "verdict", "tier", "eps"];
const RANKED = "rank";
let state = readState();
let order = lines;

const valueOf = (row, key) => {
  const value = row[key];
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value.value : value;
};
const rising = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));

function sorted() {
  const key = (state.sort || RANKED).replace(/^-/, "");
  const down = (state.sort || "").startsWith("-");
  const known = data.columns.some((column) => column.key === key);
  if (!known || (key === RANKED && !down)) return lines;
  return [...lines].sort((a, b) => {
    const [x, y] = [valueOf(a.row, key), valueOf(b.row, key)];
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index; // absent ones last
    return (down ? -rising(x, y) : rising(x, y)) || a.index - b.index;
  });
}

function arrange() {
  const before = order;
  order = sorted();
  if (order !== lines) everything.append(...order.map((l) => l.line));
  else if (before !== lines) {
    for (const group of groups) group.append(...lines.filter((l) => l.group === group).map((l) => l.line));
  }
  const [key, direction] = [(state.sort || RANKED).replace(/^-/, ""), (state.sort || "").startsWith("-")];
  for (const head of all("#board thead th[data-key]")) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", direction ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function shows({ row, text }) {
  const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => text.includes(word)) && FILTERS.every((name) => !state[name] || String(row[name]) === state[name]);
}

function filter() {
  let count = 0;
  for (const line of lines) {
    line.line.hidden = !shows(line);
    count += !line.line.hidden;
  }
  for (const group of groups) {
    const filled = lines.some((l) => l.group === group && !l.line.hidden) && order === lines;
    group.querySelector("tr.setting").hidden = !filled || groups.length < 2;
  }
  const what = data.rows.some((row) => row.kind === "control") ? "entries and controls" : "entries";
  one("#count").textContent = `${count === lines.length ? "" : `${count} of `}${lines.length} ${what}`;
  one("#none").hidden = count > 0;
  fold();
}

// The first rows at once, the others as there is time: a long table is usable before all of it is drawn.
let waiting = 0;
function unfold(all = false) {
  const shown = order.filter((l) => !l.line.hidden);
  const later = shown.filter((l) => l.line.classList.contains("later"));
  (all ? later : later.slice(0, data.at_once)).forEach((l) => l.line.classList.remove("later"));
  waiting = !all && later.length > data.at_once ? requestIdleCallback(() => unfold()) : 0;
}
function fold() {
  cancelIdleCallback(waiting);
  order.filter((l) => !l.line.hidden).forEach((l, i) => l.line.classList.toggle("later", i >= data.at_once));
  waiting = requestIdleCallback(() => unfold());
}

function hideColumns() {
  const hidden = new Set((state.hide || "").split(","));
  for (const { key } of data.columns) board.classList.toggle(`no-${key}`, hidden.has(key));
  for (const box of all("#columns input")) box.checked = !hidden.has(box.value);
}

function picked() {
  return (state.pick || "").split(",").filter((slug) => data.rows.some((row) => row.slug === slug)).slice(0, 4);
}

function showPicked() {
  const chosen = picked();
  for (const { row, line } of lines) {
    const box = line.querySelector(".pick input");
    box.checked = chosen.includes(row.slug);
    box.disabled = !box.checked && chosen.length === 4;
  }
  const button = one("#compare");
  button.disabled = chosen.length < 2;
  button.textContent = chosen.length ? `Compare ${chosen.length}` : "Compare";
}

function draw() {
  one("#q").value = state.q || "";
  for (const name of FILTERS) one(`#${name}`).value = state[name] || "";
  arrange();
  filter();
  hideColumns();
  showPicked();
}

function change(changes, ...steps) {
  state = { ...state, ...changes };
  writeState(state);
  steps.forEach((step) => step());
}

// Exports: the rows as they are shown, fractions as in the records.
const shown = () => order.filter((l) => !l.line.hidden).map((l) => l.row);
const quoted = (value) => {
  const text = value === null ? "" : Array.isArray(value) ? value.join(" ") : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // no formula in a spreadsheet
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
function csv(rows) {
  const cells = rows.map((row) => data.csv.map(([key, part]) => (part && row[key] ? row[key][part] ?? null : row[key])));
  return [data.csv.map(([key, part]) => (part && part !== "value" ? `${key}_${part}` : key)), ...cells]
    .map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}
const EXPORTS = {
  csv: () => download("leaderboard.csv", "text/csv", csv(shown())),
  json: () => download("leaderboard.json", "application/json", `${JSON.stringify(shown(), null, 2)}\n`),
  bib: () => download("leaderboard.bib", "application/x-bibtex",
    [...shown().map((row) => data.bib[row.slug]), ...data.papers].join("\n\n") + "\n"),
};

one("#q").addEventListener("input", (event) => change({ q: event.target.value }, filter));
for (const name of FILTERS) one(`#${name}`).addEventListener("change", (e) => change({ [name]: e.target.value }, filter));
one("#reset").addEventListener("click", () => { state = {}; writeState(state); draw(); });
one("#compare").addEventListener("click", () => { location.href = `compare.html#entries=${picked().join(",")}`; });
board.tHead.addEventListener("click", (event) => {
  const head = event.target.closest("button")?.closest("th");
  if (!head) return;
  const key = head.dataset.key;
  const first = head.dataset.first === "down" ? `-${key}` : key;
  const other = first === key ? `-${key}` : key;
  const now = state.sort || RANKED;
  change({ sort: (now === first ? other : first).replace(/^rank$/, "") }, arrange, filter);
});
board.addEventListener("change", (event) => {
  const slug = event.target.closest(".pick input")?.value;
  if (!slug) return;
  const chosen = picked().filter((other) => other !== slug);
  change({ pick: (event.target.checked ? [...chosen, slug] : chosen).join(",") }, showPicked);
});
one("#columns").addEventListener("change", () => {
  change({ hide: all("#columns input").filter((box) => !box.checked).map((box) => box.value).join(",") }, hideColumns);
});
for (const button of all("button[data-export]")) button.addEventListener("click", EXPORTS[button.dataset.export]);
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "/" && !typing) { event.preventDefault(); one("#q").focus(); }
  if (event.key === "Escape") all("details.menu[open]").forEach((menu) => { menu.open = false; });
  const link = event.target.closest("#board tbody tr")?.querySelector("a");
  if (!link || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
  const links = all("#board tbody tr:not([hidden]) th.defence a");
  const next = links[links.indexOf(link) + (event.key === "ArrowDown" ? 1 : -1)];
  if (next) { event.preventDefault(); next.focus(); }
});
document.addEventListener("click", (event) => {
  all("details.menu[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
});
addEventListener("beforeprint", () => unfold(true));
addEventListener("hashchange", () => { state = readState(); draw(); });
explainFlags();
draw();
all(".needs-script").forEach((part) => { part.hidden = false; });
