"""Computes the level in processes other than the monitor, always from their own looks."""

from __future__ import annotations

from market_data_store.config import Settings
from market_data_store.coordinator.queue import Reading
from market_data_store.coordinator.watermarks import OK, LevelAndReason, Watermarks, level_of
from market_data_store.protocol import QUEUE
from market_data_store.status.looks import Away, FeedbackStatus, Looks


class Levels:
    """Turns looks at one lane's queue into levels.

    Hysteresis needs the previous level: that of the monitor's newest event while it is fresh, otherwise this process's
    last one. So the result agrees with the monitor's whenever both see the same state of the queue. If they differ, the
    looks were made at different moments. Then this process's level is shown, as it fits everything shown with it.
    """

    def __init__(self, settings: Settings, queue: str = QUEUE) -> None:
        self._capacity = settings.capacities[queue]
        self._held_capacity = settings.held_capacity
        self._watermarks = Watermarks.of(settings)
        self._heartbeat_s = settings.feedback_heartbeat_s
        self._last = OK

    def at(self, depth: int | None, looks: Looks, now: float) -> LevelAndReason:
        """Return the level at this depth (None: the broker does not answer) at `now` (seconds since 1970).

        Thread-safe, since `level_of` is idempotent.
        """
        told = looks.feedback.fresh(now, self._heartbeat_s) if isinstance(looks.feedback, FeedbackStatus) else None
        workers = None if isinstance(looks.workers, Away) else len(looks.workers)
        previous = self._last if told is None else told.level
        held = None if isinstance(looks.queue, Away) else looks.queue.held
        is_full = not isinstance(looks.database, Away) and looks.database.is_full
        reading = Reading(depth, None, workers, held, is_database_full=is_full)
        found = level_of(previous, reading, self._capacity, self._watermarks, self._held_capacity)
        self._last = found.level
        return found
