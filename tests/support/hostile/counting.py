"""Sends hostile messages between good ones to a worker, and counts what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import redis

from support.databases import Connection
from support.hostile.bodies import BODIES
from support.hostile.entries import RABBITMQ, REDIS
from support.hostile.fields import TASK
from support.hostile.grammar import Grammar, Message, body
from support.hostile.headers import HEADERS
from support.hostile.sending import send
from support.waiting import wait_until
from support.workers import Worker

#: Messages that are sent before the next are made.
_PORTION = 1_000
#: Seconds without a new row or letter after which all is handled, and how long that may take.
_QUIET_S, _LAST_S = 3.0, 60.0
#: The symbol of good messages' rows.
GOOD = "good"
_FIRST_GOOD_AT = 1_600_000_000


@dataclass
class Figures:
    """What a run measured."""

    seed: int
    hostile: int
    good: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    rss_at_start: int = 0
    rss_peak: int = 0
    letter_bytes: int = 0
    #: What became of messages, and of those of each kind.
    expected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    #: Messages of which something else has become, each in a line.
    wrong: list[str] = field(default_factory=list)

    @property
    def letters(self) -> int:
        """The number of letters found."""
        return sum(number for name, number in self.found.items() if name.startswith("letter "))

    def __str__(self) -> str:
        """Return all of it, for people."""
        names = sorted(self.expected.keys() | self.found.keys())
        lines = [
            f"{self.hostile:,} hostile and {self.good:,} good messages in {self.seconds:.0f} s, "
            f"HOSTILE_SEED={self.seed}",
            f"sent {self.sent_bytes:,} bytes of hostile messages",
            f"parent's memory: {self.rss_at_start / 1e6:.1f} MB at the start, {self.rss_peak / 1e6:.1f} MB at most, "
            f"{self.rss_peak / self.rss_at_start:.2f} times",
            f"letters take {self.letter_bytes:,} bytes; allowed are {4 * self.sent_bytes + 1_024 * self.letters:,}",
            f"{'':<44}{'expected':>10}{'found':>10}",
            *(f"{name:<44}{self.expected[name]:>10,}{self.found[name]:>10,}" for name in names),
        ]
        return "\n".join(lines)


class Run:
    """One run against a worker that has `MDS_MAX_MESSAGE_BYTES` = `grammar.LIMIT`."""

    def __init__(self, url: str, worker: Worker, database: Connection, *, seed: int, hostile: int, good: int) -> None:
        self._url = url
        self._worker = worker
        self._database = database
        self._good = good
        self._is_redis = url.startswith("redis")
        kinds = [*HEADERS, *BODIES, *(REDIS if self._is_redis else RABBITMQ)]
        self._grammar = Grammar(seed, kinds, is_redis=self._is_redis)
        self.figures = Figures(seed, hostile, good)
        self._messages: list[Message] = []

    def messages(self) -> Iterator[Message]:
        """Make the hostile messages once more."""
        return (self._grammar.message(number) for number in range(self.figures.hostile))

    def run(self, is_empty: Callable[[], bool], timeout_s: float) -> Figures:
        """Send all, wait until all are handled, and count."""
        figures, started = self.figures, time.monotonic()
        before = self._size()
        with _watched(self._worker.pid, figures):
            for first in range(0, figures.hostile, _PORTION):
                hostile = [self._grammar.message(n) for n in range(first, min(first + _PORTION, figures.hostile))]
                figures.sent_bytes += send(self._url, hostile)
                good = figures.good * first // figures.hostile, figures.good * (first + len(hostile)) // figures.hostile
                send(self._url, [_good(self._grammar, number) for number in range(*good)])
            wait_until(is_empty, lambda: self._worker.whole_log()[-3_000:], timeout_s=timeout_s)
            self._wait_for_the_last()
        figures.seconds = time.monotonic() - started
        figures.letter_bytes = self._size() - before
        self._compare()
        return figures

    def _wait_for_the_last(self) -> None:
        """RabbitMQ does not tell what workers hold: wait until nothing is stored or kept for a while."""
        query = "SELECT (SELECT count(*) FROM bars_ohlcv), (SELECT count(*) FROM dead_letters)"
        last, since = self._database.execute(query).fetchall(), time.monotonic()

        def is_quiet() -> bool:
            nonlocal last, since
            found = self._database.execute(query).fetchall()
            if found != last:
                last, since = found, time.monotonic()
            return time.monotonic() - since > _QUIET_S

        wait_until(is_quiet, timeout_s=_LAST_S)

    def _size(self) -> int:
        return int(self._database.execute("SELECT pg_total_relation_size('dead_letters')").fetchall()[0][0])

    def _compare(self) -> None:
        figures = self.figures
        stored: Counter[str] = Counter()
        for symbol, number in self._database.execute("SELECT symbol, count(*) FROM bars_ohlcv GROUP BY symbol"):
            stored[symbol] = number
        letters: dict[tuple[str, int], list[str]] = {}
        for task_id, position, reason in self._database.execute("SELECT task_id, position, reason FROM dead_letters"):
            letters.setdefault((task_id, position), []).append(reason)
        aside = Counter(self._set_aside())
        figures.expected["rows of good messages"] = figures.good
        figures.found["rows of good messages"] = stored.pop(GOOD, 0)
        figures.wrong += [f"good message {number} is not stored" for number in self._missing_good()]
        for message in self.messages():
            wrong = _missing(message, stored, letters, aside, figures)
            if wrong:
                figures.wrong.append(f"{', '.join(wrong)}: {message}")
        figures.wrong += [f"{number} rows of {symbol} are stored, of no message" for symbol, number in stored.items()]
        figures.wrong += [f"letters of no message: {name}: {reasons}" for name, reasons in letters.items() if reasons]
        figures.wrong += [f"set aside, and not sent: {text[:80]!r}" for text, number in aside.items() if number]

    def _missing_good(self) -> list[int]:
        query = "SELECT extract(epoch FROM ts)::bigint FROM bars_ohlcv WHERE symbol = %s"
        found = {(at - _FIRST_GOOD_AT) // 60 for (at,) in self._database.execute(query, [GOOD])}
        return sorted(set(range(self.figures.good)) - found)

    def _set_aside(self) -> list[bytes]:
        if not self._is_redis:
            return []
        with redis.Redis.from_url(self._url) as client:
            return list(client.lrange("unacked_malformed", 0, -1))


def _missing(
    message: Message,
    stored: Counter[str],
    letters: dict[tuple[str, int], list[str]],
    aside: Counter[bytes],
    figures: Figures,
) -> list[str]:
    """Take what has become of a message out of what was found; return what is missing, or too much."""
    wrong: list[str] = []
    rows = stored.pop(message.symbol, 0)
    figures.expected["rows of hostile messages"] += message.stored
    figures.found["rows of hostile messages"] += rows
    if rows != message.stored:
        wrong.append(f"{rows} rows are stored")
    for task_id, position, prefixes in message.letters:
        found = letters.get((task_id, position), [])
        kind = f"letter {prefixes[0][:30]}"
        figures.expected[kind] += 1
        fitting = [reason for reason in found if reason.startswith(prefixes)]
        if fitting:
            figures.found[kind] += 1
            found.remove(fitting[0])
        else:
            wrong.append(f"no letter {prefixes} of {task_id} at {position}, but {found}")
    if message.is_set_aside:
        figures.expected["set aside"] += 1
        figures.found["set aside"] += min(aside[message.entry or b""], 1)
        if not aside[message.entry or b""]:
            wrong.append("not set aside")
        aside[message.entry or b""] -= 1
    return wrong


def _good(grammar: Grammar, number: int) -> Message:
    row = grammar.row() | {"symbol": GOOD, "ts": _FIRST_GOOD_AT + 60 * number}
    return Message(-1 - number, GOOD, {"task": TASK, "id": f"good-{number}"}, body([row]))


@contextmanager
def _watched(pid: int, figures: Figures) -> Iterator[None]:
    """Measure the parent's memory ten times a second."""
    parent, stop = psutil.Process(pid), threading.Event()
    figures.rss_at_start = figures.rss_peak = parent.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.1):
            try:
                figures.rss_peak = max(figures.rss_peak, parent.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
