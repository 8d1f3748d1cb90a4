"""Gives messages that workers have set aside, and those of history, to the main queue, oldest first.

A message is in one of the two queues at any moment, so this may be killed at any time. On Redis it is in exactly one: a
script moves it. On RabbitMQ its copy is confirmed before it is acknowledged, so a kill in between leaves both, and its
rows are written twice, which changes nothing.

The order is that of the times at which the messages were first enqueued, as far as `PORTION` messages of each queue
show it: a queue of held messages is in order, except for those that were tried meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import merge
from typing import Any, NamedTuple, Protocol

from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from market_data_store.connections.urls import without_password
from market_data_store.errors import BrokerUnavailable
from market_data_store.transport.moving import MoveRefused

#: The most messages of a queue that are looked at, and that are moved, at once; about this many bytes end it, too.
PORTION = 100
PORTION_BYTES = 2 << 20
#: By the driver of the broker.
_RELEASERS = {
    "redis": "market_data_store.transport.redis.releaser:RedisReleaser",
    "amqp": "market_data_store.transport.rabbitmq_releaser:RabbitMQReleaser",
}


class SetAside(NamedTuple):
    """A message that waits beside the main queue."""

    queue: str
    #: When it was first enqueued, in epoch seconds; 0 if it does not say so.
    enqueued_at: float
    #: By what its releaser knows it.
    known_as: Any


class Releaser(Protocol):
    """Moves messages that wait in queues beside the main one, on one kind of broker."""

    def take(self, queue: str, most: int) -> Sequence[SetAside]:
        """Return the queue's next messages; empty if there are none. Those of an earlier call were released."""

    def release(self, messages: Sequence[SetAside]) -> Counter[str]:
        """Move messages to the end of the main queue, in this order; returns how many of which queue were moved.

        A message that a worker has taken meanwhile is not moved.
        """

    def taken(self, queues: Sequence[str]) -> Counter[str]:
        """Count the messages of these queues that workers have, or had when they were killed."""

    def close(self) -> None:
        """Close what was opened for it."""


@contextmanager
def releaser_of(app: Any) -> Iterator[Releaser]:
    """Yield the releaser for the application's broker; raises `BrokerUnavailable`."""
    connection = app.connection_for_write()
    errors = (*connection.connection_errors, *connection.channel_errors, OperationalError, MoveRefused, OSError)
    try:
        releaser: Releaser = symbol_by_name(_RELEASERS[connection.transport.driver_type])(app)
        try:
            yield releaser
        finally:
            releaser.close()
    except errors as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        url = without_password(str(app.conf.broker_url))
        raise BrokerUnavailable(f"messages cannot be moved at {url}: {reason}") from error


def release(releaser: Releaser, waiting: Mapping[str, int], on_released: Callable[[Counter[str]], object]) -> None:
    """Release at most so many messages of each queue; `on_released` is called after each portion.

    The bound is there because a worker may set messages aside again meanwhile.
    """
    portion: list[SetAside] = []

    def flush() -> None:
        if portion:
            on_released(releaser.release(portion))
            portion.clear()

    def messages_of(queue: str, most: int) -> Iterator[SetAside]:
        while most > 0:
            flush()
            found = releaser.take(queue, min(most, PORTION))
            if not found:
                return
            most -= len(found)
            yield from sorted(found, key=_enqueued_at)

    for message in merge(*(messages_of(*of) for of in waiting.items()), key=_enqueued_at):
        portion.append(message)
        if len(portion) >= PORTION:
            flush()
    flush()


def time_of(sent: Any) -> float:
    """Return the time that a header says, of whatever type it is; 0 if it says none."""
    return float(sent) if isinstance(sent, int | float) and not isinstance(sent, bool) else 0.0


def _enqueued_at(message: SetAside) -> float:
    return message.enqueued_at
