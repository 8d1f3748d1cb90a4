"""How many rows each feed has in each of the last 15 minutes, by their times, at a bounded cost.

Only minutes that are over are counted: all of them in the first look, and later the last two, so that rows that come a
minute late are counted too. What takes too long stays unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.newest_times import rows_by_minute
from market_data_store.status.freshness import MINUTES, Feed, FeedName, Rules

#: Of a table with more keys without their time than this, nothing is counted.
_MOST_KEYS = 5_000
#: Minutes that are counted again, and seconds after the end of a minute before it is counted.
_AGAIN = 2
_LATE_S = 3.0
#: A dataset whose minutes took too long is counted again after so many seconds.
_REST_S = 300.0


class Sparks:
    """Keeps what was counted. Not thread-safe."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        #: By dataset: the last minute that was counted, when it may be counted again (monotonic), and its minutes that
        #: are known.
        self._counted: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._minutes: dict[str, set[int]] = {}
        self._rows: dict[FeedName, dict[int, int]] = {}
        #: The last whole minute.
        self._now = 0

    def look(self, connection: psycopg.Connection[Any], feeds: Iterable[Feed], until: float) -> None:
        """Count what is new, until then (monotonic)."""
        newest: dict[str, float] = {}
        now = 0.0
        for feed in feeds:
            newest[feed.name.dataset] = max(newest.get(feed.name.dataset, 0.0), feed.newest_ts)
            now = max(now, feed.newest_ts + feed.age_s)
        if not now:
            return
        self._now = int((now - _LATE_S) // 60) - 1
        for dataset, ts in newest.items():
            started = time.monotonic()
            if started >= until or self._due.get(dataset, 0.0) > started or self._counted.get(dataset) == self._now:
                continue
            if ts >= (self._now - MINUTES) * 60:
                self._count(connection, dataset, until - started)
            else:
                self._minutes[dataset] = set()

    def of(self, name: FeedName) -> Sequence[int | None] | None:
        """Return a feed's rows in the last 15 whole minutes, oldest first; None if none of them is known."""
        known = self._minutes.get(name.dataset, set())
        rows = self._rows.get(name, {})
        minutes = range(self._now - MINUTES + 1, self._now + 1)
        found = [rows.get(minute, 0) if minute in known else None for minute in minutes]
        return None if all(each is None for each in found) else found

    def _count(self, connection: psycopg.Connection[Any], dataset: str, timeout_s: float) -> None:
        counted = self._counted.get(dataset)
        first = self._now - MINUTES + 1
        if counted is not None:
            first = max(first, min(counted, self._now - _AGAIN + 1))
        self._counted[dataset] = self._now
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1_000))}")
                found = rows_by_minute(connection, DATASETS[dataset], _MOST_KEYS, first, self._now)
        except (psycopg.errors.QueryCanceled, DatasetUnavailable, psycopg.errors.UndefinedTable):
            self._due[dataset] = time.monotonic() + (0.0 if counted is None else _REST_S)
            return
        known = self._minutes.setdefault(dataset, set())
        known.difference_update([minute for minute in known if minute <= self._now - MINUTES])
        known.update(range(first, self._now + 1))
        for name, rows in self._rows.items():
            if name.dataset == dataset:
                for minute in [each for each in rows if each <= self._now - MINUTES or each >= first]:
                    del rows[minute]
        for names, minute, number in found:
            name = FeedName(dataset, names.get("provider", ""), self._rules.group(names.get("symbol")))
            rows = self._rows.setdefault(name, {})
            rows[minute] = rows.get(minute, 0) + number
