"""What the store's parts say now: one look at broker, Postgres and feedback stream, for a terminal and for the page.

A part that does not answer is None in the answer, and delays no other for longer than its deadline.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass

from redis.exceptions import RedisError

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, NO_WORKERS, BackpressureLevel, FeedbackEvent
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.watermarks import HARD, OK, Watermarks
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import QUEUE
from market_data_store.status.database import Database, DatabaseReader

#: An event of this many heartbeats ago still tells the level; an older one means that no monitor runs.
_FRESH_HEARTBEATS = 2.5


@dataclass(frozen=True, slots=True)
class Queue:
    """What the broker says."""

    depth: int
    #: Messages that workers hold; None where nobody can tell.
    reserved: int | None


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
        self._database = stack.enter_context(closing(DatabaseReader(settings.database_url)))
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
