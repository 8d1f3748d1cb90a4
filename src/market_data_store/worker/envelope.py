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
    #: Whether it belongs to a group, whose end only Celery's own tracer reports.
    grouped: bool = False
    #: The header of that name, unchecked.
    replays: Any = None
    #: Whether it was delivered before; it then runs alone.
    redelivered: bool = False
    #: The message's own description of its body.
    content_type: str | None = None
    content_encoding: str | None = None
    #: How the body is compressed; None for one that is not, or no longer.
    compression: str | None = None
    #: When the worker got it, by `time.monotonic`; None if `enqueued_at` needs no dating.
    arrived: float | None = None

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
    """The message cannot be processed now: give it back to the broker."""

    reason: str


class RunAsTask(NamedTuple):
    """The message needs Celery's own tracer (callbacks, a chain): run it as an ordinary task."""


Outcome = Succeeded | Failed | GiveBack | RunAsTask
