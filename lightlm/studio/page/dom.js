// Elements, formats and messages that all views share. Text is always set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element: h("p", {class: "quiet", onclick: f}, "text", child). */
export function h(tag, values = {}, ...children) {
  return fill(document.createElement(tag), values, children);
}

/** Return an element of a picture. */
export function s(tag, values = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), values, children);
}

function fill(element, values, children) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const find = (selector, within = document) => within.querySelector(selector);

/** Tell a screen reader. */
export function announce(message) {
  find("#status").textContent = message;
}

/** Show an error in a form or a view; "" takes it away. */
export function showError(within, message) {
  const place = find(".error", within);
  place.hidden = !message;
  place.textContent = message;
}

/** Show the lines of a command; none take them away. */
export function showLines(within, lines) {
  const place = find(".lines", within);
  const isAtEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 8;
  place.hidden = !lines.length;
  place.textContent = lines.join("\n");
  if (isAtEnd) place.scrollTop = place.scrollHeight;
}

export function formatSeconds(seconds) {
  const whole = Math.max(0, seconds);
  if (whole < 9.95) return `${whole.toFixed(1)} s`;
  const rounded = Math.round(whole);
  if (rounded < 120) return `${rounded} s`;
  const minutes = Math.floor(rounded / 60);
  if (minutes < 60) return `${minutes} min ${String(rounded % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function formatHours(hours) {
  const seconds = Math.round(hours * 3600);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 3600) return `${+(seconds / 60).toFixed(1)} min`;
  return `${+hours.toFixed(2)} h`;
}

export function formatBytes(bytes) {
  let size = bytes;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (size < 999.5 || unit === "TB") return unit === "B" || size >= 9.95 ? `${size.toFixed(0)} ${unit}` : `${size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
}

export function formatCount(count) {
  if (Math.abs(count) < 1e6) return Math.round(count).toLocaleString("en-US");
  const [size, letter] = count >= 1e12 ? [1e12, "T"] : count >= 1e9 ? [1e9, "B"] : [1e6, "M"];
  return `${(count / size).toFixed(2)} ${letter}`;
}

export const formatBits = (bits) => (Number.isFinite(bits) ? bits.toFixed(3) : "–");

/** Return "text" of /home/me/text, and other names as they are. */
export function shorten(source) {
  return source.replace(/[/\\]+$/, "").split(/[/\\]/).slice(source.startsWith("/") ? -1 : -2).join("/") || source;
}

/** Return a table; a column that begins with ">" is one of numbers. */
export function table(caption, columns, rows) {
  const isNumber = columns.map((name) => name.startsWith(">"));
  const cell = (tag) => (value, index) => h(tag, { class: isNumber[index] && "number", scope: tag === "th" && "col" }, value ?? "");
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((name) => name.replace(/^>/, "")).map(cell("th")))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell("td")))))));
}

/** Return a list of figures: [name, value, remark]. */
export function tiles(figures) {
  return h("dl", { class: "tiles" }, figures.map(([name, value, remark]) =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, remark && h("small", {}, remark)))));
}
