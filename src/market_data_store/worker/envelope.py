"""What a pool process gets of a message, and what it answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo

from market_data_store.errors import Reason
from market_data_store.protocol import ARROW


class Envelope(NamedTuple):
    """What the pool gets of a message."""

    task_id: str
    body: bytes
    #: Epoch seconds; when it was received, for a message that does not say.
    enqueued_at: float
    ignore_result: bool
    reply_to: str | None
    correlation_id: str | None
    #: Why the message is unusable whatever its body holds.
    unusable: Reason | None = None
    #: Whether it belongs to a group, which Celery's own tracer has to tell of its end.
    grouped: bool = False
    #: The header of that name, whatever it holds.
    replays: Any = None
    #: It was delivered before, and runs alone.
    redelivered: bool = False
    #: What the message says of its body.
    content_type: str | None = None
    content_encoding: str | None = None
    #: How the body is compressed; None for one that is not, or no longer.
    compression: str | None = None

    @property
    def columnar(self) -> bool:
        """The body is an Arrow table, not JSON."""
        return self.content_type == ARROW


class Succeeded(NamedTuple):
    """The message was dealt with: acknowledge it."""

    #: For events, short.
    result: str
    runtime: float


class Failed(NamedTuple):
    """The message can never be dealt with, and was kept elsewhere: acknowledge it as failed."""

    error: ExceptionInfo
    runtime: float


class GiveBack(NamedTuple):
    """Not now: back to the broker with it."""

    reason: str


class RunAsTask(NamedTuple):
    """The message asks for what only Celery's own tracer does (callbacks, a chain): run it as a task of its own."""


Outcome = Succeeded | Failed | GiveBack | RunAsTask
