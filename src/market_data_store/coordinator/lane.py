"""A lane as the monitor sees it: its depth and level, and which event of it is due."""

from __future__ import annotations

from math import inf

from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.queue import Reading
from market_data_store.coordinator.watermarks import OK, LevelAndReason, Watermarks, level_of


class Lane:
    """The state of one queue between two readings. Not thread-safe."""

    def __init__(self, queue: str, capacity: int, watermarks: Watermarks, held_capacity: float = inf) -> None:
        self.queue = queue
        self.level = LevelAndReason(OK)
        self._capacity = capacity
        self._watermarks = watermarks
        self._held_capacity = held_capacity
        self._depth = 0
        self._published: LevelAndReason | None = None
        self._published_at = float("-inf")

    def see(self, reading: Reading) -> None:
        """Take over a reading. While the depth is unknown, events repeat the last one."""
        if reading.depth is not None:
            self._depth = reading.depth
        self.level = level_of(self.level.level, reading, self._capacity, self._watermarks, self._held_capacity)

    def publish_at_once(self) -> None:
        """Let an event be due, whatever was published before."""
        self._published = None

    def due(self, now: float, heartbeat_s: float) -> FeedbackEvent | None:
        """Return the event to send at `now` (monotonic seconds): of a new level, or the next heartbeat; else None."""
        if self.level == self._published and now - self._published_at < heartbeat_s:
            return None
        self._published, self._published_at = self.level, now
        return FeedbackEvent.create(self.queue, self._depth, self._capacity, *self.level)
