// Three plots on one time axis: rows by outcome, depth of both lanes, latency; the level is their background.
import { byId, draw, make, setText, text } from "./dom.js";
import { clock, few, known, milliseconds, number, percent } from "./words.js";

const HISTORY_S = 900;
// A line over a longer gap would claim to know what nobody saw.
const GAP_S = 30;
const LEFT = 8, TOP = 14;
// Place in a point of `flow.history`, class and name. What another row of its message replaced is with the stale ones.
const OUTCOMES = [[[1], "written", "written"], [[2], "unchanged", "unchanged"], [[3, 4], "stale", "stale"], [[5], "rejected", "rejected"]];
const LATENCIES = [[6, "p50", "p50"], [7, "p99", "p99"]];

// By second: several server processes have each seen the store at moments of their own.
class Seen {
  points = new Map();
  add(points, now) {
    for (const point of points || []) this.points.set(Math.round(point[0]), point);
    for (const second of this.points.keys()) if (second < now - HISTORY_S) this.points.delete(second);
  }
  sorted() {
    return [...this.points.values()].sort((a, b) => a[0] - b[0]);
  }
}

const live = new Seen(), backfill = new Seen(), flow = new Seen();
let newest = null;
// The moment that is pointed at, in seconds since 1970.
let pointed = null;

export function show(status) {
  newest = status;
  live.add(status.history, status.ts);
  backfill.add(status.backfill_history, status.ts);
  flow.add(status.flow && status.flow.history, status.ts);
  plot();
}

const nearest = (points, ts) => points.reduce((a, b) => (a && Math.abs(a[0] - ts) <= Math.abs(b[0] - ts) ? a : b), null);

// The same, unless it is of another time.
const near = (points, ts) => {
  const found = nearest(points, ts);
  return found && Math.abs(found[0] - ts) <= GAP_S ? found : null;
};

const sum = (point, places) => places.reduce((total, place) => total + (point[place] || 0), 0);

// A whole number of thousands, hundreds, ... above all values, for the top of an axis.
function round(most) {
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((times) => times * unit).find((top) => top >= most);
}

class Frame {
  constructor(id, height, most, label) {
    this.frame = byId(id);
    this.width = Math.max(200, this.frame.clientWidth);
    this.right = this.width - 8;
    this.bottom = height - 18;
    this.most = most;
    this.svg = draw("svg", { viewBox: `0 0 ${this.width} ${height}`, height, role: "img", "aria-label": label });
  }
  x(ts) {
    return LEFT + (this.right - LEFT) * Math.min(1, Math.max(0, 1 - (newest.ts - ts) / HISTORY_S));
  }
  y(value) {
    return this.bottom - (this.bottom - TOP) * Math.min(1, value / this.most);
  }
  levels(points) {
    let start = 0;
    points.forEach((point, index) => {
      const next = points[index + 1];
      const ends = !next || next[2] !== point[2] || next[0] - point[0] > GAP_S;
      if (!ends) return;
      const from = this.x(points[start][0]);
      const width = Math.max(1, this.x(Math.min(next ? next[0] : newest.ts, point[0] + GAP_S)) - from);
      this.svg.append(draw("rect", { class: `band ${point[2]}`, x: from, width, y: TOP, height: this.bottom - TOP }));
      if (width > 40 && point[2] !== "ok") this.svg.append(draw("text", { class: point[2], x: from + 3, y: this.bottom - 4 }, point[2]));
      start = index + 1;
    });
  }
  axis(last) {
    this.svg.append(draw("line", { class: "axis", x1: LEFT, x2: this.right, y1: this.bottom, y2: this.bottom }));
    for (const minutes of last ? [15, 10, 5, 0] : []) {
      const anchor = minutes === 15 ? "start" : minutes === 0 ? "end" : "middle";
      const said = minutes ? `-${minutes} min` : "now";
      this.svg.append(draw("text", { x: this.x(newest.ts - minutes * 60), y: this.bottom + 14, "text-anchor": anchor }, said));
    }
  }
  mark(value, className, said) {
    const at = this.y(value);
    this.svg.append(
      draw("line", { class: `mark ${className}`, x1: LEFT, x2: this.right, y1: at, y2: at }),
      draw("text", { class: className, x: LEFT + 2, y: at - 3 }, said),
    );
  }
  top(said) {
    this.svg.append(draw("text", { x: this.right, y: TOP - 3, "text-anchor": "end" }, said));
  }
  // Runs of points without a gap, as lists of [x, y].
  runs(points, valueOf) {
    const runs = [];
    points.forEach((point, index) => {
      const value = valueOf(point), before = points[index - 1];
      const joined = before && known(valueOf(before)) && point[0] - before[0] <= GAP_S;
      if (!known(value)) return;
      if (!joined) runs.push([]);
      runs[runs.length - 1].push([this.x(point[0]).toFixed(1), this.y(value).toFixed(1)]);
    });
    return runs;
  }
  line(points, valueOf, className) {
    for (const run of this.runs(points, valueOf)) this.svg.append(draw("path", { class: `line ${className}`, d: `M${run.map((p) => p.join()).join("L")}` }));
  }
  area(points, lowOf, highOf, className) {
    const lows = this.runs(points, lowOf);
    this.runs(points, highOf).forEach((run, index) => {
      const back = [...lows[index]].reverse();
      this.svg.append(draw("path", { class: `area ${className}`, d: `M${[...run, ...back].map((p) => p.join()).join("L")}Z` }));
    });
  }
  finish(empty) {
    if (empty) this.svg.append(draw("text", { x: this.width / 2, y: (TOP + this.bottom) / 2, "text-anchor": "middle" }, empty));
    if (pointed !== null) {
      const at = this.x(pointed);
      this.svg.append(draw("line", { class: "pointer", x1: at, x2: at, y1: TOP, y2: this.bottom }));
    }
    this.frame.replaceChildren(this.svg);
  }
}

function legend(id, entries) {
  const around = byId(id);
  if (around.childElementCount !== entries.length) {
    around.replaceChildren(...entries.map(([className]) => {
      const entry = make("span");
      entry.append(make("i", className), make("span"));
      return entry;
    }));
  }
  entries.forEach(([, said], index) => setText(around.children[index].lastChild, said));
}

function plotRows(points, levels) {
  const total = (point) => (known(point[1]) ? sum(point, [1, 2, 3, 4, 5]) : null);
  const most = points.reduce((a, point) => Math.max(a, total(point) || 0), 0);
  const top = round(Math.max(most, 1));
  const frame = new Frame("plot-rows", 120, top, `Rows per second: at most ${number(most)} in the last 15 minutes`);
  frame.levels(levels);
  frame.top(`${number(top)}/s`);
  let below = [];
  for (const [places, className] of OUTCOMES) {
    const lower = [...below], upper = [...below, ...places];
    frame.area(points, (p) => (known(p[1]) ? sum(p, lower) : null), (p) => (known(p[1]) ? sum(p, upper) : null), className);
    // What is rejected is seen, however little it is.
    if (className === "rejected") frame.line(points, (p) => (sum(p, places) > 0 ? sum(p, upper) : null), className);
    below = upper;
  }
  frame.axis(false);
  frame.finish(points.some((point) => known(point[1])) ? "" : "not known: no worker has said what it writes");
  const now = newest.flow && newest.flow.rows_per_s;
  legend("rows-legend", OUTCOMES.map(([, className, name]) => {
    const value = now && (className === "stale" && known(now.stale) ? now.stale + (now.superseded || 0) : now[className]);
    return [className, known(value) ? `${name} ${few(value)}` : name];
  }));
}

function plotDepth(points, others) {
  const { queue, backfill: lane } = newest;
  const shareOf = (capacity) => (point) => (known(point[1]) ? point[1] / capacity : null);
  const highest = points.reduce((a, point) => Math.max(a, point[1] || 0), 0);
  const most = Math.max(1, highest / queue.capacity, ...others.map((point) => (point[1] || 0) / lane.capacity)) * 1.02;
  const now = number(queue.depth);
  const label = `Messages waiting: now ${now}, at most ${number(highest)} in the last 15 minutes, capacity ${number(queue.capacity)}; ` +
    `in the backfill lane now ${number(lane.depth)}, capacity ${number(lane.capacity)}`;
  const frame = new Frame("plot", 150, most, label);
  frame.levels(points);
  const { soft_above: soft, hard_from: hard } = queue.watermarks;
  const messages = (share) => (queue.capacity === lane.capacity ? `: ${number(queue.capacity * share)}` : ` ${percent(share)}`);
  for (const [name, className, share] of [["full", "full", 1], ["hard from", "hard", hard], ["soft above", "soft", soft]]) {
    frame.mark(share, className, `${name}${messages(share)}`);
  }
  frame.line(others, shareOf(lane.capacity), "backfill");
  frame.line(points, shareOf(queue.capacity), "live");
  frame.axis(false);
  frame.finish("");
  legend("depth-legend", [["live", `live ${now}`], ["backfill", `backfill ${number(lane.depth)}`]]);
}

function plotLatency(points, levels) {
  const most = points.reduce((a, point) => Math.max(a, point[6] || 0, point[7] || 0), 0);
  const top = round(Math.max(most, 10));
  const frame = new Frame("plot-latency", 124, top, `Latency: p99 at most ${milliseconds(most)} in the last 15 minutes`);
  frame.levels(levels);
  frame.top(milliseconds(top));
  for (const [place, className] of LATENCIES) frame.line(points, (point) => point[place], className);
  frame.axis(true);
  frame.finish(most ? "" : "no row was written");
  const now = newest.flow && newest.flow.latency_ms;
  legend("latency-legend", LATENCIES.map(([, className, name]) => [className, now && known(now[name]) ? `${name} ${milliseconds(now[name])}` : name]));
}

function read(points, others, rows) {
  const at = pointed === null ? null : nearest(points, pointed);
  if (at === null) {
    text("pointed", "The colour behind the plots is the level: none for ok, yellow for soft, red for hard. Point at a plot to read it.");
    return;
  }
  const lane = near(others, at[0]), flowed = near(rows, at[0]);
  const said = [`${known(at[1]) ? `${number(at[1])} waiting` : "depth unknown"}, ${at[2]}`];
  if (lane && known(lane[1])) said.push(`backfill ${number(lane[1])} waiting, ${lane[2]}`);
  if (flowed && known(flowed[1])) said.push(`${OUTCOMES.map(([places, , name]) => `${few(sum(flowed, places))} ${name}`).join(", ")} rows/s`);
  if (flowed && known(flowed[7])) said.push(`p50 ${milliseconds(flowed[6])}, p99 ${milliseconds(flowed[7])}`);
  text("pointed", `${clock(at[0])}: ${said.join("; ")}`);
}

function plot() {
  if (newest === null) return;
  const points = live.sorted(), others = backfill.sorted(), rows = flow.sorted();
  plotRows(rows, points);
  plotDepth(points, others);
  plotLatency(rows, points);
  read(points, others, rows);
}

const plots = byId("plots");
plots.addEventListener("pointermove", (event) => {
  if (newest === null) return;
  const box = byId("plot").getBoundingClientRect();
  const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - 8);
  pointed = newest.ts - HISTORY_S * (1 - Math.min(1, Math.max(0, share)));
  plot();
});
for (const name of ["pointerleave", "blur"]) {
  plots.addEventListener(name, () => {
    pointed = null;
    plot();
  });
}
plots.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -10, ArrowRight: 10 }[event.key];
  if (newest === null || !(step || event.key === "Escape")) return;
  event.preventDefault();
  pointed = step ? Math.min(newest.ts, Math.max(newest.ts - HISTORY_S, (pointed ?? newest.ts) + step)) : null;
  plot();
});
new ResizeObserver(plot).observe(byId("plot"));
