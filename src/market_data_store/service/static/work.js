// Who works: workers and jobs.
import { byId, fill, parts, setText, text } from "./dom.js";
import { HELP, bytes, few, known, moment, number } from "./words.js";

const SHOWN = 10;
let all = false;
let newest = null;

const worker = parts([
  ["name", (w) => w.name],
  ["quiet", (w) => (w.version ? `version ${w.version}` : "version unknown")],
  ["quiet", (w) => (known(w.since_ts) ? `since ${moment(w.since_ts)}` : "")],
  ["quiet", (w) => (w.lanes || []).join(" and ")],
  ["quiet", (w) => (known(w.processes) ? `${number(w.processes)} processes` : "")],
  ["", (w) => (known(w.holds) ? `holds ${number(w.holds)}` : "")],
  ["", (w) => (known(w.rows_per_s) ? `${few(w.rows_per_s)} rows/s` : "")],
  ["quiet", (w) => (known(w.rss_bytes) ? bytes(w.rss_bytes) : "")],
  ["state hard", (w) => w.trouble || "", () => HELP.workers],
]);

const job = parts([
  ["name", (j) => `${j.name} ${j.dataset || ""}`],
  ["quiet", (j) => `run ${j.id}`],
  ["quiet", (j) => `since ${moment(j.started_ts)}`],
  ["", (j) => `${number(j.rows)}${known(j.total) ? ` of ${number(j.total)}` : ""} rows`],
  ["state hard", (j) => (j.state === "running" ? "" : `${j.state}: no sign of life`), () => HELP.jobs],
]);

export function show(status) {
  newest = status;
  const workers = status.worker_list || [];
  const alive = known(status.workers) ? status.workers : null;
  // What the workers say of themselves, worst first.
  const sorted = [...workers].sort((a, b) => Boolean(b.trouble) - Boolean(a.trouble));
  fill(byId("worker-list"), all ? sorted : sorted.slice(0, SHOWN), (each) => each.name, worker);
  const count = Math.max(workers.length, alive || 0);
  text("workers-said", workers.length ? `${number(count)} workers` : alive === null ? "Workers are unknown." : alive ? `${number(alive)} workers answer; they do not say more.` : "No worker answers.");
  const more = byId("workers-more");
  more.hidden = workers.length <= SHOWN;
  setText(more, all ? "Show fewer" : `Show ${number(workers.length)}`);
  const jobs = status.jobs;
  text("no-jobs", !jobs ? "Unknown." : jobs.length ? "" : "None is running.");
  fill(byId("jobs"), jobs || [], (each) => each.id, job);
}

byId("workers-more").addEventListener("click", () => {
  all = !all;
  show(newest);
});
