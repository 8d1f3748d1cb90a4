"""Finds the workers that consume the queue, by the rule that one missed answer does not count.

A busy worker may need longer for its answer than the second that it has. Only the second miss in a row means that there
are no workers.
"""

from __future__ import annotations

import logging
import threading

from market_data_store.coordinator.answers import counted_troubles
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Seconds between the end of one count and the start of the next.
_INTERVAL_S = 1.0


class Workers:
    """The workers that consume the inspector's queue. Not thread-safe."""

    def __init__(self, inspector: QueueInspector) -> None:
        self._inspector = inspector
        self._known: list[str] | None = None
        self._missed = False

    def look(self) -> list[str]:
        """Return their names; takes a second, or two if the first call finds none. Raises `BrokerUnavailable`."""
        try:
            found = self._inspector.workers()
            if not found and self._known is None:
                found = self._inspector.workers()  # no earlier answer can bridge a miss, so ask again at once
        except BrokerUnavailable:
            self._known, self._missed = None, False
            raise
        if not found and self._known and not self._missed:
            self._missed = True
            return self._known
        self._known, self._missed = found, False
        return found


class WorkerWatch:
    """Counts the workers in a thread, because a count takes a second and the monitor's loop must not wait."""

    def __init__(self, inspector: QueueInspector) -> None:
        self._inspector = inspector
        self._workers = Workers(inspector)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-watch", daemon=True)
        #: How many of them are in trouble, by what is wrong; None until it is known.
        self.troubles: dict[str, int] | None = None
        #: Number of workers; None until it is known, and while the broker does not answer.
        self.count: int | None = None

    def start(self) -> None:
        """Start counting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.count = len(self._workers.look())
                self.troubles = counted_troubles(self._inspector.answers if self.count else ())
            except BrokerUnavailable:
                self.count = self.troubles = None
            except Exception as error:  # noqa: BLE001  # without the thread nobody notices that workers are gone
                logger.error("The workers' answers cannot be read (%s)", type(error).__name__)
                self.count = self.troubles = None
            self._stop.wait(_INTERVAL_S)
