"""The loop that turns the queue's depth into a level and tells of it: depth -> level -> `backpressure_changed`.

Of several monitors one leads, by a lock in Redis where there is one; the others watch, and one of them takes over
within `LEASE_S` and a tick of the leader's death. Nothing that fails comes out of the loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BackpressureLevel, FeedbackEvent, backpressure_changed
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.watermarks import HARD, OK, Watermarks
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import QUEUE

logger = logging.getLogger(__name__)

#: Seconds for which a leader leads without saying so again.
LEASE_S = 3.0
#: Between two looks for workers, in seconds; one takes a second itself.
_PING_INTERVAL_S = 1.0
#: A worker that is busy may miss a ping; so many in a row mean that there is none.
_MISSES = 2

BROKER_UNREACHABLE = "broker_unreachable"
NO_WORKERS = "no_workers"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look found; None where it could not be found out."""

    depth: int | None
    reserved: int | None
    workers: int | None


class Monitor:
    """Looks at the queue every `interval_s`, and sends an event on change and every `heartbeat_s`.

    `on_reading` is called with every reading and the level it gives, also by a monitor that does not lead.
    """

    def __init__(
        self,
        app: Celery,
        queue: str,
        *,
        capacity: int,
        watermarks: Watermarks,
        interval_s: float = 0.5,
        heartbeat_s: float = 10.0,
        redis_url: str = "",
        namespace: str = "mdp",
        management_url: str = "",
        on_reading: Callable[[Reading, BackpressureLevel], None] | None = None,
    ) -> None:
        self._queue = queue
        self._inspector = QueueInspector(app, queue, management_url=management_url)
        self._workers = _WorkerWatch(QueueInspector(app, queue))
        self._capacity = capacity
        self._watermarks = watermarks
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._leadership = _Leadership(redis_url, f"{namespace}:mds.monitor.{queue}") if redis_url else None
        self._on_reading = on_reading or (lambda *_: None)
        self._level = OK
        self._depth = 0
        self._told: tuple[BackpressureLevel, str | None] | None = None
        self._told_at = float("-inf")

    @classmethod
    def from_settings(
        cls, app: Celery, settings: Settings, *, on_reading: Callable[[Reading, BackpressureLevel], None] | None = None
    ) -> Monitor:
        """The configured monitor of the store's queue."""
        return cls(
            app,
            QUEUE,
            capacity=settings.queue_capacity,
            watermarks=Watermarks.of(settings),
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
        """One look; returns the event that was sent, if one was."""
        reason = self._look()
        if self._leadership is not None and not self._leadership.held():
            self._told = None  # the leader tells; should this one come to lead, it begins by telling
            return None
        now = time.monotonic()  # after the look, which may have taken its deadline
        if (self._level, reason) == self._told and now - self._told_at < self._heartbeat_s:
            return None
        event = FeedbackEvent.create(self._queue, self._depth, self._capacity, self._level, reason)
        self._told, self._told_at = (self._level, reason), now
        # Celery's signal catches what a receiver raises.
        backpressure_changed.send(sender=self, event=event)
        return event

    def _look(self) -> str | None:
        workers = self._workers.count
        try:
            self._depth = self._inspector.depth()
        except BrokerUnavailable:
            self._level = HARD
            self._on_reading(Reading(None, None, None), HARD)
            return BROKER_UNREACHABLE
        try:
            reserved = self._inspector.reserved()
        except BrokerUnavailable:
            reserved = None
        if self._depth > 0 and workers == 0:
            self._level, reason = HARD, NO_WORKERS
        else:
            self._level, reason = self._watermarks.level(self._level, self._depth / self._capacity), None
        self._on_reading(Reading(self._depth, reserved, workers), self._level)
        return reason


class _WorkerWatch:
    """Counts the workers from a thread of its own: a ping takes a second, and the loop has half of one."""

    def __init__(self, inspector: QueueInspector) -> None:
        self._inspector = inspector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-watch", daemon=True)
        #: None until it is known, and while the broker does not say.
        self.count: int | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        misses = 0
        while not self._stop.is_set():
            try:
                found = len(self._inspector.workers())
            except BrokerUnavailable:
                self.count = None
            else:
                misses = 0 if found else misses + 1
                if found or misses >= _MISSES:
                    self.count = found
            self._stop.wait(_PING_INTERVAL_S)


class _Leadership:
    """A lease in Redis. While Redis is away everyone leads: to be told twice is better than not at all."""

    def __init__(self, url: str, name: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
        self._lock: Lock = self._redis.lock(name, timeout=LEASE_S, blocking=False, thread_local=False)

    def held(self) -> bool:
        """Whether this monitor leads now; renews the lease."""
        try:
            if self._lock.local.token is not None:
                try:
                    return bool(self._lock.reacquire())
                except LockError:  # the lease ran out, and may be another's
                    self._lock.local.token = None
            return bool(self._lock.acquire())
        except RedisError:
            return True

    def release(self) -> None:
        """Let another lead at once."""
        try:
            if self._lock.local.token is not None:
                self._lock.release()
        except (LockError, RedisError):
            pass  # it runs out by itself
        self._redis.close()
