"use strict";
// Before anything is drawn: the reader's choice, if there is one; without it the style sheet follows the system.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  try { if (localStorage.getItem("theme")) root.dataset.theme = localStorage.getItem("theme"); } catch { /* none kept */ }
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("button.theme");
    const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* shown all the same */ }
      name();
    });
    system.addEventListener("change", name);
    name();
  });
})();
