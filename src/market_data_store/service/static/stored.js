// What is stored: feeds and datasets; a series of one of them, drawn, with its last rows.
import { Cancelled, askJson, query } from "./admin.js";
import { chart } from "./chart.js";
import { button, byId, draw, field, fill, link, make, setClass, setText, text } from "./dom.js";
import { HELP, clock, duration, few, known, moment, number } from "./words.js";

const SHOWN = 8, LISTED = 50, ROWS = 300, ROWS_LISTED = 20;
const panel = byId("series");
let all = false;
let newest = null;

export function show(status) {
  newest = status;
  const feeds = status.feeds || [];
  const stopped = feeds.filter((feed) => feed.stopped).length;
  const total = known(status.feeds_total) ? status.feeds_total : feeds.length;
  text("feeds-said", status.feeds ? `${number(total)}, ${stopped ? `${number(stopped)} stopped` : "none stopped"}` : "not known");
  fill(byId("feeds"), all ? feeds : feeds.slice(0, SHOWN), (feed) => [feed.dataset, feed.provider, feed.group].join("\n"), feedRow);
  const more = byId("feeds-more");
  more.hidden = feeds.length <= SHOWN;
  setText(more, all ? "Show fewer" : `Show ${number(feeds.length)}`);
  const stored = Object.entries(status.stored || {}).map(([name, found]) => ({ name, ...found }));
  fill(byId("datasets"), stored, (each) => each.name, datasetRow);
}

byId("feeds-more").addEventListener("click", () => {
  all = !all;
  show(newest);
});

function feedRow(feed) {
  const element = make("li"), name = button("", () => open(feed.dataset, feed.provider), "link");
  const state = link("", HELP.feeds), age = make("time"), frame = make("span", "spark");
  element.append(name, frame, age, state);
  setText(name, [feed.dataset, feed.provider, feed.group].filter(Boolean).join(" "));
  let drawn = "";
  const update = (now) => {
    setText(age, known(now.newest_ts) ? `${duration(now.age_s)} ago` : "unknown");
    age.title = known(now.newest_ts) ? moment(now.newest_ts) : "";
    setText(state, now.stopped ? `stopped${known(now.limit_s) ? `: limit ${duration(now.limit_s)}` : ""}` : "");
    state.hidden = !now.stopped;
    setClass(state, "state hard");
    const spark = JSON.stringify(now.spark || []);
    if (spark !== drawn) frame.replaceChildren(sparkline(now.spark || []));
    drawn = spark;
  };
  return { element, update };
}

function sparkline(values) {
  const rows = values.map((value) => value || 0), most = Math.max(1, ...rows);
  const label = rows.length ? `rows per minute, now ${few(rows[rows.length - 1])}, at most ${few(Math.max(...rows))}` : "rows per minute unknown";
  const svg = draw("svg", { viewBox: "0 0 75 20", width: 75, height: 20, role: "img", "aria-label": label });
  rows.forEach((value, index) => {
    const height = Math.max(1, (18 * value) / most);
    svg.append(draw("rect", { class: "bar", x: index * 5, width: 4, y: 20 - height, height }));
  });
  return svg;
}

function datasetRow(dataset) {
  const element = make("li"), name = button(dataset.name, () => open(dataset.name, null), "link");
  const series = make("span"), rows = make("span"), time = make("time");
  element.append(name, series, rows, time);
  const update = (now) => {
    setText(series, now.series === 0 ? "empty" : known(now.series) ? `${number(now.series)} series` : "series not counted yet");
    setText(rows, known(now.rows) ? `${number(now.rows)} rows` : "");
    rows.hidden = !known(now.rows);
    setText(time, now.newest ? `newest ${moment(Date.parse(now.newest) / 1000)}` : "");
  };
  return { element, update };
}

// The series of a dataset, or of one of its providers.
function open(dataset, provider) {
  const [label, search] = field("Search", { type: "search", placeholder: "a part of a name", maxlength: 100 });
  const said = make("p", "quiet"), list = make("ul", "choices"), drawn = make("div");
  said.setAttribute("role", "status");
  const title = make("h3", "", `Series of ${dataset}${provider ? `, ${provider}` : ""}`);
  const close = button("Close", () => (panel.hidden = true));
  const line = make("p", "actions");
  line.append(label, close);
  panel.replaceChildren(title, line, said, list, drawn);
  panel.hidden = false;
  let asked = 0, timer = 0;
  const look = async () => {
    const mine = ++asked;
    setText(said, "Searching.");
    try {
      const found = await askJson(`series?${query({ dataset, provider, search: search.value, limit: LISTED })}`, null, { isOpen: newest.open_series });
      if (mine !== asked) return;
      const more = found.more ? "; there are more, search for one" : "";
      setText(said, found.series.length ? `${number(found.series.length)} series${more}` : "No series has this in its names.");
      list.replaceChildren(...found.series.map((each) => choice(each, dataset, said, drawn)));
    } catch (error) {
      if (mine === asked) setText(said, error instanceof Cancelled ? `Not shown: ${error.message}.` : error.message);
    }
  };
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 250);
  });
  panel.scrollIntoView({ block: "nearest" });
  search.focus({ preventScroll: true });
  look();
}

function choice(series, dataset, said, drawn) {
  const name = [series.provider, series.symbol, series.interval].filter(known).join(" ");
  const element = make("li"), time = make("time", "", moment(Date.parse(series.newest) / 1000));
  element.append(button(name, () => drawSeries(series, dataset, name, said, drawn), "link"), time);
  return element;
}

async function drawSeries(series, dataset, name, said, drawn) {
  const { provider, symbol, interval } = series;
  try {
    const { rows, drawing } = await askJson(`series/rows?${query({ dataset, provider, symbol, interval, limit: ROWS })}`, null, { isOpen: newest.open_series });
    const label = `The newest ${number(rows.length)} rows of ${name}`;
    const svg = chart(rows, drawing, Math.max(280, panel.clientWidth), label);
    drawn.replaceChildren(make("h4", "", name), svg || make("p", "quiet", "There is nothing to draw."), table(rows.slice(0, ROWS_LISTED), name));
    setText(said, `${label}, read at ${clock(Date.now() / 1000)}`);
    drawn.scrollIntoView({ block: "nearest" });
  } catch (error) {
    setText(said, error instanceof Cancelled ? `Not shown: ${error.message}.` : error.message);
  }
}

function table(rows, name) {
  const around = make("div", "scroll");
  around.tabIndex = 0;
  around.setAttribute("role", "region");
  around.setAttribute("aria-label", `Last rows of ${name}`);
  const columns = Object.keys(rows[0] || {}).filter((column) => rows.some((row) => row[column] !== null));
  const made = make("table"), head = make("tr");
  head.append(...columns.map((column) => Object.assign(make("th", "", column), { scope: "col" })));
  made.append(head, ...rows.map((row) => {
    const line = make("tr");
    line.append(...columns.map((column) => make("td", "", cell(row[column]))));
    return line;
  }));
  around.append(made);
  return around;
}

const cell = (value) => (value === null ? "" : typeof value === "object" ? JSON.stringify(value) : `${value}`);
