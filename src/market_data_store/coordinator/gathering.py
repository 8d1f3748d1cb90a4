"""Sums of what all workers have counted, which do not fall when a worker ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from market_data_store.coordinator.answers import FoundWorker
from market_data_store.coordinator.counted import Counted, add, bounded, plausible, since

_YOUNG_S = 60.0
#: The most workers that are remembered. Of those that have ended, the first seen are forgotten first.
_MOST_REMEMBERED = 2_000


class Gathering:
    """Adds up what workers answer. Thread-safe.

    What a worker has counted before it is seen first is added if it has started at most `young_s` before the sums: an
    older one was seen by whoever kept sums before, such as this process before its restart.
    """

    def __init__(self, *, young_s: float = _YOUNG_S) -> None:
        self._young_s = young_s
        self._began = time.monotonic()
        #: What each worker has said last, by its instance.
        self._said: dict[str, Counted] = {}
        self._labels: set[str] = set()
        self._total: Counted = {}
        self._lock = threading.Lock()

    def total(self) -> Counted:
        """Return the sums."""
        with self._lock:
            return dict(self._total)

    def look(self, workers: Iterable[FoundWorker], *, adds: bool = True) -> None:
        """Add what these workers have counted since they were seen last; with `adds` false, only take note of it.

        Workers that do not say what they have counted, as those before 0.5, are left out.
        """
        with self._lock:
            for worker in workers:
                answer = worker.answer
                counted = None if answer is None else plausible(answer.counted)
                if answer is None or answer.instance is None or counted is None:
                    continue
                before = self._said.pop(answer.instance, None)
                if before is None:
                    is_young = (answer.up_s or 0.0) <= time.monotonic() - self._began + self._young_s
                    before = {} if is_young else counted
                if adds:
                    add(self._total, bounded(since(counted, before), self._labels))
                self._said[answer.instance] = counted
            while len(self._said) > _MOST_REMEMBERED:
                del self._said[next(iter(self._said))]
