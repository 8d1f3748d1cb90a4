"""How many series each dataset has, the time of its newest row, and its feeds, at a bounded cost.

A table is looked through in portions of its keys, in the key's order. What a round through all of them has found is
known until the next one ends; a newer row is known as soon as it is seen. Of a table with several portions, each look
begins with the keys that had the newest rows of each feed: these will mostly have its next rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from typing import Any, NamedTuple

import psycopg

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.key_index import prefix
from market_data_store.postgres.newest_times import Newest, newest_of, newest_times
from market_data_store.postgres.sizes import estimated_rows
from market_data_store.status.freshness import Feed, FeedName, Feeds, Rules, ordered
from market_data_store.status.sparks import Sparks

#: Seconds that one look at Postgres may spend on this; Postgres cancels what takes longer. Datasets for which no time
#: was left come first in the next look, a second later.
_BUDGET_S = 0.3
#: At most this many keys without their time (series, or contracts of options) are looked at at once: they take about
#: 0.1 s. Half as many after a look that took too long, but not less than the other number.
_MOST, _LEAST = 5_000, 100
#: Seconds before a dataset is looked at again: at least these, and so many times what the last look took.
_REST_S = 5.0
_REST_TIMES = 50.0
#: The most feeds of a dataset that are told apart; a table with more providers and groups is not one of market data.
_MOST_FEEDS = 1_000
#: The most keys that a look begins with.
_MOST_AGAIN = 100
#: Seconds between two estimates of the rows.
_ROWS_REST_S = 10.0


class Summary(NamedTuple):
    """What a dataset holds; None for what is not known, or takes too long to find out."""

    series: int | None
    newest: datetime | None
    #: An estimate.
    rows: int | None = None


_UNKNOWN = Summary(None, None)


@dataclass
class _Round:
    """What one round through a table has found so far."""

    after: tuple[str, ...] = ()
    series: int = 0
    last_series: tuple[str, ...] = ()
    newest: float | None = None
    feeds: dict[FeedName, float] = field(default_factory=dict)
    #: The key with the newest row of each feed.
    keys: dict[FeedName, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class _Known:
    """What is known of one dataset."""

    due: float = 0.0
    most: int = 0
    round: _Round = field(default_factory=_Round)
    summary: Summary = _UNKNOWN
    #: The newest time of each feed, and Postgres's time at the last look.
    feeds: dict[FeedName, float] = field(default_factory=dict)
    now: float = 0.0
    keys: dict[FeedName, tuple[str, ...]] = field(default_factory=dict)


class Stored:
    """Looks at one dataset after the other, and keeps what it found. Not thread-safe."""

    def __init__(self, rules: Rules = Rules()) -> None:  # noqa: B008  # frozen
        self._rules = rules
        self._known: dict[str, _Known] = {name: _Known() for name in DATASETS}
        self._sparks = Sparks(rules)
        self._rows: Mapping[str, int] = {}
        self._rows_due = 0.0

    def look(self, connection: psycopg.Connection[Any]) -> Mapping[str, Summary]:
        """Return what is known of each dataset."""
        until = time.monotonic() + _BUDGET_S
        for name, known in sorted(self._known.items(), key=lambda each: each[1].due):
            started = time.monotonic()
            left_s = until - started
            if left_s <= 0 or known.due > started:
                break
            self._look_at(connection, DATASETS[name], known, left_s)
            ended = time.monotonic()
            known.due = ended + max(_REST_S, _REST_TIMES * (ended - started))
        self._estimate(connection, until)
        self._sparks.look(connection, self.feeds().every, until)
        return {name: known.summary._replace(rows=self._rows.get(name)) for name, known in self._known.items()}

    def feeds(self) -> Feeds:
        """Return the feeds as they were seen last."""
        return ordered(
            Feed(name, newest, known.now - newest, self._rules.limit_s(name), self._sparks.of(name))
            for known in self._known.values()
            for name, newest in known.feeds.items()
        )

    def _look_at(self, connection: psycopg.Connection[Any], dataset: Dataset, known: _Known, timeout_s: float) -> None:
        known.most = known.most or _MOST
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1_000))}")
                found = newest_times(connection, dataset, known.most, known.round.after)
                is_whole = not known.round.after and len(found or ()) < known.most
                newer = [] if is_whole else newest_of(connection, dataset, [*islice(known.keys.values(), _MOST_AGAIN)])
        except psycopg.errors.QueryCanceled:  # too large for the time, or locked
            known.most = max(_LEAST, known.most // 2)
            known.summary = _UNKNOWN
            return
        except (
            DatasetUnavailable,  # altered by its owner
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InsufficientPrivilege,
            psycopg.DataError,
        ):
            found, newer = None, []
        if found is None:
            known.round, known.summary, known.feeds = _Round(), _UNKNOWN, {}
            return
        is_all = len(found) < known.most
        known.most = min(_MOST, 2 * known.most)
        for each in newer:
            name = self._feed(dataset, each)
            if name in known.feeds and isfinite(each.ts):
                known.feeds[name] = max(known.feeds[name], each.ts)
        self._add(dataset, known, found)
        if is_all:
            self._finish(known)

    def _add(self, dataset: Dataset, known: _Known, found: list[Newest]) -> None:
        this, names = known.round, prefix(dataset)
        places = [names.index(name) for name in ("provider", "symbol", "interval") if name in names]
        for each in found:
            series = tuple(each.names[place] for place in places)
            this.series += series != this.last_series
            this.last_series = series
            this.newest = each.ts if this.newest is None else max(this.newest, each.ts)
            name = self._feed(dataset, each)
            if isfinite(each.ts) and (name in this.feeds or len(this.feeds) < _MOST_FEEDS):
                if each.ts >= this.feeds.get(name, each.ts):
                    this.feeds[name], this.keys[name] = each.ts, each.names
                if name in known.feeds:  # the round may take long
                    known.feeds[name] = max(known.feeds[name], each.ts)
        if found:
            this.after, known.now = found[-1].names, found[-1].now

    def _feed(self, dataset: Dataset, each: Newest) -> FeedName:
        named = dict(zip(prefix(dataset), each.names, strict=True))
        return FeedName(dataset.name, named.get("provider", ""), self._rules.group(named.get("symbol")))

    def _finish(self, known: _Known) -> None:
        this, known.round = known.round, _Round()
        known.feeds, known.keys = this.feeds, this.keys
        if this.newest is None:
            known.summary = Summary(0, None)
        elif isfinite(this.newest):
            try:
                known.summary = Summary(this.series, datetime.fromtimestamp(this.newest, UTC))
            except (ValueError, OverflowError, OSError):  # a time that Python does not have
                known.summary = _UNKNOWN
        else:
            known.summary = _UNKNOWN

    def _estimate(self, connection: psycopg.Connection[Any], until: float) -> None:
        now = time.monotonic()
        if now < self._rows_due or now >= until:
            return
        self._rows_due = now + _ROWS_REST_S
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = {max(1, int((until - now) * 1_000))}")
                by_table = estimated_rows(connection, [each.table.name for each in DATASETS.values()])
        except psycopg.errors.QueryCanceled:
            return
        self._rows = {name: by_table[each.table.name] for name, each in DATASETS.items() if each.table.name in by_table}
