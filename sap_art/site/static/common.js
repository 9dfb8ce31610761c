"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The state of a page is its fragment: #sort=-clean&tier=quick
const readState = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
function writeState(state) {
  const kept = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
  const text = kept.toString().replaceAll("%2C", ",");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// A flag explains itself on hover and on focus; Escape closes what it says.
function explainFlags() {
  const tip = element("div", undefined, { id: "tip", role: "tooltip" });
  tip.hidden = true;
  document.body.append(tip);
  let shown = null;
  const hide = () => { tip.hidden = true; shown?.removeAttribute("aria-describedby"); shown = null; };
  const show = (button) => {
    if (shown === button) return;
    hide();
    const about = data.explanations[button.dataset.code];
    const level = about.level === "R" ? "makes the evaluation unreliable" : "a warning";
    const seen = button.dataset.seen ?? button.closest("tr")?.lastElementChild.textContent; // the table has it already
    const lines = [["Seen", seen], ["Why it matters", about.why], ["What to do", about.remedy]];
    tip.replaceChildren(element("b", `${button.dataset.code}: ${level}`),
      ...lines.filter(([, text]) => text).map(([name, text]) => element("p", `${name}: ${text}`)));
    tip.hidden = false;
    const at = button.getBoundingClientRect();
    const left = Math.max(12, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 12));
    const below = at.bottom + 6 + tip.offsetHeight < innerHeight || at.top < tip.offsetHeight + 6;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? at.bottom + 6 : at.top - tip.offsetHeight - 6) + scrollY}px`;
    button.setAttribute("aria-describedby", "tip");
    shown = button;
  };
  const flag = (event) => event.target instanceof Element && event.target.closest("button.flag");
  for (const kind of ["mouseover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => { if (flag(event)) show(flag(event)); });
  }
  for (const kind of ["mouseout", "focusout"]) {
    document.addEventListener(kind, (event) => { if (flag(event) && event.relatedTarget !== tip) hide(); });
  }
  tip.addEventListener("mouseleave", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", "", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
