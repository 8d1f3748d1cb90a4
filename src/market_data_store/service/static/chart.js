// Draws the newest rows of a series: candles, or lines.
import { draw } from "./dom.js";

const HEIGHT = 260, TOP = 10, BOTTOM = HEIGHT - 22, LEFT = 8;

const value = (row, name) => (row[name] === null || row[name] === undefined ? null : Number(row[name]));

function numbers(rows, fields) {
  return rows.flatMap((row) => fields.map((name) => value(row, name))).filter((each) => each !== null && Number.isFinite(each));
}

// An SVG of `rows`, newest first, in a width of so many pixels; null without a number to draw.
export function chart(rows, drawing, width, label) {
  const found = drawing === null ? [] : numbers(rows, drawing.fields);
  if (!found.length) return null;
  const points = [...rows].reverse();
  const low = found.reduce((a, b) => Math.min(a, b)), high = found.reduce((a, b) => Math.max(a, b));
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  const right = width - 70;
  // As many digits as tell the lines of the grid apart.
  const digits = Math.min(10, Math.max(0, 2 - Math.floor(Math.log10(high - low || Math.abs(high) || 1))));
  const y = (price) => BOTTOM - ((price - low + pad) / (high - low + 2 * pad)) * (BOTTOM - TOP);
  const step = (right - LEFT) / points.length;
  const x = (index) => LEFT + step * (index + 0.5);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": label });
  for (let i = 0; i <= 4; i++) {
    const price = low + ((high - low) * i) / 4;
    svg.append(
      draw("line", { class: "grid", x1: LEFT, x2: right, y1: y(price), y2: y(price) }),
      draw("text", { x: right + 4, y: y(price) + 4 }, price.toFixed(digits)),
    );
  }
  const time = (row) => row.ts.slice(0, 16).replace("T", " ");
  svg.append(draw("text", { x: LEFT, y: HEIGHT - 4 }, time(points[0])));
  if (points.length > 1) svg.append(draw("text", { x: right, y: HEIGHT - 4, "text-anchor": "end" }, time(points[points.length - 1])));
  if (drawing.kind === "candles") candles(svg, points, x, y, step);
  else drawing.fields.forEach((name, index) => line(svg, points, name, index, x, y));
  return svg;
}

// Bars that rise and bars that fall are one path each, so that the number of elements does not grow with the rows.
function candles(svg, points, x, y, step) {
  const paths = { rises: "", falls: "" };
  const half = Math.max(0.5, step * 0.35).toFixed(2);
  points.forEach((row, index) => {
    const [open, high, low, close] = ["open", "high", "low", "close"].map((name) => value(row, name));
    if ([open, high, low, close].some((each) => each === null)) return;
    const at = x(index).toFixed(1), top = y(Math.max(open, close)), size = Math.max(1, Math.abs(y(open) - y(close)));
    paths[close >= open ? "rises" : "falls"] +=
      `M${at},${y(high).toFixed(1)}V${y(low).toFixed(1)}M${(at - half).toFixed(1)},${top.toFixed(1)}h${2 * half}v${size.toFixed(1)}h${-2 * half}z`;
  });
  for (const [name, d] of Object.entries(paths)) if (d) svg.append(draw("path", { class: `candles ${name}`, d }));
}

function line(svg, points, name, index, x, y) {
  const drawn = points.map((row, place) => [x(place), value(row, name)]).filter(([, price]) => price !== null && Number.isFinite(price));
  if (!drawn.length) return;
  const d = drawn.map(([at, price]) => `${at.toFixed(1)},${y(price).toFixed(1)}`).join("L");
  svg.append(draw("path", { class: `line ${["live", "backfill"][index % 2]}`, d: `M${d}` }));
  svg.append(draw("text", { class: "name", x: LEFT + 4 + 50 * index, y: TOP + 8 }, name));
}
