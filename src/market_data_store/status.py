"""What the store's parts say now: one look at broker, Postgres and feedback stream, for a terminal and for the page.

A part that does not answer is None in the answer, and delays no other for longer than its deadline.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from redis.exceptions import RedisError

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BackpressureLevel, FeedbackEvent
from market_data_store.coordinator.monitor import BROKER_UNREACHABLE, NO_WORKERS
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.watermarks import HARD, OK, Watermarks
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters.summary import ReasonCount, summary
from market_data_store.errors import BrokerUnavailable, DatabaseUnavailable
from market_data_store.postgres.connection import connect
from market_data_store.protocol import QUEUE

#: Seconds over which the rows a second are counted; Postgres itself counts once a second.
_RATE_WINDOW_S = 5.0
#: Seconds that Postgres has for an answer: it is told the first, and after the second the connection is given up.
_STATEMENT_TIMEOUT_S = 1.5
_ANSWER_TIMEOUT_S = 3.0
#: Between two looks at the dead letters lies so many times what the first took: a million take Postgres 0.3 s.
_LETTERS_REST = 10.0
#: An event of this many heartbeats ago still tells the level; an older one means that no monitor runs.
_FRESH_HEARTBEATS = 2.5

#: For this transaction alone: behind a pooler the connection may be another's in the next.
_TIMEOUT = f"SET LOCAL statement_timeout = {int(_STATEMENT_TIMEOUT_S * 1000)}"
_CHANGED_ROWS = "SELECT coalesce(sum(n_tup_ins + n_tup_upd), 0) FROM pg_stat_user_tables WHERE relname = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Queue:
    """What the broker says."""

    depth: int
    #: Messages that workers hold; None where nobody can tell.
    reserved: int | None


@dataclass(frozen=True, slots=True)
class Database:
    """What Postgres says."""

    #: Rows inserted and updated a second; None until there are two looks.
    rows_per_s: float | None
    #: None without a schema.
    dead_letters: int | None
    reasons: Sequence[ReasonCount] | None


@dataclass(frozen=True, slots=True)
class Status:
    """One look; None where it could not be found out."""

    queue: Queue | None
    workers: list[str] | None
    database: Database | None
    #: The last of the feedback stream, newest first.
    events: list[FeedbackEvent] | None
    level: BackpressureLevel
    #: Why, where the depth does not explain the level.
    reason: str | None


class StatusReader:
    """Asks one part with each method; each method is for one thread at a time, different ones may run side by side."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._levels = _Levels(settings)
        management_url = settings.rabbitmq_management_url
        self._queue = stack.enter_context(closing(QueueInspector(app, QUEUE, management_url=management_url)))
        self._control = stack.enter_context(closing(QueueInspector(app, QUEUE)))
        self._found: list[str] = []
        self._database = stack.enter_context(closing(_DatabaseReader(settings.database_url)))
        self._publisher = None
        if settings.feedback_url:
            publisher = RedisFeedbackPublisher(settings.feedback_url, namespace=settings.namespace, timeout_s=1.0)
            self._publisher = stack.enter_context(closing(publisher))

    def queue(self) -> Queue | None:
        """Depth and reserved messages."""
        try:
            depth = self._queue.depth()
        except BrokerUnavailable:
            return None
        try:
            return Queue(depth, self._queue.reserved())
        except BrokerUnavailable:
            return Queue(depth, None)

    def workers(self) -> list[str] | None:
        """The workers that answer; takes the second that they have for it."""
        try:
            found = self._control.workers()
        except BrokerUnavailable:
            return None
        # One that is busy may miss a ping; only the second in a row counts.
        self._found, answer = found, found or self._found
        return answer

    def database(self) -> Database | None:
        """Rows a second and dead letters."""
        return self._database.read()

    def events(self, limit: int = 20) -> list[FeedbackEvent] | None:
        """The newest events of the feedback stream, newest first."""
        try:
            return None if self._publisher is None else self._publisher.recent(limit)
        except RedisError:
            return None

    def level(
        self, queue: Queue | None, workers: list[str] | None, events: list[FeedbackEvent] | None
    ) -> tuple[BackpressureLevel, str | None]:
        """The level that these amount to, and its reason; call it once a look, since a level depends on the last."""
        return self._levels.next(queue, workers, events)

    def read(self) -> Status:
        """One look at all of it, which takes a second."""
        queue, workers, events = self.queue(), self.workers(), self.events()
        return Status(queue, workers, self.database(), events, *self.level(queue, workers, events))


class _Levels:
    """The level as the monitor tells it, or as it would tell it while none runs."""

    def __init__(self, settings: Settings) -> None:
        self._watermarks = Watermarks.of(settings)
        self._capacity = settings.queue_capacity
        self._fresh_s = _FRESH_HEARTBEATS * settings.feedback_heartbeat_s
        self._level = OK

    def next(
        self, queue: Queue | None, workers: list[str] | None, events: list[FeedbackEvent] | None
    ) -> tuple[BackpressureLevel, str | None]:
        reason = None
        if events and time.time() - events[0].ts <= self._fresh_s:
            self._level, reason = events[0].level, events[0].reason
        elif queue is None:
            self._level, reason = HARD, BROKER_UNREACHABLE
        elif queue.depth > 0 and workers == []:
            self._level, reason = HARD, NO_WORKERS
        else:
            self._level = self._watermarks.level(self._level, queue.depth / self._capacity)
        return self._level, reason


class _DatabaseReader:
    """Keeps one connection, and opens another after it was lost or gave no answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None
        self._totals: deque[tuple[float, int]] = deque()
        self._letters: tuple[int, list[ReasonCount]] | tuple[None, None] = None, None
        self._letters_due = float("-inf")

    def read(self) -> Database | None:
        if not self._url:
            return None
        try:
            if self._connection is None:
                self._connection = connect(self._url)
                self._connection.prepare_threshold = None  # a pooler may give the next statement to another server
            with _given_up_after(_ANSWER_TIMEOUT_S, self._connection):
                return Database(self._rows_per_s(self._connection), *self._dead_letters(self._connection))
        except (DatabaseUnavailable, psycopg.Error):
            self.close()
            return None

    def close(self) -> None:
        self._totals.clear()  # the next rate would be one over the outage
        self._letters_due = float("-inf")
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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
        # Fewer than before: somebody reset the statistics.
        return max(0.0, (total - before) / (now - then)) if now > then else None

    def _dead_letters(self, connection: psycopg.Connection[Any]) -> tuple[int, list[ReasonCount]] | tuple[None, None]:
        started = time.monotonic()
        if started >= self._letters_due:
            try:
                with connection.transaction():
                    connection.execute(_TIMEOUT)
                    self._letters = dead_letters.count(connection), summary(connection)
            except (psycopg.errors.UndefinedTable, psycopg.errors.QueryCanceled):
                self._letters = None, None  # not migrated, locked, or too many for the time
            ended = time.monotonic()
            self._letters_due = ended + _LETTERS_REST * (ended - started)
        return self._letters


@contextmanager
def _given_up_after(timeout_s: float, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Hang up when it takes longer: a server that is stopped keeps the connection, and heeds no statement_timeout."""
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
    except OSError:  # it is closed already
        pass
