// What went wrong: parts that are not healthy, letters by reason, held datasets, unknown fields, events, retention.
import { byId, button, fill, make, parts, setText, text } from "./dom.js";
import { openReason } from "./letters.js";
import { HELP, helpFor, known, moment, number } from "./words.js";

const CALM = new Set(["healthy", "degraded"]);

const component = parts([
  [(c) => `state ${c.state}`, (c) => c.state],
  ["", (c) => c.name],
  ["quiet", (c) => Object.entries(c.details).map(([name, value]) => `${name}: ${value}`).join(", ")],
  ["help", (c) => (c.state === "healthy" ? "" : "what to do"), helpFor],
]);

const event = parts([
  ["time", (e) => moment(e.ts)],
  [(e) => `state ${e.level}`, (e) => e.level],
  ["", (e) => `${number(e.queue_size)} of ${number(e.capacity)}${e.reason ? `, ${e.reason}` : ""}`],
]);

const held = parts([
  ["state hard", (h) => h.dataset, () => HELP.datasets],
  ["", (h) => `${number(h.messages)} messages wait`],
  ["quiet", (h) => (h.reason ? `${h.reason}${h.sqlstate ? ` (SQLSTATE ${h.sqlstate})` : ""}` : "is about to be tried or written again")],
]);

const unknown = parts([
  ["count", (u) => number(u.count)],
  ["name", (u) => `${u.dataset}: ${u.name}`],
  ["quiet", (u) => `${[u.kinds].flat().join(", ")}, last ${moment(u.last_ts)}`],
]);

function reasonRow(reason) {
  const element = make("li"), count = make("span", "count"), time = make("time");
  const dataset = make("span", "", reason.dataset === null ? "whole message" : reason.dataset);
  element.append(count, dataset, time, button(reason.reason, () => openReason(reason), "link"));
  return {
    element,
    update: (now) => {
      setText(count, number(now.count));
      setText(time, `last ${moment(now.last_ts)}`);
    },
  };
}

byId("letters-help").href = HELP.letters;
byId("retention-help").href = HELP.retention;

export function show(status) {
  const { health, events, dead_letters: letters, retention } = status;
  text("health-state", health ? health.state : "unknown");
  byId("health-state").className = `state ${health ? health.state : "unknown"}`;
  fill(byId("health"), health ? health.components : [], (each) => each.name, component);

  byId("letters-help").hidden = !(letters.total > 0);
  byId("retention-help").hidden = !(retention && Object.keys(retention.errors).length);
  text("oldest-letter", letters.oldest_ts ? `The oldest is of ${moment(letters.oldest_ts)}.` : "");
  const reasons = letters.reasons;
  text("no-letters", !reasons ? (known(letters.total) ? "" : "Unknown: the database does not answer.") : reasons.length ? "" : "None.");
  fill(byId("reasons"), reasons || [], (each) => [each.dataset, each.reason].join("\n"), reasonRow);

  const stuck = status.held || [];
  const isKnown = health && health.components.some((each) => each.name === "broker" && CALM.has(each.state));
  text("no-held", stuck.length ? "" : isKnown ? "None." : "Unknown: the broker does not answer.");
  fill(byId("held"), stuck, (each) => each.dataset, held);

  byId("unknown").hidden = !(status.unknown && status.unknown.length);
  fill(byId("unknown-fields"), status.unknown || [], (each) => [each.dataset, each.name].join("\n"), unknown);

  text("no-events", events === null ? "The feedback stream does not answer, or there is none." : events.length ? "" : "None yet; does mds monitor run?");
  fill(byId("events"), events || [], (each, index) => `${each.ts} ${index}`, event);

  text("retention-time", retention && retention.ended_ts !== null ? moment(retention.ended_ts) : "");
  text("retention-said", retention ? retention.said : "No run yet; does mds monitor run, with DATABASE_URL?");
}
