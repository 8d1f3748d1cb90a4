"""Looks at each part of the store: broker, workers, Postgres and feedback stream.

Every part has its own deadline. For a part that does not answer, a look returns an `Away` instead of raising an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from redis.exceptions import RedisError

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.connections.names import refused_for_number
from market_data_store.coordinator.answers import FoundWorker, WorkerAnswer
from market_data_store.coordinator.clock_offsets import BROKER, POSTGRES, ahead_s, wrong_clocks
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.workers import Workers
from market_data_store.coordinator.write_probe import refusal_in
from market_data_store.errors import BrokerUnavailable, DatabaseUnavailable
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE
from market_data_store.status.database import DatabaseReader, DatabaseStatus
from market_data_store.status.flow import Flow
from market_data_store.status.freshness import Rules
from market_data_store.status.looks import Away, BackfillLooks, FeedbackStatus, QueueStatus
from market_data_store.status.trouble import Trouble, trouble_of

#: Number of events that the page shows.
RECENT_EVENTS = 20


class StatusReader:
    """Keeps a connection to each part; each method looks at one part.

    No method may run in two threads at once; different methods may run concurrently.
    """

    def __init__(self, settings: Settings) -> None:
        self._inspector = QueueInspector(app, QUEUE, management_url=settings.rabbitmq_management_url)
        # Where nothing waits in the backfill lane, its workers are not worth a second more for those of the live lane.
        self._workers = Workers(self._inspector, BACKFILL_QUEUE, asks_again=self._backfill_waits)
        self._database = DatabaseReader(settings.database_url, settings.database_quota_bytes, Rules.of(settings))
        #: What the newest looks have seen of the backfill lane.
        self._found_queue: QueueStatus | Away = Away("not looked at yet")
        self._found_workers: list[str] = []
        #: What flows, by what the workers answer.
        self.flow = Flow()
        self._found_feedback: FeedbackStatus | Away | None = None
        self._stream = self._backfill_stream = None
        if settings.feedback_url and settings.pulse_enabled:
            stream = partial(RedisFeedbackPublisher, settings.feedback_url, namespace=settings.namespace, timeout_s=1.0)
            self._stream, self._backfill_stream = stream(), stream(queue=BACKFILL_QUEUE)

    def queue(self) -> QueueStatus | Away:
        """Read depth and reserved messages; those of the backfill lane too, which `backfill` returns."""
        found = self._queue(QUEUE)
        backfill = found if isinstance(found, Away) else self._queue(BACKFILL_QUEUE)
        if isinstance(found, QueueStatus) and isinstance(backfill, QueueStatus):  # one number for the whole broker
            backfill = replace(backfill, malformed=found.malformed)
        self._found_queue = backfill
        return found

    def _queue(self, queue: str) -> QueueStatus | Away:
        inspector, started = self._inspector, time.monotonic()
        try:
            depth = inspector.depth(queue)
        except BrokerUnavailable as error:
            return _away("the broker", error)
        latency_ms = (time.monotonic() - started) * 1e3
        reserved, held = if_answered(partial(inspector.reserved, queue)), if_answered(partial(inspector.held, queue))
        refusal = if_answered(partial(inspector.refusal, queue))
        malformed = if_answered(inspector.malformed) if queue == QUEUE else 0
        clock = if_answered(partial(ahead_s, inspector.time)) if queue == QUEUE and inspector.tells_time else None
        return QueueStatus(depth, reserved, latency_ms, held or {}, refusal, malformed or 0, clock)

    def workers(self) -> list[str] | Away:
        """Find the workers that consume the queue; takes a second, or two if the first look finds none."""
        try:
            found = self._workers.by_queue()
        except BrokerUnavailable as error:
            self.flow.look(())
            return _away("the broker", error)
        self.flow.look(self._inspector.found if any(found.values()) else ())
        self._found_workers = found[BACKFILL_QUEUE]
        return found[QUEUE]

    @property
    def answers(self) -> Sequence[WorkerAnswer]:
        """What the workers said of themselves when they last answered."""
        return self._inspector.answers

    @property
    def found(self) -> Sequence[FoundWorker]:
        """The workers that answered last."""
        return self._inspector.found

    def clocks(
        self, queue: QueueStatus | Away, workers: list[str] | Away, database: DatabaseStatus | Away
    ) -> list[str]:
        """Return what is wrong with clocks, each in one line, by the newest looks."""
        servers = {
            POSTGRES: None if isinstance(database, Away) else database.ahead_s,
            BROKER: None if isinstance(queue, Away) else queue.ahead_s,
        }
        return wrong_clocks(servers, {} if isinstance(workers, Away) else self._inspector.clocks)

    def _backfill_waits(self) -> bool:
        return isinstance(self._found_queue, QueueStatus) and self._found_queue.depth > 0

    def trouble(self, queue: QueueStatus | Away, workers: list[str] | Away, backfill: BackfillLooks) -> Trouble:
        """Return what keeps rows from being written, by the newest looks at the queues and at the workers."""
        waiting = Counter[str]()  # a table that takes no row is held in both lanes
        for each in (queue, backfill.queue):
            waiting.update({} if isinstance(each, Away) else each.held)
        if isinstance(workers, Away) or not (workers or backfill.workers):
            return trouble_of(waiting, [])
        return trouble_of(waiting, self._inspector.answers, self._inspector.namesakes)

    def backfill(
        self,
        queue: QueueStatus | Away,
        workers: list[str] | Away,
        feedback: FeedbackStatus | Away | None,
    ) -> BackfillLooks:
        """Return what was seen of the backfill lane, where these looks at the same parts were answered."""
        return BackfillLooks(
            queue if isinstance(queue, Away) else self._found_queue,
            workers if isinstance(workers, Away) else self._found_workers,
            feedback if isinstance(feedback, Away) else self._found_feedback,
        )

    def database(self) -> DatabaseStatus | Away:
        """Read the schema's revision, rows per second and dead letters."""
        try:
            return self._database.read()
        except DatabaseUnavailable as error:
            return _away("Postgres", error)

    def feedback(self, limit: int = RECENT_EVENTS) -> FeedbackStatus | Away | None:
        """Read the stream's newest events, and whether the receivers get them; None if no stream is configured."""
        if self._stream is None or self._backfill_stream is None:
            return None
        try:
            found = FeedbackStatus(self._stream.recent(limit), self._stream.reported())
        except RedisError as error:
            return _away("the feedback stream's Redis", error)
        try:
            self._found_feedback = FeedbackStatus(self._backfill_stream.recent(limit))
        except RedisError as error:
            self._found_feedback = _away("the feedback stream's Redis", error)
        return found

    @property
    def backfill_feedback(self) -> FeedbackStatus | Away | None:
        """What `feedback` has last read of the backfill lane's stream."""
        return self._found_feedback

    def close(self) -> None:
        """Close the connections."""
        self._inspector.close()
        self._database.close()
        if self._stream is not None:
            self._stream.close()
        if self._backfill_stream is not None:
            self._backfill_stream.close()


def _away(what: str, error: Exception) -> Away:
    kind = type(error.__cause__ or error).__name__
    full = refused_for_number(error)
    if full is not None:
        return Away(full, str(error))
    refusal = refusal_in(error)
    if refusal is not None:
        return Away(f"{what} refuses: {refusal}", str(error), refusal)
    return Away(f"{what} does not answer ({kind})", str(error) or kind)
