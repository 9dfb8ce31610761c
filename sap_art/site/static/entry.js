"use strict";
// The difference of two pictures, grey where there is none; as far as eps is black or white.
function drawDifferences() {
  for (const item of all(".examples li")) {
    const [clean, worst] = item.querySelectorAll("img");
    const canvas = item.querySelector("canvas");
    const { width, height } = clean;
    const pixels = [clean, worst].map((image) => {
      const sheet = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
      const pen = sheet.getContext("2d");
      pen.drawImage(image, 0, 0);
      return pen.getImageData(0, 0, sheet.width, sheet.height);
    });
    canvas.width = pixels[0].width;
    canvas.height = pixels[0].height;
    const drawn = new ImageData(canvas.width, canvas.height);
    const changes = pixels[0].data.map ? Array.from(pixels[0].data, (value, i) => pixels[1].data[i] - value) : [];
    const most = data.reach || Math.max(1, ...changes.map(Math.abs));
    changes.forEach((by, i) => { drawn.data[i] = i % 4 === 3 ? 255 : 128 + (127 * by) / most; });
    canvas.getContext("2d").putImageData(drawn, 0, 0);
    canvas.hidden = false;
  }
}
function exportImages() {
  const { clean, worst, draws } = data.counts;
  const lines = clean.map((count, image) => `${image},${draws},${count},${worst[image]}`);
  download(`${data.slug}-images.csv`, "text/csv", ["image,draws,clean_right,worst_right", ...lines, ""].join("\r\n"));
}
explainFlags();
Promise.all(all(".examples img").map((image) => image.decode())).then(drawDifferences);
one("#images-csv")?.addEventListener("click", exportImages);
one("#bib")?.addEventListener("click", () => download(`${data.slug}.bib`, "application/x-bibtex", data.bib));
one("#copy")?.addEventListener("click", (event) => {
  navigator.clipboard?.writeText(one("#command").textContent).then(() => { event.target.textContent = "Copied"; });
});
all(".needs-script").forEach((part) => { part.hidden = false; });
