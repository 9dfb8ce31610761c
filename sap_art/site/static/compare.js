"use strict";
// Two to four entries side by side: #entries=a,b
const MOST = 4;
const rowOf = new Map(data.rows.map((row) => [row.slug, row]));
const chosen = () => (readState().entries || "").split(",").filter((slug) => rowOf.has(slug)).slice(0, MOST);
const percent = (value) => (100 * value).toFixed(1);
const signed = (value) => {
  const text = percent(Math.abs(value));
  return Number(text) === 0 ? text : `${value < 0 ? "\u2212" : "+"}${text}`;
};

function cellOf(row, { key, kind }) {
  const value = row[key];
  const cell = element("td", undefined, { class: kind === "text" ? "" : "n" });
  if (value === null || value === undefined) cell.append(element("span", "\u2013", { class: "absent" }));
  else if (key === "verdict") cell.append(element("span", data.verdicts[value], { class: `mark v-${value}` }), flagsOf(row));
  else if (kind === "value") {
    cell.append(percent(value.value));
    if ("low" in value) cell.append(element("i", `[${percent(value.low)}, ${percent(value.high)}]`));
  } else if (kind === "fraction") cell.append(key === "transfer_gap" ? signed(value) : percent(value));
  else cell.append(kind === "number" ? value.toLocaleString("en") : String(value));
  return cell;
}

function flagsOf(row) {
  const list = element("div", undefined, { class: "flags" });
  for (const code of row.flags) {
    const attributes = { type: "button", class: `flag ${data.explanations[code].level}`, "data-code": code };
    list.append(element("button", code, { ...attributes, "data-seen": data.seen[row.slug]?.[code] || "" }));
  }
  return list;
}

// Paired difference of the worst cases: first minus second, from the table of all pairs of their setting.
function difference(first, second) {
  const group = data.pairs.find(({ names }) => names.includes(first) && names.includes(second));
  if (!group) return null;
  let [i, j] = [group.names.indexOf(first), group.names.indexOf(second)];
  const turned = i > j;
  if (turned) [i, j] = [j, i];
  const at = 3 * (i * group.names.length - (i * (i + 1)) / 2 + (j - i - 1));
  const [value, low, high] = group.units.slice(at, at + 3).map((unit) => unit / data.unit);
  return turned ? { value: -value, low: -high, high: -low } : { value, low, high };
}

function pairLine(first, second) {
  const [a, b] = [rowOf.get(first), rowOf.get(second)];
  const line = element("tr");
  line.append(element("td", `${a.name} minus ${b.name}`));
  const found = difference(first, second);
  if (!found) {
    const why = a.setting !== b.setting ? "not the same images, eps and tier" : "right draws were not kept image by image";
    line.append(element("td", "\u2013", { class: "n absent" }), element("td", why, { class: "muted" }));
    return line;
  }
  const apart = found.low > 0 || found.high < 0;
  const cell = element("td", `${signed(found.value)} `, { class: "n" });
  cell.append(element("span", `[${signed(found.low)}, ${signed(found.high)}]`, { class: "interval" }));
  const better = found.low > 0 ? a : b;
  line.append(cell, element("td", apart ? `${better.name} is better` : "not separated: the interval contains 0",
    { class: apart ? "apart" : "muted" }));
  return line;
}

function draw() {
  const slugs = chosen();
  const rows = slugs.map((slug) => rowOf.get(slug));
  all("#choose select").forEach((select, i) => { select.value = slugs[i] || ""; });
  one("#few").hidden = slugs.length > 1;
  one("#result").hidden = slugs.length < 2;
  if (slugs.length < 2) return;
  const head = element("tr");
  head.append(element("th", "", { scope: "col" }), ...rows.map((row) => {
    const cell = element("th", undefined, { scope: "col" });
    cell.append(element("a", row.name, { href: `entries/${encodeURIComponent(row.slug)}.html` }));
    return cell;
  }));
  one("#side thead").replaceChildren(head);
  one("#side tbody").replaceChildren(...data.columns.map((column) => {
    const line = element("tr");
    line.append(element("th", column.label, { scope: "row", class: "muted" }), ...rows.map((row) => cellOf(row, column)));
    return line;
  }));
  const pairs = slugs.flatMap((first, i) => slugs.slice(i + 1).map((second) => pairLine(first, second)));
  one("#pairs tbody").replaceChildren(...pairs);
  one("#drawn").replaceChildren(...slugs.flatMap((slug) => [...(document.getElementById(`plots-${slug}`)?.content.cloneNode(true).childNodes || [])]));
}

for (const select of all("#choose select")) {
  select.addEventListener("change", () => {
    const slugs = [...new Set(all("#choose select").map((one) => one.value).filter(Boolean))];
    writeState({ entries: slugs.join(",") });
    draw();
  });
}
addEventListener("hashchange", draw);
explainFlags();
draw();
all(".needs-script").forEach((part) => { part.hidden = false; });
