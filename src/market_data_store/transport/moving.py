"""Moving messages from one queue to another: what a worker asks of a broker, whichever it is.

A message that is moved is in one of the two queues at any moment. On Redis it is in exactly one: a script moves it. On
RabbitMQ it is acknowledged after the broker has confirmed its copy, so a worker that dies in between leaves both.

A copy keeps body, properties and headers. The header `turns` counts the turns in workers that have ended badly. While a
message of such a queue is processed, it is the only one that its worker has taken from there, so if the worker dies,
the broker counts one turn of this message and of no other: on Redis in the record from which the message is restored,
on RabbitMQ as `x-delivery-count`.

A lost connection is not a turn. On Redis the worker gives its messages back itself, uncounted. RabbitMQ counts a
delivery of whatever was unacknowledged; the worker takes as many off as it has lost connections (`counted_turns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from market_data_store.protocol import ENQUEUED_AT_HEADER, REACHED_HEADER, TURNS_HEADER

#: RabbitMQ's count of the times that it had to deliver a message again.
DELIVERY_COUNT_HEADER = "x-delivery-count"


class MoveRefused(Exception):
    """The broker does not let messages be moved; they are where they were."""


class Move(NamedTuple):
    """An unacknowledged message that goes to another queue, or back to its own."""

    message: Any
    #: How many of its turns have ended badly.
    turns: int
    #: When it was first enqueued, in epoch seconds, if its headers do not say so.
    enqueued_at: float | None = None
    #: How far its turns have got; 0 if this one got no farther than those before.
    reached: int = 0

    @property
    def headers(self) -> dict[str, Any]:
        """The headers that the copy has besides its own."""
        known: dict[str, Any] = {TURNS_HEADER: self.turns}
        if self.enqueued_at is not None:
            known[ENQUEUED_AT_HEADER] = self.enqueued_at
        if self.reached:
            known[REACHED_HEADER] = self.reached
        return known


class Mover(Protocol):
    """Moves messages for one worker. Each method raises `MoveRefused`, or the driver's error for a lost connection."""

    def declare(self, queues: Sequence[str]) -> dict[str, int]:
        """Create the queues if they do not exist; returns how many messages wait in each."""

    def waiting(self, queue: str) -> int | None:
        """Count the messages that wait in a queue; None if somebody else should ask."""

    def move(self, moves: Sequence[Move], queue: str) -> None:
        """Move unacknowledged messages to a queue's end."""

    def take(self, queue: str) -> Any | None:
        """Take the queue's first message; None if there is none."""

    def pour(self, source: str, target: str, most: int) -> int:
        """Move at most this many waiting messages, in their order; returns their number."""

    @property
    def lease_s(self) -> float | None:
        """After how many seconds the broker takes a message for lost unless `renew` is called; None for never."""

    def renew(self) -> None:
        """Let the broker know that the worker is alive, and has its messages."""

    def lost(self) -> list[str]:
        """Note that the connection is lost; returns what `give_back` of another connection needs."""

    def give_back(self, tags: Sequence[str]) -> None:
        """Put what a lost connection had, and the broker still has recorded as its own, back into its queues."""

    def close(self) -> None:
        """Close what was opened for it; messages that were taken go back."""


def counted_turns(headers: Mapping[str, Any] | None, lost_connections: int = 0) -> int:
    """How many turns of a message have ended badly, by its headers, for a worker that has lost so many connections."""
    headers = headers or {}
    return _count(headers.get(TURNS_HEADER)) + max(_count(headers.get(DELIVERY_COUNT_HEADER)) - lost_connections, 0)


def reached(headers: Mapping[str, Any] | None) -> int:
    """How far the turns of a message have got, by its headers."""
    return _count((headers or {}).get(REACHED_HEADER))


def _count(value: Any) -> int:
    # Anybody can send a header of any type.
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0
