"""The monitor: a loop that reads the queue's depth, computes the level and sends it by `backpressure_changed`.

Of several monitors only the leader publishes. The others read the queue too, and one of them takes over when the leader
dies (see `leadership`). The loop survives every failure of broker, Redis and receivers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from math import inf

from celery import Celery

from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BackpressureLevel, FeedbackEvent, backpressure_changed
from market_data_store.coordinator.leadership import Leadership
from market_data_store.coordinator.queue import QueueInspector, Reading, if_answered
from market_data_store.coordinator.watermarks import OK, LevelAndReason, Watermarks, level_of
from market_data_store.coordinator.workers import WorkerWatch
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import QUEUE

logger = logging.getLogger(__name__)


class Monitor:
    """Reads the queue every `interval_s`, and sends an event on each change of the level and every `heartbeat_s`.

    `on_reading` is called with every reading and its level, even in a monitor that does not lead.
    """

    def __init__(
        self,
        app: Celery,
        queue: str,
        *,
        capacity: int,
        watermarks: Watermarks,
        held_capacity: float = inf,
        interval_s: float = 0.5,
        heartbeat_s: float = 10.0,
        redis_url: str = "",
        namespace: str = "mdp",
        management_url: str = "",
        on_reading: Callable[[Reading, BackpressureLevel], None] | None = None,
    ) -> None:
        self._queue = queue
        self._inspector = QueueInspector(app, queue, management_url=management_url)
        self._workers = WorkerWatch(self._inspector)
        self._capacity = capacity
        self._watermarks = watermarks
        self._held_capacity = held_capacity
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._leadership = Leadership(redis_url, f"{namespace}:mds.monitor.{queue}") if redis_url else None
        self._on_reading = on_reading or (lambda *_: None)
        self._level = LevelAndReason(OK)
        self._depth = 0
        self._refusal: str | None = None
        self._is_away = False
        self._published: LevelAndReason | None = None
        self._published_at = float("-inf")

    @classmethod
    def from_settings(
        cls, app: Celery, settings: Settings, *, on_reading: Callable[[Reading, BackpressureLevel], None] | None = None
    ) -> Monitor:
        """Make the configured monitor of the store's queue."""
        return cls(
            app,
            QUEUE,
            capacity=settings.queue_capacity,
            watermarks=Watermarks.of(settings),
            held_capacity=settings.held_capacity,
            interval_s=settings.monitor_interval_s,
            heartbeat_s=settings.feedback_heartbeat_s,
            redis_url=settings.feedback_url,
            namespace=settings.namespace,
            management_url=settings.rabbitmq_management_url,
            on_reading=on_reading,
        )

    def run(self, stop: threading.Event) -> None:
        """Loop until `stop` is set."""
        self._workers.start()
        while not stop.is_set():
            started = time.monotonic()
            self.tick()
            stop.wait(max(0.0, self._interval_s - (time.monotonic() - started)))
        self._workers.stop()
        self._inspector.close()
        if self._leadership is not None:
            self._leadership.release()

    def tick(self) -> FeedbackEvent | None:
        """Read the queue once; returns the event that was sent, if any."""
        self._look()
        if self._leadership is not None and not self._leadership.held():
            self._published = None  # to publish at once when this monitor becomes the leader
            return None
        now = time.monotonic()  # after the reading, which may have taken seconds
        if self._level == self._published and now - self._published_at < self._heartbeat_s:
            return None
        event = FeedbackEvent.create(self._queue, self._depth, self._capacity, *self._level)
        self._published, self._published_at = self._level, now
        # Celery's signal catches and logs what a receiver raises.
        backpressure_changed.send(sender=self, event=event)
        return event

    def _look(self) -> None:
        reading = self._read()
        if reading.depth is not None:
            self._depth = reading.depth
            self._say(reading.refusal)
        self._level = level_of(self._level.level, reading, self._capacity, self._watermarks, self._held_capacity)
        self._on_reading(reading, self._level.level)

    def _say(self, refusal: str | None) -> None:
        """Log once when the broker begins to refuse writes, and once when it takes them again."""
        before, self._refusal = self._refusal, refusal
        if refusal and not before:
            logger.warning("The broker takes no write: %s", refusal)
        elif before and not refusal:
            logger.info("The broker takes writes again")

    def _say_away(self, error: BrokerUnavailable | None) -> None:
        """Log once when the broker stops to answer, with the reason, and once when it answers again."""
        before, self._is_away = self._is_away, error is not None
        if error is not None and not before:
            logger.warning("The broker does not answer: %s", error)
        elif error is None and before:
            logger.info("The broker answers again")

    def _read(self) -> Reading:
        workers, troubles = self._workers.count, self._workers.troubles
        try:
            depth = self._inspector.depth()
        except BrokerUnavailable as error:
            self._say_away(error)
            return Reading(None, None, None)
        self._say_away(None)
        inspector = self._inspector
        reserved, held = if_answered(inspector.reserved), if_answered(inspector.held)
        refusal, malformed = if_answered(inspector.refusal), if_answered(inspector.malformed)
        return Reading(depth, reserved, workers, held, refusal, troubles, malformed)
