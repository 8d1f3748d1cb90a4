"""Reads from Postgres the schema's revision, the rows per second, what is stored, and dead letters by reason."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from market_data_store import dead_letters
from market_data_store.coordinator.clock_offsets import ahead_s
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters.summary import ReasonCount, newly_kept, summary
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.connection import connect, unavailable
from market_data_store.postgres.room import Room
from market_data_store.postgres.running_jobs import RunningJob, running_jobs
from market_data_store.postgres.schema import Revisions, revisions_of
from market_data_store.postgres.server import state_of
from market_data_store.postgres.upkeep_runs import RETENTION, Run, last
from market_data_store.status.freshness import NO_FEEDS, Feeds, Rules
from market_data_store.status.stored import Stored, Summary

#: Seconds over which rows per second are measured; Postgres updates its statistics once a second.
_RATE_WINDOW_S = 5.0
#: Seconds after which Postgres cancels a statement. So a locked or huge table costs only its own figures, and two such
#: statements end before the sampler counts Postgres as away.
_STATEMENT_TIMEOUT_S = 0.75
#: Seconds after which the connection is abandoned.
_ANSWER_TIMEOUT_S = 3.0
#: Before dead letters are counted again, wait this many times the last count's duration: a million letters take 0.3 s.
_LETTERS_REST = 10.0
#: Set only for the transaction: behind a pooler, another client may use the connection next.
_TIMEOUT = f"SET LOCAL statement_timeout = {int(_STATEMENT_TIMEOUT_S * 1000)}"
_CHANGED_ROWS = "SELECT coalesce(sum(n_tup_ins + n_tup_upd), 0) FROM pg_stat_user_tables WHERE relname = ANY(%s)"


class _Letters(NamedTuple):
    """The number of dead letters, when the oldest was kept, and their reasons; None for what is unknown."""

    total: int | None = None
    oldest: datetime | None = None
    reasons: Sequence[ReasonCount] | None = None


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What was read from Postgres."""

    latency_ms: float
    revisions: Revisions
    #: Rows inserted and updated per second; None until there are two readings.
    rows_per_s: float | None
    #: None without a schema.
    dead_letters: int | None
    reasons: Sequence[ReasonCount] | None
    #: When the oldest dead letter was kept; None without letters too.
    oldest_letter: datetime | None = None
    #: By dataset.
    stored: Mapping[str, Summary] = field(default_factory=dict)
    feeds: Feeds = NO_FEEDS
    #: The last run of retention; None before the first, and where it may not be read.
    retention: Run | None = None
    #: The job runs that have not ended; None where they may not be read.
    jobs: Sequence[RunningJob] | None = None
    #: Whether it has no room left for long, see `postgres.room`.
    is_full: bool = False
    #: Whether it is a standby, or its sessions are read-only by default.
    is_read_only: bool = False
    #: Seconds by which its clock is ahead of this machine's; None if the answer took too long to tell.
    ahead_s: float | None = None
    #: What letters have come in the last seconds, in one line; None without any.
    new_letters: str | None = None


class DatabaseReader:
    """Keeps one connection, and replaces it after a loss or when it gives no answer. Not thread-safe."""

    def __init__(self, url: str, quota_bytes: int = 0, rules: Rules | None = None) -> None:
        self._url = url
        self._room = Room(quota_bytes)
        self._connection: psycopg.Connection[Any] | None = None
        self._totals: deque[tuple[float, int]] = deque()
        self._letters = _Letters()
        self._letters_due = float("-inf")
        self._stored = Stored(rules or Rules())
        self._is_read_only = False

    def read(self) -> DatabaseStatus:
        """Read once; raises `DatabaseUnavailable`."""
        if not self._url:  # libpq would use the server of its own variables (PGHOST, ...)
            raise DatabaseUnavailable("DATABASE_URL is not set")
        try:
            started = time.monotonic()
            if self._connection is None:
                self._connection = connect(self._url)
                self._connection.prepare_threshold = None  # a pooler may give the next statement to another server
            with _given_up_after(_ANSWER_TIMEOUT_S, self._connection):
                revisions = revisions_of(self._connection)
                clock = self._look_at_clock(self._connection)
                latency_ms = (time.monotonic() - started) * 1e3
                rows_per_s = self._rows_per_s(self._connection)
                letters = self._dead_letters(self._connection)
                stored = self._stored.look(self._connection)
                run = _retention(self._connection)
                return DatabaseStatus(
                    latency_ms,
                    revisions,
                    rows_per_s,
                    letters.total,
                    letters.reasons,
                    oldest_letter=letters.oldest,
                    stored=stored,
                    feeds=self._stored.feeds(),
                    retention=run,
                    jobs=_jobs(self._connection),
                    is_full=self._is_full(self._connection),
                    is_read_only=self._is_read_only,
                    ahead_s=clock,
                    new_letters=newly_kept(letters.reasons, time.time() + (clock or 0.0)),
                )
        except psycopg.Error as error:
            self.close()
            raise unavailable(error) from error

    def close(self) -> None:
        """Close the connection."""
        self._totals.clear()  # otherwise the next rate would cover the outage
        self._letters_due = float("-inf")
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look_at_clock(self, connection: psycopg.Connection[Any]) -> float | None:
        def ask() -> float:
            clock, self._is_read_only = state_of(connection)
            return clock

        return ahead_s(ask)

    def _rows_per_s(self, connection: psycopg.Connection[Any]) -> float | None:
        tables = [dataset.table.name for dataset in DATASETS.values()]
        with connection.transaction():
            connection.execute(_TIMEOUT)
            total = int(connection.execute(_CHANGED_ROWS, [tables]).fetchall()[0][0])
        now = time.monotonic()
        self._totals.append((now, total))
        while now - self._totals[0][0] > _RATE_WINDOW_S and len(self._totals) > 2:
            self._totals.popleft()
        then, before = self._totals[0]
        # A total below the previous one means that the statistics were reset.
        return max(0.0, (total - before) / (now - then)) if now > then else None

    def _is_full(self, connection: psycopg.Connection[Any]) -> bool:
        try:
            with connection.transaction():
                connection.execute(_TIMEOUT)
                return self._room.look(connection)
        except psycopg.errors.QueryCanceled:
            return self._room.is_full

    def _dead_letters(self, connection: psycopg.Connection[Any]) -> _Letters:
        started = time.monotonic()
        if started >= self._letters_due:
            self._letters = _counted(connection)
            ended = time.monotonic()
            self._letters_due = ended + _LETTERS_REST * (ended - started)
        return self._letters


def _counted(connection: psycopg.Connection[Any]) -> _Letters:
    """Count the letters, in total and by reason; None for what Postgres could not count in time."""
    found = _Letters()
    try:
        with connection.transaction():
            connection.execute(_TIMEOUT)
            found = _Letters(dead_letters.count(connection), dead_letters.oldest(connection))
        # Two transactions: counting a million takes 0.1 s, and grouping them by reason 0.5 s or more.
        with connection.transaction():
            connection.execute(_TIMEOUT)
            return found._replace(reasons=summary(connection))
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.QueryCanceled):
        return found  # not migrated, locked, or too many for the time


def _retention(connection: psycopg.Connection[Any]) -> Run | None:
    try:
        with connection.transaction():
            connection.execute(_TIMEOUT)
            return last(connection, RETENTION)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
        return None


def _jobs(connection: psycopg.Connection[Any]) -> Sequence[RunningJob] | None:
    try:
        with connection.transaction():
            connection.execute(_TIMEOUT)
            return running_jobs(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
        return None


@contextmanager
def _given_up_after(timeout_s: float, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Shut the socket down if the block takes longer: a stopped server holds connections and ignores timeouts."""
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        timer = threading.Timer(timeout_s, _hang_up, [own])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _hang_up(own: socket.socket) -> None:
    try:
        own.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is already closed
        pass
