"""Looks at the store's parts every two seconds from threads of its own, so that who asks waits for none of them.

Each part has its own thread: one that hangs stops no other. The threads start when somebody asks for the first time,
and so in the process that serves, not in the one that gunicorn forks it from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from market_data_core.telemetry import HealthStatus

from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, BackpressureLevel, FeedbackEvent
from market_data_store.status.database import Database
from market_data_store.status.reader import Queue, StatusReader

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Between the starts of two looks.
INTERVAL_S = 2.0
#: What is older has no worth: a part that hangs counts as one that does not answer.
_STALE_S = 10.0
#: How long the first who asks waits for the first looks.
_FIRST_WAIT_S = 1.0
#: How long the first look at the queue waits for the monitor's word.
_FIRST_EVENTS_WAIT_S = 0.5
_HISTORY_S = 900.0
#: Points: what was seeded, and what was seen since, at one in `INTERVAL_S` each.
_HISTORY_MAX = int(2 * _HISTORY_S / INTERVAL_S) + 2
#: Events that the seed is taken from: 15 minutes of a level that changes with each of the monitor's looks.
_SEED_EVENTS = 2_000


class Point(NamedTuple):
    """The queue at a moment (epoch seconds)."""

    ts: float
    depth: int | None
    level: str


@dataclass(frozen=True, slots=True)
class QueueLook:
    """The queue and the level that follows from it."""

    queue: Queue | None
    level: BackpressureLevel
    reason: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known now; None where it could not be found out."""

    queue: QueueLook | None
    #: Seconds since the look at the queue; None when there was none.
    age_s: float | None
    workers: list[str] | None
    database: Database | None
    events: list[FeedbackEvent] | None
    health: HealthStatus | None
    #: 15 minutes, oldest first.
    history: list[Point]


class Sampler:
    """The newest sample, at no cost for broker and database. For any number of threads."""

    def __init__(self, settings: Settings, health: Callable[[], HealthStatus]) -> None:
        self._settings = settings
        self._check = health
        self._lock = threading.Lock()
        self._looks: _Looks | None = None

    def newest(self) -> Sample:
        """What the newest looks found; only the first call waits, for at most a second."""
        with self._lock:
            if self._looks is None:
                self._looks = _Looks(self._settings, self._check)
            looks = self._looks
        return looks.sample()

    def close(self) -> None:
        """End the threads, as soon as their looks end, and give their connections back."""
        with self._lock:
            looks, self._looks = self._looks, None
        if looks is not None:
            looks.close()


class _Looks:
    def __init__(self, settings: Settings, health: Callable[[], HealthStatus]) -> None:
        self._stack = ExitStack()
        self._reader = StatusReader(settings, self._stack)
        self._history: deque[Point] = deque(maxlen=_HISTORY_MAX)
        self._history_lock = threading.Lock()
        self._seeded = False
        self._started = time.monotonic()
        self._workers = _Repeated("workers", self._reader.workers)
        self._database = _Repeated("database", self._reader.database)
        self._events = _Repeated("feedback", self._look_at_events)
        self._health = _Repeated("health", health)
        self._queue = _Repeated("queue", self._look_at_queue)
        self._all = (self._workers, self._database, self._events, self._health, self._queue)
        for each in self._all:
            each.thread.start()

    def sample(self) -> Sample:
        until = self._started + _FIRST_WAIT_S
        for each in (self._queue, self._events, self._database, self._health):
            each.looked.wait(max(0.0, until - time.monotonic()))
        with self._history_lock:
            history = list(self._history)
        return Sample(
            queue=self._queue.value(),
            age_s=self._queue.age_s(),
            workers=self._workers.value(),
            database=self._database.value(),
            events=self._events.value(),
            health=self._health.value(),
            history=history,
        )

    def close(self) -> None:
        for each in self._all:
            each.stop.set()
        for each in self._all:
            each.thread.join(_STALE_S)
        self._stack.close()

    def _look_at_queue(self) -> QueueLook:
        queue = self._reader.queue()
        # The monitor's word counts, and at the start it may come a moment later than the queue's depth.
        self._events.looked.wait(max(0.0, self._started + _FIRST_EVENTS_WAIT_S - time.monotonic()))
        level, reason = self._reader.level(queue, self._workers.value(), self._events.value())
        now = time.time()
        with self._history_lock:
            self._history.append(Point(now, None if queue is None else queue.depth, level.value))
            while self._history[0].ts < now - _HISTORY_S:
                self._history.popleft()
        return QueueLook(queue, level, reason)

    def _look_at_events(self) -> list[FeedbackEvent] | None:
        if self._seeded:
            return self._reader.events()
        events = self._reader.events(_SEED_EVENTS)
        if events is None:
            return None
        self._seed(events)
        return events[:20]

    def _seed(self, events: list[FeedbackEvent]) -> None:
        """Put what the stream remembers before what was seen here."""
        now = time.time()
        with self._history_lock:
            first = self._history[0].ts if self._history else now
            # The newest in each interval; events come newest first.
            thinned: dict[int, Point] = {}
            for event in events:
                if now - _HISTORY_S <= event.ts < first:
                    # Of a broker that does not answer the event repeats the last depth that was known.
                    depth = None if event.reason == BROKER_UNREACHABLE else event.queue_size
                    point = Point(event.ts, depth, event.level.value)
                    thinned.setdefault(int(event.ts / INTERVAL_S), point)
            self._history.extendleft(sorted(thinned.values(), reverse=True))
        self._seeded = True


class _Repeated(Generic[T]):
    """One look, again and again in a thread, and the newest that it found."""

    def __init__(self, name: str, look: Callable[[], T]) -> None:
        self._look = look
        self._found: tuple[float, T | None] | None = None
        self._erring = False
        #: Set once the first look has ended.
        self.looked = threading.Event()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"status-{name}", daemon=True)

    def value(self) -> T | None:
        """What the last look found, unless that is too long ago."""
        found = self._found
        return None if found is None or time.monotonic() - found[0] > _STALE_S else found[1]

    def age_s(self) -> float | None:
        """How long ago the last look ended."""
        found = self._found
        return None if found is None else time.monotonic() - found[0]

    def _run(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                value: T | None = self._look()
                self._erring = False
            except Exception:  # the edge of a thread: the page goes on without this part
                if not self._erring:
                    logger.exception("The status page cannot look: %s", self.thread.name)
                self._erring, value = True, None
            self._found = time.monotonic(), value
            self.looked.set()
            self.stop.wait(max(0.0, INTERVAL_S - (time.monotonic() - started)))
