// Asks for status.json every second and shows it. What comes from the server goes into the page as text only.
"use strict";
(() => {
  const INTERVAL_MS = 1000;
  const TIMEOUT_MS = 5000;
  const HISTORY_S = 900;
  // A line over a longer gap would claim to know what nobody saw.
  const GAP_S = 30;
  const CLASSES = { ok: "ok", warning: "soft", critical: "hard" };
  const NAME = "market-data-store";
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  // By second: several server processes have each seen the queue at moments of their own.
  const seen = new Map();
  let newest = null;
  let lastAnswer = null;
  let lost = false;
  // Pixels from the plot's left edge, while a pointer is over it.
  let pointed = null;

  const percent = (value) => (value === null ? "unknown" : `${Math.round(value * 100)} %`);
  const number = (value) => (value === null ? "unknown" : Math.round(value).toLocaleString("en-US"));
  const clock = (ts) => new Date(ts * 1000).toLocaleTimeString("en-GB");
  const moment = (ts) => {
    const date = new Date(ts * 1000);
    const today = date.toDateString() === new Date().toDateString();
    return today ? clock(ts) : `${date.toLocaleDateString("en-CA")} ${clock(ts)}`;
  };

  // Only what changed, else a screen reader repeats it every second.
  function text(id, value) {
    const element = byId(id);
    if (element.textContent !== value) element.textContent = value;
  }

  function make(name, className, content) {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = content;
    return element;
  }

  function fill(id, rows) {
    byId(id).replaceChildren(
      ...rows.map((parts) => {
        const row = document.createElement("li");
        row.append(...parts);
        return row;
      }),
    );
  }

  function draw(name, attributes, content) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (content !== undefined) element.textContent = content;
    return element;
  }

  function show(status) {
    const { queue, backfill, health, events, dead_letters: letters } = status;
    newest = status;
    text("version", `version ${status.version}`);
    // "state: cause", made by the server, so that page, tab and `mds status` say the same.
    const [state, cause] = status.headline.split(/: (.*)/s);
    byId("level").className = Object.hasOwn(CLASSES, status.severity) ? CLASSES[status.severity] : "unknown";
    text("level-name", state);
    text("level-words", cause || "");
    document.title = `${status.headline} – ${NAME}`;
    text("depth", number(queue.depth));
    text("utilization", percent(queue.utilization));
    text("reserved", number(queue.reserved));
    text("rows", number(status.rows_per_s));
    text("workers", number(status.workers));
    text("letters", number(letters.total));

    text("backfill-level", backfill.reason ? `${backfill.level} (${backfill.reason})` : backfill.level);
    byId("backfill-level").className = `state ${backfill.level}`;
    text("backfill-problem", backfill.problem || "");
    byId("backfill-problem").hidden = !backfill.problem;
    text("backfill-depth", number(backfill.depth));
    text("backfill-utilization", percent(backfill.utilization));
    text("backfill-workers", number(backfill.workers));

    text("health-state", health ? health.state : "unknown");
    byId("health-state").className = `state ${health ? health.state : "unknown"}`;
    fill("health", (health ? health.components : []).map((component) => [
      make("span", `state ${component.state}`, component.state),
      make("span", "", component.name),
      make("span", "quiet", Object.entries(component.details).map(([name, value]) => `${name}: ${value}`).join(", ")),
    ]));

    text("no-events", events === null ? "The feedback stream does not answer, or there is none." : events.length ? "" : "None yet; does mds monitor run?");
    fill("events", (events || []).map((event) => [
      make("time", "", moment(event.ts)),
      make("span", `state ${event.level}`, event.level),
      make("span", "", `${number(event.queue_size)} of ${number(event.capacity)}${event.reason ? `, ${event.reason}` : ""}`),
    ]));

    text("oldest-letter", letters.oldest_ts ? `The oldest is of ${moment(letters.oldest_ts)}.` : "");
    const reasons = letters.reasons;
    text("no-letters", reasons === null ? "Unknown: the database does not answer." : reasons.length ? "" : "None.");
    fill("reasons", (reasons || []).map((each) => [
      make("span", "count", number(each.count)),
      make("span", "", each.dataset === null ? "whole message" : each.dataset),
      make("time", "", `last ${moment(each.last_ts)}`),
      make("span", "", each.reason),
    ]));

    const { retention } = status;
    text("retention-time", retention && retention.ended_ts !== null ? moment(retention.ended_ts) : "");
    text("retention-said", retention ? retention.said : "No run yet; does mds monitor run, with DATABASE_URL?");

    for (const point of status.history) seen.set(Math.round(point[0]), point);
    for (const second of seen.keys()) if (second < status.ts - HISTORY_S) seen.delete(second);
    plot();
    byId("shown").setAttribute("aria-busy", "false");
  }

  function plot() {
    if (newest === null) return;
    const frame = byId("plot");
    const width = Math.max(200, frame.clientWidth);
    const height = 240;
    const left = 8, right = width - 8, top = 18, bottom = height - 38;
    const { capacity, watermarks } = newest.queue;
    const points = [...seen.values()].sort((a, b) => a[0] - b[0]);
    const depths = points.filter((point) => point[1] !== null).map((point) => point[1]);
    const highest = depths.reduce((a, b) => Math.max(a, b), 0);
    const most = Math.max(capacity, highest) * 1.04;
    const x = (ts) => left + (right - left) * Math.min(1, Math.max(0, 1 - (newest.ts - ts) / HISTORY_S));
    const y = (depth) => bottom - (bottom - top) * (depth / most);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    const now = newest.queue.depth === null ? "unknown" : number(newest.queue.depth);
    svg.setAttribute("aria-label", `Messages waiting: now ${now}, at most ${number(highest)} in the last 15 minutes, capacity ${number(capacity)}`);

    for (const [name, className, share] of [["full", "full", 1], ["hard from", "hard", watermarks.hard_from], ["soft above", "soft", watermarks.soft_above]]) {
      const at = y(capacity * share);
      svg.append(
        draw("line", { class: `mark ${className}`, x1: left, x2: right, y1: at, y2: at }),
        draw("text", { class: className, x: left + 2, y: at - 4 }, `${name} ${number(capacity * share)}`),
      );
    }
    for (const minutes of [15, 10, 5, 0]) {
      const at = x(newest.ts - minutes * 60);
      const anchor = minutes === 15 ? "start" : minutes === 0 ? "end" : "middle";
      svg.append(draw("text", { x: at, y: height - 4, "text-anchor": anchor }, minutes ? `-${minutes} min` : "now"));
    }
    svg.append(draw("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));

    const runs = [];
    points.forEach((point, index) => {
      const before = points[index - 1];
      const joined = before && before[1] !== null && point[0] - before[0] <= GAP_S;
      if (point[1] !== null) joined ? runs[runs.length - 1].push(point) : runs.push([point]);
      const next = points[index + 1];
      const until = Math.min(next ? next[0] : newest.ts, point[0] + GAP_S);
      const thickness = { ok: 3, soft: 7, hard: 12 }[point[2]] || 0;
      svg.append(draw("rect", {
        class: `strip ${point[2]}`, x: x(point[0]), width: Math.max(1, x(until) - x(point[0])), y: bottom + 16 - thickness, height: thickness,
      }));
    });
    for (const run of runs) {
      const line = run.map((point) => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join("L");
      const first = x(run[0][0]).toFixed(1), last = x(run[run.length - 1][0]).toFixed(1);
      svg.append(
        draw("path", { class: "area", d: `M${first},${bottom}L${line}L${last},${bottom}Z` }),
        draw("path", { class: "line", d: `M${line}` }),
      );
    }
    if (pointed !== null && points.length) {
      const ts = newest.ts - HISTORY_S * (1 - (pointed - left) / (right - left));
      const nearest = points.reduce((a, b) => (Math.abs(b[0] - ts) < Math.abs(a[0] - ts) ? b : a));
      svg.append(draw("line", { class: "pointer", x1: x(nearest[0]), x2: x(nearest[0]), y1: top, y2: bottom }));
      text("pointed", `${clock(nearest[0])}: ${nearest[1] === null ? "depth unknown" : `${number(nearest[1])} waiting`}, ${nearest[2]}`);
    }
    frame.replaceChildren(svg);
  }

  function tellLost() {
    const banner = byId("lost");
    if (lost) {
      const since = lastAnswer === null ? "The server has not answered yet" : `Lost the server: no answer since ${clock(lastAnswer / 1000)}`;
      text("lost", `${since}. The data below is out of date. Trying again every second.`);
      document.title = `no answer from the server – ${NAME}`;
    }
    banner.hidden = !lost;
    byId("shown").classList.toggle("lost-content", lost);
  }

  async function look() {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
    try {
      const response = await fetch("status.json", { cache: "no-store", signal: stop.signal });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const status = await response.json();
      lost = false;
      lastAnswer = Date.now();
      show(status);
    } catch {
      lost = true;
    } finally {
      clearTimeout(timer);
    }
    tellLost();
    setTimeout(look, INTERVAL_MS);
  }

  const frame = byId("plot");
  frame.addEventListener("pointermove", (event) => {
    pointed = event.clientX - frame.getBoundingClientRect().left;
    plot();
  });
  frame.addEventListener("pointerleave", () => {
    pointed = null;
    plot();
  });
  new ResizeObserver(plot).observe(frame);
  look();
})();
