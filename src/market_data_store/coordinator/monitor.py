"""The monitor: a loop that reads each lane's depth, computes its level and sends it by `backpressure_changed`.

Of several monitors only the leader publishes. The others read the queues too, and one of them takes over when the
leader dies (see `leadership`). The loop survives every failure of broker, Redis and receivers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from types import MappingProxyType

from celery import Celery

from market_data_store.causes import Cause
from market_data_store.config import Settings
from market_data_store.coordinator.clock_watch import ClockWatch
from market_data_store.coordinator.feedback import (
    BROKER_UNREACHABLE,
    NO_WORKERS,
    BackpressureLevel,
    FeedbackEvent,
    backpressure_changed,
)
from market_data_store.coordinator.lane import Lane
from market_data_store.coordinator.leadership import Leadership
from market_data_store.coordinator.queue import QueueInspector, Reading, if_answered
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.coordinator.workers import WorkerWatch
from market_data_store.errors import BrokerUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

logger = logging.getLogger(__name__)

#: Gets the queue, what was read of it, and its level.
OnReading = Callable[[str, Reading, BackpressureLevel], None]


class Monitor:
    """Reads the queue every `interval_s`, and sends an event on each change of the level and every `heartbeat_s`.

    `others` are more queues to watch, with their capacities: each has a level and events of its own.
    `is_database_full` says whether Postgres has no room for long, which makes every level hard. `on_reading` is called
    with every queue, reading and level, even in a monitor that does not lead.
    """

    def __init__(
        self,
        app: Celery,
        queue: str,
        *,
        capacity: int,
        others: Mapping[str, int] = MappingProxyType({}),
        watermarks: Watermarks,
        held_capacity: float = inf,
        interval_s: float = 0.5,
        heartbeat_s: float = 10.0,
        redis_url: str = "",
        namespace: str = "mdp",
        management_url: str = "",
        is_database_full: Callable[[], bool] = lambda: False,
        clocks: ClockWatch | None = None,
        on_reading: OnReading | None = None,
    ) -> None:
        self._inspector = QueueInspector(app, queue, management_url=management_url)
        self._workers = WorkerWatch(self._inspector, *others, clocks=clocks)
        capacities = {queue: capacity, **others}
        self._lanes = [Lane(each, capacities[each], watermarks, held_capacity) for each in capacities]
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._leadership = Leadership(redis_url, f"{namespace}:mds.monitor.{queue}") if redis_url else None
        self._is_database_full = is_database_full
        self._on_reading = on_reading or (lambda *_: None)
        self._refused, self._away, self._unserved = Repeated(logger), Repeated(logger), Repeated(logger)

    @classmethod
    def from_settings(
        cls,
        app: Celery,
        settings: Settings,
        *,
        is_database_full: Callable[[], bool] = lambda: False,
        clocks: ClockWatch | None = None,
        on_reading: OnReading | None = None,
    ) -> Monitor:
        """Make the configured monitor of both lanes."""
        return cls(
            app,
            QUEUE,
            capacity=settings.queue_capacity,
            others={BACKFILL_QUEUE: settings.backfill_capacity},
            watermarks=Watermarks.of(settings),
            held_capacity=settings.held_capacity,
            interval_s=settings.monitor_interval_s,
            heartbeat_s=settings.feedback_heartbeat_s,
            redis_url=settings.feedback_url,
            namespace=settings.namespace,
            management_url=settings.rabbitmq_management_url,
            is_database_full=is_database_full,
            clocks=clocks,
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

    def tick(self) -> list[FeedbackEvent]:
        """Read each queue once; returns the events that were sent."""
        self._look()
        if self._leadership is not None and not self._leadership.held():
            for lane in self._lanes:
                lane.publish_at_once()  # when this monitor becomes the leader
            return []
        now = time.monotonic()  # after the readings, which may have taken seconds
        events = [event for lane in self._lanes if (event := lane.due(now, self._heartbeat_s)) is not None]
        for event in events:
            # Celery's signal catches and logs what a receiver raises.
            backpressure_changed.send(sender=self, event=event)
        return events

    def _look(self) -> None:
        away: BrokerUnavailable | None = None
        for lane in self._lanes:
            reading = Reading(None, None, None)
            if away is None:  # what does not answer about one queue is not asked about the next
                try:
                    reading = self._read(lane.queue)
                except BrokerUnavailable as error:
                    away = error
            lane.see(reading._replace(is_database_full=self._is_database_full()))
            self._on_reading(lane.queue, reading, lane.level.level)
        self._say_away(away)
        self._say_unserved(self._lanes[0].level.reason)

    def _say(self, refusal: str | None) -> None:
        """Note whether the broker refuses writes."""
        if refusal:
            self._refused.happened(f"The broker takes no write: {refusal}", cause=Cause.BROKER_TAKES_NO_WRITE)
        else:
            self._refused.over("The broker takes writes again")

    def _say_unserved(self, reason: str | None) -> None:
        """Note whether live rows wait for a worker, by the reason of their level."""
        if reason == NO_WORKERS:
            self._unserved.happened("Messages wait and no worker takes them", cause=Cause.NO_WORKERS)
        elif reason != BROKER_UNREACHABLE:  # else nothing is known of the workers
            self._unserved.over("Workers take the messages again, or none waits")

    def _say_away(self, error: BrokerUnavailable | None) -> None:
        """Note whether the broker answers, or why it does not."""
        if error is not None:
            self._away.happened(f"The broker does not answer: {error}", kind="away", cause=Cause.BROKER_DOWN)
        else:
            self._away.over("The broker answers again")

    def _read(self, queue: str) -> Reading:
        inspector, workers = self._inspector, self._workers.counts.get(queue)
        troubles = self._workers.troubles
        depth = inspector.depth(queue)
        reserved, held = if_answered(partial(inspector.reserved, queue)), if_answered(partial(inspector.held, queue))
        if queue != inspector.queue:  # the rest is of the broker as a whole
            return Reading(depth, reserved, workers, held)
        refusal, malformed = if_answered(inspector.refusal), if_answered(inspector.malformed)
        self._say(refusal)
        return Reading(depth, reserved, workers, held, refusal, troubles, malformed)
