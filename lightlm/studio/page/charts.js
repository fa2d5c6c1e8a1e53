// Lines over common axes, drawn as wide as their place. Colors come from the style sheet.

import { h, s } from "./dom.js";

const LEFT = 46;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 34;

/**
 * Return a chart. `series`: {name, points: [[x, y, low?, high?]], kind: line | dashed | faint | marks | band | intervals}.
 * `ticks`: [[x, label]]. `isLog`: x is on a logarithmic scale.
 */
export function chart(place, { series, ticks, label, xName, isLog = false, range = null, height = 250 }) {
  const drawn = series.filter((one) => one.points.length);
  if (!drawn.length) return null;
  const width = Math.max(280, place.clientWidth || 600);
  const scale = isLog ? Math.log : (x) => x;
  const xs = [...drawn.flatMap((one) => one.points.map(([x]) => scale(x))), ...(ticks ?? []).map(([x]) => scale(x))];
  const ys = drawn.flatMap((one) => one.points.flatMap(([, y, low, high]) => [y, low ?? y, high ?? y]));
  const [left, right] = spread(Math.min(...xs), Math.max(...xs), 1e-6);
  const [low, high] = range ?? spread(Math.min(...ys), Math.max(...ys), 0.1);
  const placeX = (x) => LEFT + ((width - LEFT - RIGHT) * (scale(x) - left)) / (right - left);
  const placeY = (y) => TOP + (height - TOP - BOTTOM) * (1 - (Math.min(Math.max(y, low), high) - low) / (high - low));
  const join = (points) => points.map(([x, y]) => `${placeX(x).toFixed(1)},${placeY(y).toFixed(1)}`).join(" ");

  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (let step = 0; step <= 4; step += 1) {
    const value = low + ((high - low) * step) / 4;
    picture.append(
      s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: placeY(value), y2: placeY(value) }),
      s("text", { x: LEFT - 8, y: placeY(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  for (const [x, name] of ticks ?? []) {
    const anchor = placeX(x) > width - 40 ? "end" : placeX(x) < LEFT + 20 ? "start" : "middle";
    picture.append(s("text", { x: placeX(x), y: height - 18, "text-anchor": anchor }, name));
  }
  picture.append(s("text", { x: LEFT + (width - LEFT - RIGHT) / 2, y: height - 3, "text-anchor": "middle" }, xName));
  for (const one of drawn) picture.append(...DRAW[one.kind](one, { placeX, placeY, join }));
  return h("figure", { class: "chart" }, picture,
    h("ul", { class: "legend", "aria-hidden": "true" }, drawn.filter((one) => one.name).map((one) => h("li", {}, key(one.kind), one.name))));
}

const DRAW = {
  line: ({ points }, { join }) => [s("polyline", { points: join(points) })],
  dashed: ({ points }, { join }) => [s("polyline", { class: "dashed", points: join(points) })],
  faint: ({ points }, { join }) => [s("polyline", { class: "faint", points: join(points) })],
  marks: ({ points, mark }, { placeX, placeY }) =>
    points.map(([x, y]) => s("circle", { class: mark, cx: placeX(x), cy: placeY(y), r: 4.5 })),
  band: ({ points }, { join }) => {
    const lower = points.map(([x, , low]) => [x, low]);
    const upper = points.map(([x, , , high]) => [x, high]).reverse();
    return [s("polygon", { class: "band", points: join([...lower, ...upper]) })];
  },
  intervals: ({ points }, { placeX, placeY }) =>
    points.flatMap(([x, y, low, high]) => [
      s("line", { class: "whisker", x1: placeX(x), x2: placeX(x), y1: placeY(low), y2: placeY(high) }),
      s("circle", { class: "main", cx: placeX(x), cy: placeY(y), r: 4.5 })]),
};

function key(kind) {
  const parts = {
    line: () => s("line", { x1: 0, x2: 26, y1: 6, y2: 6 }),
    dashed: () => s("line", { class: "dashed", x1: 0, x2: 26, y1: 6, y2: 6 }),
    band: () => s("rect", { width: 26, height: 12 }),
    marks: () => s("circle", { cx: 13, cy: 6, r: 4.5 }),
    intervals: () => s("circle", { class: "main", cx: 13, cy: 6, r: 4.5 }),
    faint: () => s("line", { x1: 0, x2: 26, y1: 6, y2: 6 }),
  };
  return s("svg", { viewBox: "0 0 26 12" }, parts[kind]());
}

function spread(low, high, least) {
  const room = Math.max(high - low, least);
  const middle = (low + high) / 2;
  const margin = least > 0.01 ? 0.04 * room : 0;
  return [Math.min(low, middle - room / 2) - margin, Math.max(high, middle + room / 2) + margin];
}
