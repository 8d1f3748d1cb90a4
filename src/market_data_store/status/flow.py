"""What flows: rows by outcome and the time that messages take, from what the workers have counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from market_data_store.coordinator.answers import FoundWorker
from market_data_store.coordinator.counted import OUTCOMES, Counted, parts_of, plausible, quantile, since
from market_data_store.coordinator.gathering import Gathering

#: Seconds over which rates and latencies are measured: workers are asked about every two.
WINDOW_S = 6.0
#: A worker that is first seen in a later look may have started this long before the first one.
_YOUNG_S = 3.0
_LENGTH_S = 900.0
_MOST_POINTS = 1_000


class FlowPoint(NamedTuple):
    """The flow at one moment; None for what is unknown."""

    #: Seconds since 1970.
    ts: float
    #: Rows per second, in the order of `OUTCOMES`.
    rows_per_s: tuple[float, ...] | None
    #: From when a message of the live lane was enqueued to its commit, of half and of 99 % of them; None without any.
    p50_ms: float | None
    p99_ms: float | None


UNKNOWN = FlowPoint(0.0, None, None, None)


class Flowing(NamedTuple):
    """What is known of the flow at one moment."""

    newest: FlowPoint
    #: The last 15 minutes, oldest first.
    history: tuple[FlowPoint, ...]
    #: Rows per second of each worker, whatever became of them, by its instance.
    rows_per_s: Mapping[str, float]


NOTHING_KNOWN = Flowing(UNKNOWN, (), MappingProxyType({}))


class Flow:
    """Rates over the last seconds, and their last 15 minutes. Thread-safe."""

    def __init__(self) -> None:
        self._gathering = Gathering(young_s=_YOUNG_S)
        self._sums: deque[tuple[float, Counted]] = deque()
        #: The rows of each worker, by its instance: when, and how many.
        self._rows: dict[str, deque[tuple[float, float]]] = {}
        self._points: deque[FlowPoint] = deque(maxlen=_MOST_POINTS)
        self._lock = threading.Lock()

    def look(self, workers: Sequence[FoundWorker]) -> None:
        """Take note of what workers have answered just now; with none that says what it counts, nothing is known."""
        counting = [each for each in workers if each.answer is not None and each.answer.counted is not None]
        self._gathering.look(counting)
        now = time.monotonic()
        with self._lock:
            if not counting:
                self._sums.clear()
            else:
                _append(self._sums, now, self._gathering.total())
            self._rows = {
                answer.instance: _appended(self._rows.get(answer.instance), now, plausible(answer.counted) or {})
                for each in counting
                if (answer := each.answer) is not None and answer.instance is not None
            }
            point = self._measured()
            self._points.append(point)
            while self._points[0].ts < point.ts - _LENGTH_S:
                self._points.popleft()

    def seen(self) -> Flowing:
        """Return what is known as of the last look."""
        with self._lock:
            points = tuple(self._points)
            rates = {name: rate for name, seen in self._rows.items() if (rate := _rate(seen)) is not None}
        return Flowing(points[-1] if points else UNKNOWN, points, rates)

    def _measured(self) -> FlowPoint:
        if len(self._sums) < 2:
            return UNKNOWN._replace(ts=time.time())
        (then, before), (now, total) = self._sums[0], self._sums[-1]
        new = since(total, before)
        rows = dict.fromkeys(OUTCOMES, 0.0)
        for _, outcome, number in parts_of(new, "rows"):
            if outcome in rows:
                rows[outcome] += number
        p50, p99 = (quantile(new, "latency_s", share) for share in (0.5, 0.99))
        return FlowPoint(
            time.time(),
            tuple(number / (now - then) for number in rows.values()),
            None if p50 is None else p50 * 1e3,
            None if p99 is None else p99 * 1e3,
        )


def _append(seen: deque[tuple[float, Counted]], now: float, counted: Counted) -> None:
    seen.append((now, counted))
    while len(seen) > 2 and now - seen[1][0] >= WINDOW_S:
        seen.popleft()


def _appended(seen: deque[tuple[float, float]] | None, now: float, counted: Counted) -> deque[tuple[float, float]]:
    seen = deque[tuple[float, float]]() if seen is None else seen
    seen.append((now, sum(number for _, _, number in parts_of(counted, "rows"))))
    while len(seen) > 2 and now - seen[1][0] >= WINDOW_S:
        seen.popleft()
    return seen


def _rate(seen: deque[tuple[float, float]]) -> float | None:
    if len(seen) < 2:
        return None
    (then, before), (now, rows) = seen[0], seen[-1]
    return max(0.0, rows - before) / (now - then)
