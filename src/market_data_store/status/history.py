"""The queue's last 15 minutes: first the events of the feedback stream, then what this process has seen."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, FeedbackEvent

#: Seconds between the starts of two looks at the queue.
INTERVAL_S = 2.0
#: Number of events read from the stream: 15 minutes of a level that changes with each of the monitor's readings.
SEED_EVENTS = 2_000
_LENGTH_S = 900.0
#: Maximum number of points: one from the stream and one seen here for each interval.
_MAX = int(2 * _LENGTH_S / INTERVAL_S) + 2


class Point(NamedTuple):
    """The queue at one moment; `ts` is in seconds since 1970."""

    ts: float
    depth: int | None
    level: str


class History:
    """The points of the last 15 minutes, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=_MAX)
        self._lock = threading.Lock()
        #: Whether the stream's events have been added.
        self.seeded = False

    def points(self) -> list[Point]:
        """Return the points."""
        with self._lock:
            return list(self._points)

    def add(self, point: Point) -> None:
        """Append the newest point, and drop those that are too old."""
        with self._lock:
            self._points.append(point)
            while self._points[0].ts < point.ts - _LENGTH_S:
                self._points.popleft()

    def seed(self, events: list[FeedbackEvent], now: float) -> None:
        """Add the stream's events (newest first) from before this process's first point, at most one per interval."""
        with self._lock:
            first = self._points[0].ts if self._points else now
            thinned: dict[int, Point] = {}
            for event in events:
                if now - _LENGTH_S <= event.ts < first:
                    # While the broker does not answer, an event repeats the last known depth.
                    depth = None if event.reason == BROKER_UNREACHABLE else event.queue_size
                    point = Point(event.ts, depth, event.level.value)
                    thinned.setdefault(int(event.ts / INTERVAL_S), point)
            self._points.extendleft(sorted(thinned.values(), reverse=True))
            self.seeded = True
