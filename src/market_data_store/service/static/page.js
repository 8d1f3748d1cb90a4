// Asks for status.json every second, and shows it from top to bottom.
import { byId, link, text } from "./dom.js";
import * as plots from "./plots.js";
import * as stored from "./stored.js";
import { HELP, MEANINGS, clock, duration, first, helpOf, moment, number, percent, sinceOf } from "./words.js";
import * as work from "./work.js";
import * as wrong from "./wrong.js";

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 5000;
const CLASSES = { ok: "ok", warning: "soft", critical: "hard" };
const NAME = "market-data-store";
let lastAnswer = null;
let lost = false;

function showHeadline(status) {
  // "state: cause", made by the server, so that page, tab and `mds status` say the same.
  const [state, cause] = status.headline.split(/: (.*)/s);
  byId("level").className = `wide ${Object.hasOwn(CLASSES, status.severity) ? CLASSES[status.severity] : "unknown"}`;
  text("level-name", state);
  text("level-words", cause || "");
  document.title = `${status.headline} – ${NAME}`;
  const meaning = MEANINGS[state.split(" (")[0]] || "";
  text("level-meaning", meaning);
  byId("level-meaning").hidden = !meaning;
  const since = sinceOf(status);
  text("level-since", since === null ? "" : `Since ${moment(since)}, for ${duration(status.ts - since)}.`);
  const help = byId("level-help"), address = helpOf(status);
  help.hidden = address === null;
  if (address !== null && help.getAttribute("href") !== address) help.setAttribute("href", address);
}

// A number that one part knows is not unknown to another.
function rowsPerSecond(status) {
  const flow = status.flow && status.flow.rows_per_s;
  return flow && flow.written !== null ? flow.written : status.rows_per_s;
}

function workers(status) {
  const parts = status.health ? status.health.components : [];
  const alive = parts.find((part) => part.name === "workers")?.details.alive;
  return first(status.workers, status.worker_list?.length, alive === undefined ? null : Number(alive));
}

function showFigures(status) {
  const { queue, backfill, dead_letters: letters } = status;
  text("depth", number(queue.depth));
  text("utilization", percent(queue.utilization));
  text("reserved", number(queue.reserved));
  text("rows", number(rowsPerSecond(status)));
  text("workers", number(workers(status)));
  text("letters", number(letters.total));
  byId("letters").classList.toggle("some", letters.total > 0);
  text("backfill-level", backfill.reason ? `${backfill.level} (${backfill.reason})` : backfill.level);
  byId("backfill-level").className = `state ${backfill.level}`;
  text("backfill-problem", backfill.problem || "");
  byId("backfill-problem").hidden = !backfill.problem;
  const backfillHelp = byId("backfill-help");
  backfillHelp.hidden = backfill.level !== "hard";
  backfillHelp.href = HELP.backfill;
  text("backfill-depth", number(backfill.depth));
  text("backfill-utilization", percent(backfill.utilization));
  text("backfill-workers", number(backfill.workers));
}

function showLinks(links) {
  const known = [["Flower", links?.flower], ["Metrics", links?.metrics], ["JSON", "status.json"], ["Documents", links?.docs]];
  const wanted = known.filter(([, address]) => address);
  const nav = byId("links");
  if (nav.childElementCount !== wanted.length) nav.replaceChildren(...wanted.map(([name, address]) => link(name, address)));
}

function show(status) {
  text("version", `version ${status.version}`);
  showHeadline(status);
  showFigures(status);
  showLinks(status.links);
  for (const part of [plots, stored, work, wrong]) part.show(status);
  byId("shown").setAttribute("aria-busy", "false");
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
  let status = null;
  try {
    const response = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    status = await response.json();
    lastAnswer = Date.now();
  } catch {
    // The banner says it.
  }
  lost = status === null;
  try {
    if (status !== null) show(status);
    tellLost();
  } finally {
    setTimeout(look, INTERVAL_MS);
  }
}

look();
