"""How a producer slows down: pure, so that the simulation in `benchmarks` runs the very code that producers run.

The producer looks at the queue's depth at most four times a second, and takes its level from that. In between it adds
what it sent itself, which for a single producer is never less than the truth: halfway between hard and full it waits
for the next look, so that it cannot run past the capacity between two.
"""

from __future__ import annotations

from dataclasses import dataclass

from market_data_core.telemetry import BackpressureLevel

from market_data_store.coordinator.watermarks import HARD, OK, SOFT, Watermarks

#: Seconds between two looks at the broker.
LOOK_INTERVAL_S = 0.25
#: At soft, a message waits at most this long for the sake of half the rate.
_MAX_PAUSE_S = 1.0


@dataclass(slots=True)
class Throttle:
    """One producer's view of the queue. Times are seconds of any one clock, depths and capacity messages."""

    capacity: int
    watermarks: Watermarks
    look_interval_s: float = LOOK_INTERVAL_S
    level: BackpressureLevel = OK
    #: As far as known: what the broker said, and what was sent since.
    depth: int = 0
    _looked_at: float = float("-inf")
    _sent_at: float = float("inf")

    @property
    def holds(self) -> bool:
        """Whether no message may go before another look."""
        return self.level is HARD or self.depth >= self.capacity * (1 + self.watermarks.hard_from) / 2

    def wants_look(self, now: float) -> bool:
        """Whether the depth is to be asked for before the next message."""
        return now - self._looked_at >= self.look_interval_s

    def looked(self, now: float, depth: int) -> None:
        """The broker said so many messages wait."""
        self._looked_at = now
        self.depth = depth
        self.level = self.watermarks.level(self.level, depth / self.capacity)

    def pause_s(self, now: float) -> float:
        """Seconds to wait before the next message may go: 0 at ok.

        At soft, as long as the producer itself took since its last message, which halves its rate. At hard, until the
        next look.
        """
        if self.holds:
            return max(0.0, self._looked_at + self.look_interval_s - now)
        if self.level is SOFT:
            return max(0.0, min(now - self._sent_at, _MAX_PAUSE_S))
        return 0.0

    def sent(self, now: float) -> None:
        """A message went."""
        self._sent_at = now
        self.depth += 1
