"""The connection over which a worker sends answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Producer


class EventChannel:
    """Sends answers over the connection of the worker's events.

    Over that of its consumer, a RabbitMQ that blocks publishers would read no acknowledgement any more.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    @contextmanager
    def acquire(self) -> Iterator[Producer]:
        """Make a producer, as kombu's pools do."""
        dispatcher = self._consumer.event_dispatcher
        channel = None if dispatcher is None or dispatcher.producer is None else dispatcher.producer.channel
        yield Producer(channel or self._consumer.pidbox_node.channel, auto_declare=False)
