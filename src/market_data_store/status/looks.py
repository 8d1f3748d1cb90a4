"""The results of one look at each part of the store: plain values from which health, headline and page are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from market_data_store.coordinator.answers import FoundWorker, WorkerAnswer
from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.trouble import Trouble

#: An event older than this many heartbeats no longer shows what the monitor sees.
_FRESH_HEARTBEATS = 3


@dataclass(frozen=True, slots=True)
class Away:
    """A part that does not answer."""

    #: For everyone: without the hosts and users that a driver's message names.
    error: str
    #: For the log and an operator's terminal: the driver's message, without passwords.
    reason: str = ""
    #: What a Redis said that answered with an error.
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What was read of the queue from the broker."""

    depth: int
    #: Messages that workers hold; None if that cannot be known.
    reserved: int | None
    latency_ms: float
    #: Messages that wait for each dataset whose table takes no row.
    held: Mapping[str, int] = field(default_factory=dict)
    #: Why the broker takes no write; None if it takes writes, or if that is unknown.
    refusal: str | None = None
    #: What workers have set aside that is not a message.
    malformed: int = 0
    #: Seconds by which the broker's clock is ahead of this machine's; None where the broker does not tell its time.
    ahead_s: float | None = None


@dataclass(frozen=True, slots=True)
class FeedbackStatus:
    """What was read from the feedback stream."""

    #: The newest events, newest first.
    events: list[FeedbackEvent]
    #: By receiver, the outcome of its last event: `delivered` or `failed`.
    outcomes: dict[str, str] = field(default_factory=dict)

    def fresh(self, now: float, heartbeat_s: float) -> FeedbackEvent | None:
        """Return the newest event; None if there is none or it is more than three heartbeats old."""
        newest = self.events[0] if self.events else None
        return None if newest is None or now - newest.ts > _FRESH_HEARTBEATS * heartbeat_s else newest


class BackfillLooks(NamedTuple):
    """What was seen of the backfill lane; the rest is the same for both lanes."""

    queue: QueueStatus | Away
    #: Names of the live workers that consume it.
    workers: list[str] | Away
    #: Of its own stream; None if none is configured.
    feedback: FeedbackStatus | Away | None


_NOT_SEEN = BackfillLooks(Away("not looked at yet"), Away("not looked at yet"), None)


class Looks(NamedTuple):
    """One look at each part."""

    queue: QueueStatus | Away
    #: Names of the live workers that consume the queue.
    workers: list[str] | Away
    database: DatabaseStatus | Away
    #: None if no stream is configured.
    feedback: FeedbackStatus | Away | None
    trouble: Trouble = Trouble()
    backfill: BackfillLooks = _NOT_SEEN
    #: What the workers said of themselves when they last answered.
    answers: Sequence[WorkerAnswer] = ()
    #: The workers themselves.
    found: Sequence[FoundWorker] = ()
    #: What is wrong with clocks, each in one line.
    clocks: Sequence[str] = ()

    @property
    def depth(self) -> int | None:
        """Messages waiting; None when the broker does not answer."""
        return None if isinstance(self.queue, Away) else self.queue.depth

    @property
    def of_backfill(self) -> Looks:
        """The same looks, with those at the backfill lane in the place of those at the lane for live rows."""
        return self._replace(**self.backfill._asdict())
