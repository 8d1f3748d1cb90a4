"""How a producer slows down. Pure, so that the simulation in `benchmarks` runs the code that producers run.

The producer reads the queue's depth at most four times a second and computes its level from it. In between it adds
the messages that it sent itself; with a single producer this estimate is never too low. Halfway between hard and full
the producer stops until it has read the depth again, so that it cannot pass the capacity between two readings.
"""

from __future__ import annotations

from dataclasses import dataclass

from market_data_core.telemetry import BackpressureLevel

from market_data_store.coordinator.watermarks import HARD, OK, SOFT, Watermarks

#: Seconds between two readings of the depth.
LOOK_INTERVAL_S = 0.25
#: At soft, the longest wait before a message that halves the rate, in seconds.
_MAX_PAUSE_S = 1.0


@dataclass(slots=True)
class Throttle:
    """One producer's view of the queue. Times are seconds of any one clock; depth and capacity are in messages."""

    capacity: int
    watermarks: Watermarks
    look_interval_s: float = LOOK_INTERVAL_S
    level: BackpressureLevel = OK
    #: The estimate: the depth at the last reading and the messages sent since.
    depth: int = 0
    _looked_at: float = float("-inf")
    _sent_at: float = float("inf")

    @property
    def must_stop(self) -> bool:
        """True if sending must stop until the depth has been read again."""
        return self.level is HARD or self.depth >= self.capacity * (1 + self.watermarks.hard_from) / 2

    def wants_look(self, now: float) -> bool:
        """Whether to read the depth before the next message."""
        return now - self._looked_at >= self.look_interval_s

    def looked(self, now: float, depth: int) -> None:
        """Take in the depth that the broker answered."""
        self._looked_at = now
        self.depth = depth
        self.level = self.watermarks.level(self.level, depth / self.capacity)

    def pause_s(self, now: float) -> float:
        """Seconds to wait before the next message: 0 at ok.

        At soft it is the time since the producer's last message, which halves its rate. At hard it is the time until
        the next reading.
        """
        if self.must_stop:
            return max(0.0, self._looked_at + self.look_interval_s - now)
        if self.level is SOFT:
            return max(0.0, min(now - self._sent_at, _MAX_PAUSE_S))
        return 0.0

    def sent(self, now: float) -> None:
        """Count a message that was sent."""
        self._sent_at = now
        self.depth += 1
