"""What one look at each part of the store found: plain values, which health, headline and page are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.status.database import DatabaseStatus

#: Heartbeats after which an event is no longer the monitor's word on the present.
_FRESH_HEARTBEATS = 3


@dataclass(frozen=True, slots=True)
class Away:
    """A part that does not answer."""

    #: For everyone: without the hosts and users that drivers name.
    error: str
    #: For the log and an operator's terminal: what the driver said, without passwords.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What the broker says about the queue."""

    depth: int
    #: Messages that workers hold; None where nobody can tell.
    reserved: int | None
    latency_ms: float


@dataclass(frozen=True, slots=True)
class FeedbackStatus:
    """What the feedback stream says."""

    #: The newest events, newest first.
    events: list[FeedbackEvent]
    #: By receiver: what became of the last event, `delivered` or `failed`.
    outcomes: dict[str, str] = field(default_factory=dict)

    def fresh(self, now: float, heartbeat_s: float) -> FeedbackEvent | None:
        """Return the newest event; None where there is none, or the monitor has been silent for three heartbeats."""
        newest = self.events[0] if self.events else None
        return None if newest is None or now - newest.ts > _FRESH_HEARTBEATS * heartbeat_s else newest


class Looks(NamedTuple):
    """One look at each part."""

    queue: QueueStatus | Away
    #: Names of the live workers that consume the queue.
    workers: list[str] | Away
    database: DatabaseStatus | Away
    #: None where no stream is configured.
    feedback: FeedbackStatus | Away | None

    @property
    def depth(self) -> int | None:
        """Messages waiting; None when the broker does not answer."""
        return None if isinstance(self.queue, Away) else self.queue.depth
