"use strict";
function exportImages() {
  const { clean, worst, draws } = data.counts;
  const lines = clean.map((count, image) => `${image},${draws},${count},${worst[image]}`);
  download(`${data.slug}-images.csv`, "text/csv", ["image,draws,clean_right,worst_right", ...lines, ""].join("\r\n"));
}
explainFlags();
one("#images-csv")?.addEventListener("click", exportImages);
one("#bib")?.addEventListener("click", () => download(`${data.slug}.bib`, "application/x-bibtex", data.bib));
one("#copy")?.addEventListener("click", (event) => {
  navigator.clipboard?.writeText(one("#command").textContent).then(() => { event.target.textContent = "Copied"; });
});
all(".needs-script").forEach((part) => { part.hidden = false; });
