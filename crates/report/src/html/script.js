// The numbers under the pointer, and the choice of light or dark.
const charts = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const number = (y) => (Math.abs(y) >= 1000 ? Math.round(y).toLocaleString() : Number(y.toPrecision(4)).toString());
for (const element of document.querySelectorAll(".chart")) {
  const { steps, plot, series } = charts[element.dataset.chart];
  const [left, right, width, top, bottom] = plot;
  const cursor = element.querySelector(".cursor");
  element.addEventListener("pointermove", (event) => {
    const box = element.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const step = ((x - left) / (right - left)) * steps;
    const rows = [];
    for (const { label, color, points } of series) {
      let near = null;
      for (const point of points) if (!near || Math.abs(point[0] - step) < Math.abs(near[0] - step)) near = point;
      if (near) rows.push({ label, color, step: near[0], y: near[1] });
    }
    if (!rows.length) return;
    const closest = rows.reduce((a, b) => (Math.abs(b.step - step) < Math.abs(a.step - step) ? b : a)).step;
    const at = left + (closest / steps) * (right - left);
    cursor.setAttribute("d", `M${at} ${top}V${bottom}`);
    tip.replaceChildren(`step ${closest}`);
    for (const row of rows) {
      const line = document.createElement("div");
      line.className = `k${row.color}`;
      const of = row.step === closest ? "" : ` (step ${row.step})`;
      line.textContent = `${row.label} ${row.y === null ? "not a number" : number(row.y)}${of}`;
      tip.append(line);
    }
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  element.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    cursor.setAttribute("d", "");
  });
}
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
