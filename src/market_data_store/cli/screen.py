"""The screen of `mds top`: the document of `/status.json` as lines that fit a terminal of 80 by 24, or a larger one.

A colour says how things are: green is well, yellow wants a look, red stops rows, dim is the frame or unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from market_data_store.cli.plots import bar, plot
from market_data_store.cli.terminal import printable

UNKNOWN = "unknown"
SEVERITIES = {"ok": "green", "warning": "yellow", "critical": "red"}
LEVELS = {"ok": "green", "soft": "yellow", "hard": "red"}
#: The columns of the names at the left.
_NAME = 10
#: From so many seconds on, a look is said to be old.
_OLD_S = 3.0
#: The outcomes of rows in the order of `flow.history`, with what they mean for who looks.
_OUTCOMES = {"written": "green", "unchanged": "", "stale": "yellow", "superseded": "", "rejected": "red"}


def line_of(document: Mapping[str, Any]) -> str:
    """Return the document in one line, for a log or a pipe."""
    queue, backfill = document["queue"], document["backfill"]
    rates = _rates(document)
    shown = ", ".join(f"{number} {name}" for name, number in rates.items() if name == "written" or number != "0")
    return printable(
        f"{_clock(document['ts'])} {document['headline']}; live {_number(queue['depth'])}, "
        f"backfill {_number(backfill['depth'])}, rows/s {shown}, workers {_number(document['workers'])}, "
        f"letters {_number(document['dead_letters']['total'])}"
    )


class Screen:
    """Makes the lines of one size of terminal."""

    def __init__(self, width: int, height: int, *, ascii_only: bool = False) -> None:
        self._width, self._height, self._ascii = max(20, width), max(5, height), ascii_only

    def lines(self, document: Mapping[str, Any], name: str, trouble: str = "") -> list[Text]:
        """Return the lines, at most as many as fit. `trouble` says why the document is not a new one."""
        top = [
            self._title(document, name),
            self._headline(document, trouble),
            Text(),
            *self._lanes({"live": document["queue"], "backfill": document["backfill"]}),
            *self._flow(document),
            Text(),
        ]
        parts = [
            self._workers(document),
            self._feeds(document),
            self._letters(document),
            self._held(document),
            self._events(document),
        ]
        shown = [line for part in self._shares(parts, self._height - len(top)) for line in part]
        lines = [*top, *shown][: self._height]
        for line in lines:
            line.truncate(self._width, overflow="ellipsis")
        return lines

    def _shares(self, parts: Sequence[list[Text]], room: int) -> list[list[Text]]:
        """Cut the longest parts until all fit: each keeps its first line and says how many lines are left out."""
        sizes = [len(part) for part in parts]
        while sum(sizes) > room and max(sizes) > 2:
            sizes[sizes.index(max(sizes))] -= 1
        return [_cut(part, size) for part, size in zip(parts, sizes, strict=True)]

    def _title(self, document: Mapping[str, Any], name: str) -> Text:
        age_s = document.get("age_s")
        seen = "" if age_s is None or age_s < _OLD_S else f"looked {_span(age_s)} ago  "
        title = Text.assemble(("mds top", "bold"), f" {document['version']}  {printable(name)}")
        right = f"{seen}{_clock(document['ts'])}  q ends"
        title.truncate(max(8, self._width - len(right) - 2), overflow="ellipsis")
        title.append(" " * (self._width - title.cell_len - len(right)))
        return title.append(right, "yellow" if seen else "dim")

    def _headline(self, document: Mapping[str, Any], trouble: str) -> Text:
        if trouble:
            return Text(f" {printable(trouble)} ", "bold reverse yellow")
        return Text(f" {printable(document['headline'])} ", f"bold reverse {SEVERITIES[document['severity']]}")

    def _lanes(self, lanes: Mapping[str, Mapping[str, Any]]) -> Iterable[Text]:
        """A bar for each lane, with a mark where it becomes soft and one where it becomes hard."""
        levels = {name: _level(lane) for name, lane in lanes.items()}
        numbers = {
            name: f" {_number(lane['depth'])} of {_number(lane['capacity'])}, {_number(lane['reserved'])} at work"
            for name, lane in lanes.items()
        }
        widest = max(map(len, levels.values()))
        width = max(8, self._width - _NAME - widest - 1 - max(map(len, numbers.values())))
        for name, lane in lanes.items():
            marks = [lane["watermarks"][each] for each in ("soft_above", "hard_from")]
            drawn = bar(lane["utilization"], width, marks, list(LEVELS.values()), ascii_only=self._ascii)
            level = (f"{levels[name]:<{widest}} ", LEVELS.get(str(lane["level"]), ""))
            yield Text.assemble(f"{name:<{_NAME}}", level, drawn, numbers[name])
            for cause in (lane.get("refusal"), lane.get("problem")):
                if cause:
                    yield Text(" " * _NAME + printable(str(cause)), "red")

    def _flow(self, document: Mapping[str, Any]) -> Iterable[Text]:
        line = Text(f"{'rows/s':<{_NAME}}")
        for name, number in _rates(document).items():
            line.append(f"{number} {name}  ", _OUTCOMES[name] if number not in ("0", UNKNOWN) else "dim")
        yield line
        width = self._width - _NAME
        flow = document.get("flow") or {}
        history, latency = flow.get("history") or [], flow.get("latency_ms") or {}
        if any(point[1] is not None for point in history):
            written = [point[1] for point in history]
            styles = ["red" if len(point) > 5 and point[5] else "green" for point in history]
            yield Text(" " * _NAME) + plot(written, width, styles, ascii_only=self._ascii)
        depths = document["history"]
        if any(point[1] is not None for point in depths):
            drawn = plot([p[1] for p in depths], width, [LEVELS.get(p[2], "") for p in depths], ascii_only=self._ascii)
            yield Text(f"{'depth':<{_NAME}}") + drawn
        if latency.get("p99") is not None:
            said = f"{'latency':<{_NAME}}p50 {_ms(latency.get('p50'))}, p99 {_ms(latency['p99'])}  "
            yield Text(said) + plot([point[-1] for point in history], width - len(said) + _NAME, ascii_only=self._ascii)

    def _workers(self, document: Mapping[str, Any]) -> list[Text]:
        number = document["workers"]
        heading = _heading("workers", _number(number), "" if number else "yellow" if number is None else "red")
        troubles = [Text(f"  {printable(str(each))}", "yellow") for each in document["workers_in_trouble"]]
        workers = document.get("worker_list") or ()
        width = _widest(str(worker["name"]) for worker in workers)
        rows = [self._worker(worker, document["ts"], width) for worker in workers]
        return [heading, *troubles, *rows]

    def _worker(self, worker: Mapping[str, Any], now: float, width: int) -> Text:
        since = worker.get("since_ts")
        lanes = worker.get("lanes")
        facts = [
            worker.get("version") and str(worker["version"]),
            None if since is None else f"up {_span(now - since)}",
            _unless_none(worker.get("holds"), "holds {:,}"),
            _unless_none(worker.get("rows_per_s"), "{:,.0f} rows/s"),
            None if worker.get("rss_bytes") is None else f"{worker['rss_bytes'] / 1e6:,.0f} MB",
            _unless_none(worker.get("processes"), "{:,} processes"),
            lanes and "+".join(map(str, lanes)),
        ]
        style = "yellow" if worker.get("trouble") else ""
        name = printable(str(worker["name"]))
        return Text(f"  {_fitted(name, width)}  {printable('  '.join(filter(None, facts)))}", style)

    def _feeds(self, document: Mapping[str, Any]) -> list[Text]:
        feeds = document.get("feeds")
        if feeds is None:
            return self._stored(document)
        stopped = sum(bool(feed.get("stopped")) for feed in feeds)
        number = document.get("feeds_total", len(feeds))
        said = f"{_number(number)}, {stopped:,} stopped" if stopped else _number(number)
        # Those that have stopped first; the document has the rest in its own order.
        ordered = sorted(feeds, key=lambda feed: not feed.get("stopped"))
        width = _widest(map(_name_of, feeds))
        return [_heading("feeds", said, "red" if stopped else ""), *(self._feed(feed, width) for feed in ordered)]

    def _feed(self, feed: Mapping[str, Any], width: int) -> Text:
        name = printable(_name_of(feed))
        age_s, limit_s = feed.get("age_s"), feed.get("limit_s")
        newest = UNKNOWN if age_s is None else f"newest {_span(age_s)} ago"
        limit = "" if limit_s is None else f", limit {_span(limit_s)}"
        is_stopped = bool(feed.get("stopped"))
        style = "red" if is_stopped else "green" if limit_s is not None else ""
        line = Text.assemble(
            f"  {_fitted(name, width)}  ", (f"{'stopped: ' if is_stopped else ''}{newest}{limit}", style)
        )
        spark = feed.get("spark")
        if spark:
            line.append("  ")
            line.append_text(plot(spark, min(len(spark), 24), [style] * len(spark), ascii_only=self._ascii))
        return line

    def _stored(self, document: Mapping[str, Any]) -> list[Text]:
        """What is stored, where nobody says which feeds there are."""
        stored = document["stored"]
        if stored is None:
            return [_heading("stored", UNKNOWN, "dim")]
        rows = [
            Text(f"  {_fitted(name, 24)}  {_number(found['series'])} series, newest {found['newest'] or UNKNOWN}")
            for name, found in stored.items()
            if found["series"] != 0
        ]
        return [_heading("stored", f"{len(rows)} datasets"), *rows]

    def _letters(self, document: Mapping[str, Any]) -> list[Text]:
        letters = document["dead_letters"]
        total, oldest = letters["total"], letters["oldest_ts"]
        since = f", the oldest kept {_span(document['ts'] - oldest)} ago" if oldest is not None else ""
        heading = _heading("letters", f"{_number(total)}{since}", "yellow" if total else "" if total == 0 else "dim")
        reasons = letters["reasons"] or ()
        return [heading, *(Text(f"  {_reason(each)}") for each in reasons)]

    def _held(self, document: Mapping[str, Any]) -> list[Text]:
        held = document["held"]
        if not held:
            return []
        return [_heading("held", "", "red"), *(Text("  " + printable(_joined(each)), "red") for each in held)]

    def _events(self, document: Mapping[str, Any]) -> list[Text]:
        events = document["events"]
        if events is None:
            return [_heading("events", "no stream is read; set REDIS_URL, and run `mds monitor`", "dim")]
        lines = []
        for event in events:
            reason = f" ({printable(str(event['reason']))})" if event.get("reason") else ""
            depth = f"{_number(event['queue_size'])} of {_number(event['capacity'])}"
            said = (f"{event['level']}{reason}", LEVELS.get(str(event["level"]), ""))
            lines.append(Text.assemble(f"  {_clock(event['ts'])}  ", said, f"  {depth}"))
        return [_heading("events", "the newest first" if lines else "none yet"), *lines]


def _heading(name: str, said: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<{_NAME}}", "bold"), (said, style))


def _cut(part: list[Text], size: int) -> list[Text]:
    if size >= len(part):
        return part
    return [*part[: size - 1], Text(f"  ... {len(part) - size + 1:,} more", "dim")] if size > 1 else part[:size]


def _rates(document: Mapping[str, Any]) -> dict[str, str]:
    """Rows a second by outcome; without `flow` only those written, as Postgres counts them."""
    rates = (document.get("flow") or {}).get("rows_per_s") or {}
    if rates.get("written") is None:
        return {"written": _number(document["rows_per_s"])}
    return {name: _number(rates[name]) for name in _OUTCOMES if rates.get(name) is not None}


def _level(lane: Mapping[str, Any]) -> str:
    return printable(f"{lane['level']} ({lane['reason']})" if lane.get("reason") else str(lane["level"]))


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _unless_none(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f} ms" if value < 10_000 else _span(value / 1000)


def _span(seconds: float) -> str:
    """A length of time in its two largest units: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    whole = max(0, round(seconds))
    for unit, length, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit} {rest} {smaller}" if rest else f"{whole // length} {unit}"
    return f"{whole} s"


def _clock(ts: float) -> str:
    return f"{datetime.fromtimestamp(ts, UTC):%H:%M:%S}Z"


def _widest(names: Iterable[str]) -> int:
    return min(24, max(map(len, names), default=0))


def _fitted(name: str, width: int) -> str:
    return f"{name[: width - 3]}..." if len(name) > width else f"{name:<{width}}"


def _name_of(feed: Mapping[str, Any]) -> str:
    return " ".join(str(feed[part]) for part in ("dataset", "provider", "group") if feed.get(part))


def _reason(each: Mapping[str, Any]) -> str:
    return printable(f"{_number(each['count'])} x {each['dataset'] or 'message'}: {each['reason']}")


def _joined(each: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in each.items() if value is not None)
