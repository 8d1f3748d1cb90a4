// One letter: all that is known of it, its row to be corrected, and what to do with it.
import { askJson, isSure } from "./admin.js";
import { button, make, setText } from "./dom.js";
import { settled } from "./replay.js";
import { moment, number } from "./words.js";

// What a message's body is shown of, in characters.
const BODY = 2000;
const LINES = 24;

const NAMES = [
  ["reason", "reason"], ["dataset", "dataset"], ["job", "job"], ["file", "file"], ["line", "line"],
  ["created_at", "kept", true], ["refused_at", "refused", true], ["enqueued_at", "enqueued", true],
  ["task_id", "task"], ["position", "position"], ["pattern", "pattern"], ["sqlstate", "SQLSTATE"],
  ["content_type", "content type"], ["compression", "compression"], ["body_bytes", "body bytes"], ["body_sha256", "body SHA-256"],
];

export async function openLetter(id, around, changed) {
  const letter = await askJson(`dead-letters/${id}`);
  const title = make("h4", "", `Letter ${id}`), facts = make("dl", "facts"), actions = make("p", "actions"), said = make("p", "said");
  said.setAttribute("role", "status");
  title.tabIndex = -1;
  for (const [name, label, isTime] of NAMES) {
    if (letter[name] === null) continue;
    const pair = make("div");
    pair.append(make("dt", "", label), make("dd", "", isTime ? moment(Date.parse(letter[name]) / 1000) : `${letter[name]}`));
    facts.append(pair);
  }
  const text = letter.text === null ? null : make("textarea");
  const run = async (work) => {
    actions.inert = true;
    try {
      await work();
    } catch (error) {
      setText(said, error.message);
    } finally {
      actions.inert = false;
    }
  };
  const send = (path, body) => run(async () => {
    setText(said, "Sent; waiting for a worker.");
    const { portion } = await askJson(path, body);
    const outcome = await settled([portion]);
    if (outcome.gone) {
      around.replaceChildren();
      await changed(`Letter ${id} is gone: its row is written.`);
    } else if (outcome.refused) {
      await openLetter(id, around, changed);
      await changed(`Letter ${id} was refused again; it keeps the row that it had.`);
    } else setText(said, "Not settled yet; it stays in the queue. Is a worker running?");
  });
  const content = [];
  if (text) {
    text.value = letter.text;
    text.rows = Math.min(LINES, letter.text.split("\n").length + 1);
    text.spellcheck = false;
    const label = make("label", "", "Correct `row`, then save");
    label.append(text);
    content.push(label);
    actions.append(button("Save and send again", () => send(`dead-letters/${id}/edit`, { text: text.value })));
  } else if (letter.body !== null) {
    const bytes = Uint8Array.from(atob(letter.body.slice(0, BODY * 4)), (character) => character.charCodeAt(0));
    content.push(make("pre", "", new TextDecoder().decode(bytes).slice(0, BODY)));
    content.push(make("p", "quiet", `The body of a message that is unusable as a whole: ${number(letter.body_bytes)} bytes.`));
  } else content.push(make("p", "quiet", "Only the reason was kept; it cannot be sent again."));
  if (text || letter.body !== null) actions.append(button("Send again as it is", () => send("dead-letters/replay", { ids: [id], limit: 1 })));
  actions.append(
    button("Delete ...", () => run(async () => {
      if (!(await isSure(`Delete letter ${id} for good?`, "Delete it"))) return;
      await askJson("dead-letters/purge", { ids: [id], expected: 1 });
      around.replaceChildren();
      await changed(`Letter ${id} is deleted.`);
    }), "danger"),
    button("Close", () => around.replaceChildren()),
  );
  around.replaceChildren(title, facts, ...content, actions, said);
  title.scrollIntoView({ block: "nearest" });
  title.focus({ preventScroll: true });
}
