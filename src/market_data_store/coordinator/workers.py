"""Finds the workers that consume a queue, by the rule that one missed answer does not count.

A busy worker may need longer for its answer than the second that it has. Only the second miss in a row means that there
are no workers. The rule holds for each queue by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from market_data_store.coordinator.answers import counted_troubles
from market_data_store.coordinator.clock_offsets import ahead_s
from market_data_store.coordinator.clock_watch import ClockWatch
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.errors import BrokerUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import LANES

logger = logging.getLogger(__name__)

#: Seconds between the end of one count and the start of the next.
_INTERVAL_S = 1.0


def unserved(queue: str) -> str:
    """Say that no worker takes a lane's messages, and what to do."""
    return f"no worker takes {queue}; start one without -Q, or with -Q {','.join(LANES.values())}"


class Workers:
    """The workers that consume the inspector's queue, and those that consume each of `others`. Not thread-safe.

    `asks_again` says whether a second question is worth its second if none but workers of `others` are missing.
    """

    def __init__(self, inspector: QueueInspector, *others: str, asks_again: Callable[[], bool] = lambda: True) -> None:
        self._inspector = inspector
        self._others = others
        self._asks_again = asks_again
        self._known: dict[str, list[str]] = {}
        self._missed: set[str] = set()

    def look(self) -> list[str]:
        """Return the names of those of the inspector's queue; see `by_queue`."""
        return self.by_queue()[self._inspector.queue]

    def by_queue(self) -> dict[str, list[str]]:
        """Return their names by queue; takes a second, or two if the first call finds none for one of the queues.

        Raises `BrokerUnavailable`.
        """
        try:
            found = self._inspector.consumers(*self._others)
            new = {queue for queue, names in found.items() if not names and queue not in self._known}
            if self._inspector.queue in new or (new and self._asks_again()):
                again = self._inspector.consumers(*self._others)  # no earlier answer can bridge a miss: ask at once
                found = {queue: names or again[queue] for queue, names in found.items()}
                new = set()
        except BrokerUnavailable:
            self._known, self._missed = {}, set()
            raise
        return {queue: names if queue in new else self._settled(queue, names) for queue, names in found.items()}

    def _settled(self, queue: str, found: list[str]) -> list[str]:
        known = self._known.get(queue)
        if not found and known and queue not in self._missed:
            self._missed.add(queue)
            return known
        self._known[queue] = found
        self._missed.discard(queue)
        return found


class WorkerWatch:
    """Counts the workers in a thread, because a count takes a second and the monitor's loop must not wait."""

    def __init__(self, inspector: QueueInspector, *others: str, clocks: ClockWatch | None = None) -> None:
        self._inspector = inspector
        self._clocks = clocks
        self._workers = Workers(inspector, *others)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-watch", daemon=True)
        #: How many of them are in trouble, by what is wrong; None until it is known.
        self.troubles: dict[str, int] | None = None
        self._unread = Repeated(logger)
        #: Number of workers by queue; empty until it is known, and while the broker does not answer.
        self.counts: dict[str, int] = {}

    def start(self) -> None:
        """Start counting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting."""
        self._stop.set()
        self._thread.join(5.0)

    def _look_at_clocks(self) -> None:
        if self._clocks is not None:
            broker = if_answered(partial(ahead_s, self._inspector.time)) if self._inspector.tells_time else None
            self._clocks.see_broker(broker, self._inspector.clocks if any(self.counts.values()) else {})

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.counts = {queue: len(names) for queue, names in self._workers.by_queue().items()}
                self.troubles = counted_troubles(self._inspector.answers if any(self.counts.values()) else ())
                self._look_at_clocks()
                self._unread.over("The workers' answers can be read again")
            except BrokerUnavailable:
                self.counts, self.troubles = {}, None
            except Exception as error:  # noqa: BLE001  # without the thread nobody notices that workers are gone
                self._unread.happened(f"The workers' answers cannot be read ({type(error).__name__})")
                self.counts, self.troubles = {}, None
            self._stop.wait(_INTERVAL_S)
