// Sends letters again in portions, and waits for what becomes of each.
import { askJson } from "./admin.js";
import { number } from "./words.js";

const PORTION = 2000, POLL_MS = 500, PATIENCE_MS = 60_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What has become of portions that were sent, after at most a minute without a change.
export async function settled(portions, tell = () => {}) {
  const found = portions.map(() => null);
  let before = "", until = Date.now() + PATIENCE_MS;
  for (;;) {
    for (const [index, { ids, since }] of portions.entries()) {
      if (ids.length && !(found[index] && found[index].waiting === 0)) found[index] = await askJson("dead-letters/outcome", { ids, since });
    }
    const total = { gone: 0, waiting: 0, refused: 0 };
    for (const each of found) for (const name of Object.keys(total)) total[name] += each ? each[name] : 0;
    tell(total);
    if (JSON.stringify(total) !== before) until = Date.now() + PATIENCE_MS;
    before = JSON.stringify(total);
    if (!total.waiting || Date.now() > until) return total;
    await sleep(POLL_MS);
  }
}

// Sends the selected letters, corrected by `values` if there are any; returns what to say at the end.
export async function replay(selection, values, say) {
  const portions = [];
  let after = 0, sent = 0, left = 0;
  do {
    const answer = await askJson("dead-letters/replay", { ...selection, ...(values && { set: values }), after, limit: PORTION });
    sent += answer.sent;
    left += answer.uncorrected || 0;
    portions.push(answer.portion);
    after = answer.portion.last;
    say(`${number(sent)} sent.`);
  } while (after !== null);
  const tell = ({ gone, waiting, refused }) => say(`${number(sent)} sent: ${number(gone)} gone, ${number(refused)} refused again, ${number(waiting)} waiting.`);
  const { gone, waiting, refused } = await settled(portions, tell);
  const said = [`${number(sent)} sent: ${number(gone)} gone, ${number(refused)} refused again.`];
  if (waiting) said.push(`${number(waiting)} are not settled yet; they stay in the queue. Is a worker running?`);
  if (left) said.push(`${number(left)} were not sent: they hold no object with fields; open them one by one, or export them.`);
  return said.join(" ");
}
