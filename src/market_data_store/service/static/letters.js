// Finds letters by reason, dataset, job and time; opens, corrects, replays, exports and deletes them.
import { Cancelled, ask, askJson, forget, isSure, query } from "./admin.js";
import { button, byId, field, make, setText } from "./dom.js";
import { openLetter } from "./letter.js";
import { replay } from "./replay.js";
import { known, moment, number } from "./words.js";

const PAGE = 20, GROUPS = 30;
const NOT_CLASSIFIED = "not classified";
const panel = byId("mend");
let parts = null;
// What is looked for: the filters of the API.
let filters = {};
// The ids after which the pages begin, up to the one that is shown.
let pages = [0];

const plural = (count) => `${number(count)} letter${count === 1 ? "" : "s"}`;

// Makes the panel once, when it is first opened.
function made() {
  const form = make("form", "filters");
  const [byLabel, by] = field("Group by", { choices: ["reason", "job", "dataset", "task", "day"] });
  const [datasetLabel, dataset] = field("Dataset", { maxlength: 100 });
  const [reasonLabel, reason] = field("Reason has", { maxlength: 500 });
  const [jobLabel, job] = field("Job", { type: "number", min: 1 });
  const [sinceLabel, since] = field("Kept since", { type: "datetime-local" });
  const [untilLabel, until] = field("Kept before", { type: "datetime-local" });
  const go = make("button", "", "Search");
  form.append(byLabel, datasetLabel, reasonLabel, jobLabel, sinceLabel, untilLabel, go);
  const said = make("p", "said");
  said.setAttribute("role", "status");
  const chosen = make("p", "quiet"), actions = make("div", "actions"), set = make("form", "actions");
  const groups = make("ul", "choices"), list = make("ul", "choices"), turn = make("p", "actions"), letter = make("div");
  const [nameLabel, name] = field("Set the field", { required: "", maxlength: 200 });
  const [valueLabel, value] = field("of all to", { maxlength: 500 });
  const send = make("button", "", "Set it and send all again");
  set.append(nameLabel, valueLabel, send);
  const older = button("Next", () => page(1)), newer = button("Previous", () => page(-1));
  turn.append(newer, older);
  const remove = button("Delete all of them ...", () => guarded(purgeAll), "danger");
  actions.append(
    button("Send all again", () => guarded(() => sendAll(null))),
    button("Export as NDJSON", () => guarded(exportAll)),
    remove,
    button("Forget the token", () => {
      forget();
      panel.hidden = true;
    }),
    button("Close", () => (panel.hidden = true)),
  );
  panel.append(make("h3", "", "Correct letters"), form, groups, chosen, actions, set, said, list, turn, letter);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const time = (input) => (input.value ? new Date(input.value).toISOString() : null);
    filters = { dataset: dataset.value.trim() || null, reason: reason.value || null, job: job.value || null, since: time(since), until: time(until) };
    look();
  });
  set.addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(() => sendAll({ [name.value.trim()]: value.value }));
  });
  return { by, chosen, groups, list, older, newer, letter, said, actions, set, remove };
}

const say = (words) => setText(parts.said, words);

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    say(error instanceof Cancelled ? `Nothing was done: ${error.message}.` : error.message);
  }
}

function open() {
  parts = parts || made();
  panel.hidden = false;
  look();
  panel.scrollIntoView({ block: "nearest" });
}

// The letters of a reason, as the page lists it.
export function openReason({ dataset, reason }) {
  filters = { dataset, whole: dataset === null ? true : null, pattern: reason === NOT_CLASSIFIED ? "" : reason };
  open();
}

byId("mend-open").addEventListener("click", () => {
  filters = {};
  open();
});

function look() {
  pages = [0];
  parts.letter.replaceChildren();
  say("");
  guarded(async () => {
    await Promise.resolve();
    await showPage();
    await showGroups();
  });
}

function page(step) {
  if (step < 0) pages.pop();
  else pages.push(parts.list.last);
  guarded(showPage);
}

const given = () => Object.fromEntries(Object.entries(filters).filter(([, value]) => known(value)));

// The filters as a request's body has them: a selection of nothing is all letters.
function selected() {
  const chosen = given();
  if (chosen.job) chosen.job = Number(chosen.job);
  return Object.keys(chosen).length ? chosen : { all: true };
}

async function showPage() {
  const found = await askJson(`dead-letters?${query({ ...given(), after: pages[pages.length - 1], limit: PAGE })}`);
  parts.count = found.count;
  const words = Object.entries(given()).map(([name, value]) => (name === "whole" ? "whole messages" : `${name} ${value === "" ? NOT_CLASSIFIED : value}`));
  setText(parts.chosen, `${plural(found.count)}: ${words.join(", ") || "all"}`);
  parts.list.last = found.letters.length ? found.letters[found.letters.length - 1].id : 0;
  parts.list.replaceChildren(...found.letters.map(row));
  parts.newer.hidden = pages.length === 1;
  parts.older.hidden = found.letters.length < PAGE;
  parts.actions.hidden = false;
  parts.set.hidden = parts.remove.hidden = found.count === 0;
}

function row(letter) {
  const element = make("li"), place = letter.file === null ? "" : `${letter.file}${letter.line === null ? "" : `:${letter.line}`}`;
  element.append(
    button(`letter ${letter.id}`, () => guarded(() => openLetter(letter.id, parts.letter, changed)), "link"),
    make("time", "", moment(Date.parse(letter.refused_at) / 1000)),
    make("span", "", letter.dataset || "whole message"),
    make("span", "quiet", place),
    make("span", "", letter.reason),
  );
  return element;
}

async function showGroups() {
  const by = parts.by.value;
  const { groups } = await askJson(`dead-letters/groups?${query({ ...given(), by, limit: GROUPS })}`);
  parts.groups.replaceChildren(...groups.map((group) => {
    const element = make("li");
    element.append(make("span", "count", number(group.count)), button(named(group, by), () => narrow(group, by), "link"));
    element.append(make("time", "", `last ${moment(Date.parse(group.newest) / 1000)}`));
    return element;
  }));
}

function named(group, by) {
  if (by === "reason") return `${group.dataset || "whole message"}: ${group.pattern ?? NOT_CLASSIFIED}`;
  if (by === "job") return group.job === null ? "not of a load" : `job ${group.job}: ${group.file}`;
  return group[by] ?? "whole message";
}

// Looks only at the letters of a group.
function narrow(group, by) {
  if (by === "reason") Object.assign(filters, { dataset: group.dataset, whole: group.dataset === null ? true : null, pattern: group.pattern ?? "" });
  if (by === "dataset") Object.assign(filters, { dataset: group.dataset, whole: group.dataset === null ? true : null });
  if (by === "job" && group.job !== null) filters.job = group.job;
  if (by === "task") filters.task = group.task;
  if (by === "day") {
    const next = new Date(Date.parse(group.day) + 86_400_000).toISOString();
    Object.assign(filters, { since: `${group.day}T00:00:00Z`, until: next });
  }
  look();
}

async function changed(words) {
  await showPage();
  await showGroups();
  say(words);
}

async function sendAll(values) {
  parts.set.inert = parts.actions.inert = true;
  try {
    await changed(await replay(selected(), values, say));
  } finally {
    parts.set.inert = parts.actions.inert = false;
  }
}

async function exportAll() {
  const response = await ask(`dead-letters/export?${query(given())}`);
  const anchor = make("a");
  anchor.href = URL.createObjectURL(await response.blob());
  anchor.download = "letters.ndjson";
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  say("Exported. Correct `row` in each line, and give the file to mds load --letters.");
}

async function purgeAll() {
  const count = parts.count;
  if (!(await isSure(`Delete ${plural(count)} for good?`, `Delete ${plural(count)}`))) return;
  const { purged } = await askJson("dead-letters/purge", { ...selected(), expected: count });
  await changed(`${plural(purged)} deleted.`);
}
