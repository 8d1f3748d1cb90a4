"""Looks at each part of the store: broker, workers, Postgres and feedback stream.

Every part has its own deadline. For a part that does not answer, a look returns an `Away` instead of raising an error.
"""

from __future__ import annotations

import time

from redis.exceptions import RedisError

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.connections.names import refused_for_number
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.workers import Workers
from market_data_store.coordinator.write_probe import refusal_in
from market_data_store.errors import BrokerUnavailable, DatabaseUnavailable
from market_data_store.protocol import QUEUE
from market_data_store.status.database import DatabaseReader, DatabaseStatus
from market_data_store.status.looks import Away, FeedbackStatus, QueueStatus
from market_data_store.status.trouble import Trouble, trouble_of

#: Number of events that the page shows.
RECENT_EVENTS = 20


class StatusReader:
    """Keeps a connection to each part; each method looks at one part.

    No method may run in two threads at once; different methods may run concurrently.
    """

    def __init__(self, settings: Settings) -> None:
        self._inspector = QueueInspector(app, QUEUE, management_url=settings.rabbitmq_management_url)
        self._workers = Workers(self._inspector)
        self._database = DatabaseReader(settings.database_url)
        self._stream = None
        if settings.feedback_url and settings.pulse_enabled:
            self._stream = RedisFeedbackPublisher(settings.feedback_url, namespace=settings.namespace, timeout_s=1.0)

    def queue(self) -> QueueStatus | Away:
        """Read depth and reserved messages."""
        started = time.monotonic()
        try:
            depth = self._inspector.depth()
        except BrokerUnavailable as error:
            return _away("the broker", error)
        latency_ms = (time.monotonic() - started) * 1e3
        inspector = self._inspector
        reserved, held = if_answered(inspector.reserved), if_answered(inspector.held)
        refusal, malformed = if_answered(inspector.refusal), if_answered(inspector.malformed)
        return QueueStatus(depth, reserved, latency_ms, held or {}, refusal, malformed or 0)

    def workers(self) -> list[str] | Away:
        """Find the workers that consume the queue; takes a second, or two if the first look finds none."""
        try:
            return self._workers.look()
        except BrokerUnavailable as error:
            return _away("the broker", error)

    def trouble(self, queue: QueueStatus | Away, workers: list[str] | Away) -> Trouble:
        """Return what keeps rows from being written, by the newest looks at the queue and at the workers."""
        waiting = {} if isinstance(queue, Away) else queue.held
        if isinstance(workers, Away) or not workers:
            return trouble_of(waiting, [])
        return trouble_of(waiting, self._inspector.answers, self._inspector.namesakes)

    def database(self) -> DatabaseStatus | Away:
        """Read the schema's revision, rows per second and dead letters."""
        try:
            return self._database.read()
        except DatabaseUnavailable as error:
            return _away("Postgres", error)

    def feedback(self, limit: int = RECENT_EVENTS) -> FeedbackStatus | Away | None:
        """Read the stream's newest events, and whether the receivers get them; None if no stream is configured."""
        if self._stream is None:
            return None
        try:
            return FeedbackStatus(self._stream.recent(limit), self._stream.reported())
        except RedisError as error:
            return _away("the feedback stream's Redis", error)

    def close(self) -> None:
        """Close the connections."""
        self._inspector.close()
        self._database.close()
        if self._stream is not None:
            self._stream.close()


def _away(what: str, error: Exception) -> Away:
    kind = type(error.__cause__ or error).__name__
    full = refused_for_number(error)
    if full is not None:
        return Away(full, str(error))
    refusal = refusal_in(error)
    if refusal is not None:
        return Away(f"{what} refuses: {refusal}", str(error), refusal)
    return Away(f"{what} does not answer ({kind})", str(error) or kind)
