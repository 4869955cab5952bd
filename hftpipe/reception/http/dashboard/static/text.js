// Numbers and times for people, and elements for them. What comes from outside becomes text, never markup.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });
const two = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const THIN_SPACE = "\u202f";
export const UNKNOWN = "–";

export const grouped = (number) =>
  number == null ? UNKNOWN : whole.format(number).replaceAll(",", THIN_SPACE);

export function short(number) {
  if (number == null || Number.isNaN(number)) return UNKNOWN;
  if (number > 0 && number < 9.95) return two.format(number);
  // From where three digits would round up to the next unit.
  for (const [from, size, unit] of [[9.995e8, 1e9, "G"], [9.995e5, 1e6, "M"], [9999.5, 1e3, "k"]]) {
    if (number >= from) return `${three.format(number / size)}${THIN_SPACE}${unit}`;
  }
  return grouped(number);
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const at = Math.min(Math.max(Math.floor(Math.log10(Math.max(count, 1)) / 3), 0), units.length - 1);
  return `${three.format(count / 1000 ** at)}${THIN_SPACE}${units[at]}`;
}

export function lasting(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 0.9995) return `${grouped(seconds * 1000)}${THIN_SPACE}ms`;
  if (seconds < 120) return `${three.format(seconds)}${THIN_SPACE}s`;
  if (seconds < 7200) return `${grouped(seconds / 60)}${THIN_SPACE}min`;
  if (seconds < 172800) return `${grouped(seconds / 3600)}${THIN_SPACE}h`;
  return `${grouped(seconds / 86400)}${THIN_SPACE}d`;
}

export const counted = (number, one, many) => `${grouped(number)} ${number === 1 ? one : many}`;

export const clock = (timeMs) => new Date(timeMs).toLocaleTimeString("en-GB");

// Where a person lives; an entry of anybody may name a time that no calendar has.
export function moment(timeMs) {
  const date = new Date(timeMs ?? NaN);
  return Number.isNaN(date.valueOf()) ? UNKNOWN : date.toLocaleString("en-GB");
}

export const byId = (id) => document.getElementById(id);

function setText(holder, text) {
  if (holder.textContent !== text) holder.textContent = text;
}

export const put = (id, text) => setText(byId(id), String(text));

function make(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export const element = (name, attributes = {}, ...children) =>
  make(document.createElement(name), attributes, children);

export const drawing = (name, attributes = {}, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

export const facts = (pairs) =>
  pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value ?? UNKNOWN)]);

// Rows of cells [text, class], the first of each its heading; changed in place, so that nothing that somebody reads or
// marks is pulled away.
export function fillRows(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    cells.forEach(([text, name = ""], column) => {
      const cell = row.cells[column]
        ?? row.appendChild(column ? element("td") : element("th", { scope: "row" }));
      setText(cell, String(text));
      if (cell.className !== name) cell.className = name;
    });
  });
}

// Names with counts and bars, changed in place, too. pick: called with the value of a name that was chosen.
export function fillMeters(holder, entries, pick) {
  const top = Math.max(...entries.map(({ count }) => count), 1);
  while (holder.children.length > entries.length) holder.lastElementChild.remove();
  entries.forEach(({ name, value, count }, at) => {
    const meter = holder.children[at] ?? holder.appendChild(newMeter(pick));
    const [label, number, bar] = meter.children;
    label.dataset.value = value ?? "";
    setText(label, name);
    setText(number, grouped(count));
    bar.lastElementChild.setAttribute("width", Math.max((count / top) * 100, 1));
  });
}

function newMeter(pick) {
  const label = pick ? element("button", { type: "button", class: "link" }) : element("span");
  if (pick) label.addEventListener("click", () => pick(label.dataset.value));
  const bar = drawing(
    "svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("rect", { width: 100, height: 1, class: "ground" }),
    drawing("rect", { width: 0, height: 1, class: "bar" }),
  );
  return element("div", { class: "meter" }, label, element("span"), bar);
}
