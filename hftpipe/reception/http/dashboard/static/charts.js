// Lines over the last minutes, as SVG; drawn anew with every sample.

import { clock, drawing, element, short } from "./text.js";

const WIDTH = 340;
const HEIGHT = 150;
const LEFT = 42;
const RIGHT = 334;
const BOTTOM = 128;
const TOP = 10;
const SMALLEST_TOP = 10;

// The next of 10, 20, 50, 100, …: an axis that does not jump with every sample.
function ceiling(largest) {
  if (largest <= SMALLEST_TOP) return SMALLEST_TOP;
  const power = 10 ** Math.floor(Math.log10(largest));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= largest);
}

function axes(top, minutes) {
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const y = BOTTOM + share * (TOP - BOTTOM);
    parts.push(
      drawing("line", { x1: LEFT, x2: RIGHT, y1: y, y2: y, class: "axis" }),
      drawing("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, short(top * share)),
    );
  }
  for (let minute = 0; minute <= minutes; minute += 1) {
    const x = RIGHT - (minute / minutes) * (RIGHT - LEFT);
    parts.push(drawing("line", { x1: x, x2: x, y1: BOTTOM, y2: BOTTOM + 4, class: "axis" }));
    const anchor = minute ? "middle" : "end";
    const text = minute === 0 ? "now" : minute === minutes ? `−${minute} min` : `−${minute}`;
    parts.push(drawing("text", { x, y: BOTTOM + 17, "text-anchor": anchor }, text));
  }
  return parts;
}

function curve(lines, place, area) {
  let path = "";
  for (const line of lines) {
    const points = line.map((point) => place(point).map((number) => number.toFixed(1)).join(" "));
    const ends = [line[0], line.at(-1)].map((point) => place(point)[0].toFixed(1));
    // A lone point is a line without length, which round ends make a dot of.
    path += area
      ? `M${ends[0]} ${BOTTOM}L${points.join("L")}L${ends[1]} ${BOTTOM}Z`
      : `M${points.join("L")}${points.length === 1 ? "h0" : ""}`;
  }
  return path;
}

const valueAt = (lines, time) => lines.flat().findLast((point) => point[0] <= time)?.[1];

// series: [{ name, lines: [[[time in ms, value], …], …] }], two at most; lines end at or before `newest`.
export class Chart {
  #holder;
  #title;
  #spanMs;
  #shown = null;
  #pointedAt = null;

  constructor(holder, title, spanMs) {
    this.#holder = holder;
    this.#title = title;
    this.#spanMs = spanMs;
    holder.addEventListener("pointermove", (event) => this.#point(event));
    holder.addEventListener("pointerleave", () => this.#point(null));
  }

  show(series, newest) {
    this.#shown = { series, newest };
    this.#draw();
  }

  #point(event) {
    if (!this.#shown) return;
    const box = this.#holder.firstElementChild?.getBoundingClientRect();
    const x = event && box ? ((event.clientX - box.left) / box.width) * WIDTH : -1;
    this.#pointedAt = x < LEFT || x > RIGHT ? null : (RIGHT - x) / (RIGHT - LEFT);
    this.#draw();
  }

  #draw() {
    const { series, newest } = this.#shown;
    const top = ceiling(Math.max(0, ...series.flatMap(({ lines }) => lines.flat().map(([, value]) => value))));
    const place = ([time, value]) => [
      RIGHT - ((newest - time) / this.#spanMs) * (RIGHT - LEFT),
      BOTTOM + (value / top) * (TOP - BOTTOM),
    ];
    const time = newest - (this.#pointedAt ?? 0) * this.#spanMs;
    const told = series.map(({ name, lines }) => [name, short(valueAt(lines, time))]);
    const chart = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    chart.setAttribute("aria-label", `${this.#title}, now: ${told.map((each) => each.join(" ")).join(", ")}`);
    chart.append(...axes(top, Math.round(this.#spanMs / 60000)));
    series.forEach(({ lines }, at) => {
      if (!at) chart.append(drawing("path", { d: curve(lines, place, true), class: "area" }));
      chart.append(drawing("path", { d: curve(lines, place, false), class: `line ${at ? "second" : "first"}` }));
    });
    if (this.#pointedAt != null) {
      const x = RIGHT - this.#pointedAt * (RIGHT - LEFT);
      chart.append(drawing("line", { x1: x, x2: x, y1: TOP, y2: BOTTOM, class: "pointer" }));
    }
    const legend = element("p", { class: "legend" });
    told.forEach(([name, value], at) => {
      legend.append(element("span", { class: at ? "second" : "first" }, `${name} `, element("b", {}, value)));
    });
    if (this.#pointedAt != null) legend.append(element("span", { class: "when" }, clock(time)));
    this.#holder.replaceChildren(chart, legend);
  }
}

// One column a shard.
export function columns(values) {
  const top = Math.max(...values.map(({ count }) => count ?? 0), 1);
  const chart = drawing("svg", { viewBox: `0 0 ${values.length * 10 - 2} 20`, preserveAspectRatio: "none" });
  values.forEach(({ count, isStopped }, at) => {
    const height = count ? Math.max((count / top) * 20, 3) : 1;
    chart.append(
      drawing("rect", { x: at * 10, y: 0, width: 8, height: 20, class: "ground" }),
      drawing("rect", { x: at * 10, y: 20 - height, width: 8, height, class: isStopped ? "bar stopped" : "bar" }),
    );
  });
  return chart;
}
