"""A message on its way into a pool process, and the outcome on its way back."""

from __future__ import annotations

from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo

from market_data_store.errors import Reason
from market_data_store.protocol import ARROW
from market_data_store.wire.moments import from_epoch_seconds


class Envelope(NamedTuple):
    """A message as the pool gets it."""

    task_id: str
    body: bytes
    #: When it was first enqueued, in epoch seconds; before `arrivals.dated`, what its header says of that.
    enqueued_at: float | None
    ignore_result: bool
    reply_to: str | None
    correlation_id: str | None
    #: Why the message is unusable, whatever its body says.
    unusable: Reason | None = None
    #: As `Headers` has it.
    lineage: dict[str, Any] | None = None
    #: The header of that name; after `replaying.verified`, the letters that the message was made of.
    replays: Any = None
    #: Whether a worker had it before.
    redelivered: bool = False
    #: How many of its turns have ended badly, and how far they have got (letters and rows).
    turns: int = 0
    reached: int = 0
    #: The message's own description of its body.
    content_type: str | None = None
    content_encoding: str | None = None
    #: How the body is compressed; None for one that is not.
    compression: str | None = None
    #: When the worker got it, by `time.monotonic`; None if `enqueued_at` needs no dating.
    arrived: float | None = None
    #: When it was first enqueued, by `time.monotonic`; before `arrivals.dated`, as far as the broker says. None for one
    #: of the backfill lane.
    born: float | None = None
    #: The headers that name its trace; None while traces are off.
    trace: dict[str, str] | None = None

    @property
    def was_ended(self) -> bool:
        """Whether a turn of it was ended, so that some of its rows may be written."""
        return self.turns > 0 or self.reached > 0

    @property
    def moment(self) -> int:
        """When it was first enqueued, in microseconds since 2000-01-01 UTC; only after `arrivals.dated`."""
        if self.enqueued_at is None:
            raise ValueError("the message is not dated")
        return from_epoch_seconds(self.enqueued_at)

    @property
    def columnar(self) -> bool:
        """Whether the body is an Arrow table instead of JSON."""
        return self.content_type == ARROW


class Succeeded(NamedTuple):
    """The message's rows are committed: acknowledge it."""

    #: A short text for events.
    result: str
    runtime: float


class Failed(NamedTuple):
    """The message can never succeed, and is kept as a dead letter: acknowledge it as failed."""

    error: ExceptionInfo
    runtime: float


class GiveBack(NamedTuple):
    """The message cannot be processed now: let it wait for another turn."""

    reason: str
    #: Whether this turn counts towards MDS_MAX_DELIVERIES: something in the message may be the cause.
    counted: bool = False
    #: Whether the message has its next turn alone. Only an outage, which meets all messages, is a reason not to.
    alone: bool = True
    #: How many of its letters and rows are done, if that is more than before.
    reached: int = 0
    #: If Postgres is the reason: what is wrong with it, as `DatabaseUnavailable.trouble`.
    trouble: str = ""


class Hold(NamedTuple):
    """The dataset's table takes no row now: let the message wait with the others of its dataset."""

    dataset: str
    sqlstate: str | None = None
    #: The first line of Postgres's message; None if nothing was tried, as the dataset was known to be held.
    reason: str | None = None
    #: When the message was first enqueued, in epoch seconds.
    enqueued_at: float | None = None
    #: Whether only this message waits, for a partition that is made: others of the dataset are written meanwhile.
    partly: bool = False


Outcome = Succeeded | Failed | GiveBack | Hold
