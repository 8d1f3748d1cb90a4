// Numbers, times and durations as people read them, and where a trouble is explained.
export const known = (value) => value !== null && value !== undefined;
export const first = (...values) => values.find(known) ?? null;
export const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : "unknown");
export const number = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : "unknown");
export const few = (value) => (value >= 10 || value === 0 ? number(value) : Number(value.toPrecision(2)).toString());
export const clock = (ts) => new Date(ts * 1000).toLocaleTimeString("en-GB");

export function moment(ts) {
  const date = new Date(ts * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(ts) : `${date.toLocaleDateString("en-CA")} ${clock(ts)}`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

export const milliseconds = (ms) => (!known(ms) ? "unknown" : ms < 1000 ? `${few(ms)} ms` : `${few(ms / 1000)} s`);

export function bytes(size) {
  return size < 2 ** 30 ? `${number(size / 2 ** 20)} MiB` : `${(size / 2 ** 30).toFixed(1)} GiB`;
}

// What the words of the headline mean.
export const MEANINGS = {
  soft: "Soft: the queue is filling, and producers send at half their rate.",
  hard: "Hard: producers wait until the level falls.",
  degraded: "Degraded: nothing is lost, but something needs a look.",
  "not ready": "Not ready: rows cannot be taken or written now.",
};

const TROUBLE = "docs/troubleshooting.md";
export const HELP = {
  database: `${TROUBLE}#postgres-does-not-answer`,
  migrations: `${TROUBLE}#a-migration-is-due`,
  newer: `${TROUBLE}#the-schema-is-newer`,
  broker: `${TROUBLE}#the-broker-does-not-answer`,
  refusal: `${TROUBLE}#the-broker-takes-no-write`,
  queue: `${TROUBLE}#the-level-is-hard`,
  backfill: `${TROUBLE}#the-level-of-the-backfill-lane-is-hard`,
  noWorkers: `${TROUBLE}#no-worker-takes-messages`,
  workers: `${TROUBLE}#workers-are-in-trouble`,
  datasets: `${TROUBLE}#a-dataset-is-held`,
  monitor: `${TROUBLE}#no-monitor-runs`,
  feedback: `${TROUBLE}#feedback-is-not-delivered`,
  letters: `${TROUBLE}#dead-letters-grow`,
  jobs: `${TROUBLE}#a-job-stays-running`,
  retention: `${TROUBLE}#nothing-is-deleted`,
  feeds: `${TROUBLE}#a-feed-has-stopped`,
};

// Where a component of health that is not healthy is explained.
export function helpFor({ name, state, details }) {
  if (details.refusal) return HELP.refusal;
  if (name === "queue" && details.reason === "no_workers") return HELP.noWorkers;
  if (name === "workers" && details.alive === "0") return HELP.noWorkers;
  if (name === "migrations" && state === "degraded") return HELP.newer;
  if (name === "feedback" && details.error?.includes("mds monitor")) return HELP.monitor;
  return HELP[name] || TROUBLE;
}

// Where the headline is explained, as the server says.
export function helpOf(status) {
  return status.help ? status.help : status.severity === "ok" ? null : TROUBLE;
}

// When the headline's cause began: as the server says, or for as long as the level is what it is.
export function sinceOf(status) {
  if (known(status.since_ts)) return status.since_ts;
  if (status.queue.level === "ok") return null;
  let since = null;
  for (let i = status.history.length - 1; i >= 0 && status.history[i][2] === status.queue.level; i--) since = status.history[i][0];
  return since;
}
