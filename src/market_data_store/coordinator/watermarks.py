"""Computes the backpressure level from a reading of the queue, with hysteresis. Pure: no clock, no server.

`level_of` is the only computation of the level and its reason: everyone who shows or publishes a level calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from market_data_core.telemetry import BackpressureLevel

from market_data_store.config import Settings
from market_data_store.config.checks import out_of_order
from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, DATABASE_FULL, DATASET_HELD, NO_WORKERS
from market_data_store.coordinator.queue import Reading
from market_data_store.errors import ConfigurationError

OK, SOFT, HARD = BackpressureLevel.ok, BackpressureLevel.soft, BackpressureLevel.hard


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """The shares of capacity at which the level changes; the falling ones are lower, so that the level does not flap.

    Raises `ConfigurationError` when they are not in order.
    """

    #: Rising: above this share the level is soft ...
    soft_above: float = 0.5
    #: ... and from this one on it is hard.
    hard_from: float = 0.8
    #: Falling: below this share hard becomes soft ...
    hard_until: float = 0.65
    #: ... and at this one or below soft becomes ok.
    ok_at: float = 0.4

    def __post_init__(self) -> None:
        """Check the order."""
        if wrong := [*out_of_order(self.ok_at, self.soft_above, self.hard_from, self.hard_until)]:
            raise ConfigurationError("\n".join(wrong))

    @classmethod
    def of(cls, settings: Settings) -> Watermarks:
        """Return the configured watermarks."""
        return cls(
            soft_above=settings.soft_above,
            hard_from=settings.hard_from,
            hard_until=settings.hard_until,
            ok_at=settings.ok_at,
        )

    def level(self, previous: BackpressureLevel, utilization: float) -> BackpressureLevel:
        """Return the level at this share of capacity (0 is empty, 1 is full, more is possible) after `previous`.

        A jump across several watermarks gives the level at its end.
        """
        if utilization >= self.hard_from:
            return HARD
        if utilization <= self.ok_at:
            return OK
        if previous is HARD and utilization >= self.hard_until:
            return HARD
        if previous is OK and utilization <= self.soft_above:
            return OK
        return SOFT


class LevelAndReason(NamedTuple):
    """A level, and its reason if the depth does not explain it."""

    level: BackpressureLevel
    reason: str | None = None

    def __str__(self) -> str:
        """Return `hard (no_workers)`, or only the level if it has no reason."""
        return f"{self.level.value} ({self.reason})" if self.reason else self.level.value


def level_of(
    previous: BackpressureLevel,
    reading: Reading,
    capacity: int,
    watermarks: Watermarks,
    held_capacity: float = inf,
) -> LevelAndReason:
    """Return the level for a reading of the queue, after `previous`.

    Idempotent: the same reading gives the same level again. An unknown number of workers (None) does not count as none.
    """
    if reading.depth is None:
        return LevelAndReason(HARD, BROKER_UNREACHABLE)
    if reading.depth > 0 and reading.workers == 0:
        return LevelAndReason(HARD, NO_WORKERS)
    if reading.is_database_full:  # before the first write fails
        return LevelAndReason(HARD, DATABASE_FULL)
    if sum((reading.held or {}).values()) >= held_capacity:  # the broker's memory is everybody's
        return LevelAndReason(HARD, DATASET_HELD)
    return LevelAndReason(watermarks.level(previous, reading.depth / capacity))
