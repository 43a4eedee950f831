// A line chart as SVG, drawn anew with each reading.

import { element } from "./inline.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [600, 150];

function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** The least of 1, 2, 5 × 10ⁿ that is not below a number. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value * (1 - 1e-9));
}

/** The path through the values of one series; a gap where there is none. */
function path(points, index, { from, to, top }) {
  let d = "";
  let pen = "M";
  for (const { time, values } of points) {
    const value = values[index];
    if (value === null || value === undefined || !Number.isFinite(value)) {
      pen = "M";
      continue;
    }
    const x = ((time - from) / (to - from)) * WIDTH;
    // Lines at either end are seen whole.
    const y = HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 4);
    d += `${pen}${x.toFixed(1)},${y.toFixed(1)}`;
    pen = "L";
  }
  // A value on its own would be invisible.
  return d.replace(/M([\d.,-]+)(?=M|$)/g, "M$1h1");
}

/**
 * A chart. `series` are the names of its lines, `format` makes texts of values, `top` is the end of the scale if that is
 * fixed. `draw(points, from, to)` shows points `{time, values}`, with times in ms.
 */
export function chart({ title, series, format, top: fixed }) {
  const node = element("figure", "chart");
  const caption = element("figcaption");
  caption.append(element("h2", "", title));
  const legend = element("div", "legend");
  const readings = series.map((name, index) => {
    const item = element("span", `series s${index}`);
    const reading = element("output", "", "–");
    item.append(element("i"), element("span", "", name), reading);
    legend.append(item);
    return reading;
  });
  const when = element("time", "note");
  legend.append(when);
  caption.append(legend);
  const plot = element("div", "plot");
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  for (const share of [0.25, 0.5, 0.75]) {
    svg.append(shape("path", { class: "grid", d: `M0,${HEIGHT * share}H${WIDTH}` }));
  }
  const lines = series.map((_, index) => shape("path", { class: `line s${index}`, d: "" }));
  const cursor = shape("path", { class: "cursor", d: "" });
  svg.append(...lines, cursor);
  const [topLabel, zero] = [element("span", "top"), element("span", "zero", format(0))];
  const [begin, end] = [element("span", "begin"), element("span", "end")];
  plot.append(svg, topLabel, zero, begin, end);
  node.append(caption, plot);
  let shown = { points: [], from: 0, to: 1 };
  /** The point that the pointer is at. */
  let at = null;

  function read() {
    const point = at ?? shown.points.at(-1);
    const texts = series.map((name, index) => {
      const value = point?.values[index];
      const text = value === null || value === undefined || !Number.isFinite(value) ? "–" : format(value);
      readings[index].textContent = text;
      return `${name} ${text}`;
    });
    when.textContent = at ? new Date(at.time).toLocaleTimeString() : "";
    svg.setAttribute("aria-label", `${title}: ${texts.join(", ")}`);
    const x = at ? ((at.time - shown.from) / (shown.to - shown.from)) * WIDTH : 0;
    cursor.setAttribute("d", at ? `M${x.toFixed(1)},0V${HEIGHT}` : "");
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const time = shown.from + ((event.clientX - box.left) / box.width) * (shown.to - shown.from);
    at = shown.points.reduce(
      (best, point) => (!best || Math.abs(point.time - time) < Math.abs(best.time - time) ? point : best),
      null,
    );
    read();
  });
  svg.addEventListener("pointerleave", () => {
    at = null;
    read();
  });
  return {
    node,
    draw(points, from, to) {
      const visible = points.filter(({ time }) => time >= from && time <= to);
      const most = visible.reduce((most, { values }) => Math.max(most, ...values.filter(Number.isFinite)), 0);
      const top = fixed ?? ceiling(most);
      lines.forEach((line, index) => line.setAttribute("d", path(visible, index, { from, to, top })));
      topLabel.textContent = format(top);
      const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      begin.textContent = clock(from);
      end.textContent = clock(to);
      shown = { points: visible, from, to };
      if (at && !visible.includes(at)) at = null;
      read();
    },
  };
}
