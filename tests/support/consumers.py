"""Consumers of a broker's queues, by our transports or others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import kombu
from kombu.asynchronous import Hub

from market_data_store.transport.selection import Connection

_PATIENCE_S = 20.0


class Consumer:
    """Consumes queues, and keeps what it gets until it is told to acknowledge."""

    def __init__(
        self,
        url: str,
        *queues: str,
        kind: type[Any] = Connection,
        prefetch: int = 0,
        no_ack: bool = False,
        with_hub: bool = False,
        poll_s: float = 0.2,
        **options: Any,
    ) -> None:
        self.queues = queues
        self.messages: list[Any] = []
        self.poll_s = poll_s
        self.connection = kind(url, transport_options=options)
        self.channel = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.hub = Hub() if with_hub else None
        if self.hub:
            # Messages that came with the answer to `consume` are read already: a poll would wait a second for others.
            self.hub.call_repeatedly(0.05, lambda: None)
            self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        found = [kombu.Queue(name, routing_key=name) for name in queues]
        kombu.Consumer(self.channel, found, on_message=self.messages.append, no_ack=no_ack).consume()

    def run_once(self) -> None:
        try:
            if self.hub:
                self.hub.run_once()
            else:
                self.connection.drain_events(timeout=self.poll_s)
        except self.connection.connection_errors:  # TimeoutError is one of them
            pass

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Run until the condition is met; each turn waits by itself."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{len(self.messages)} messages came"
            self.run_once()

    def take(self, messages: int) -> None:
        self.wait_until(lambda: len(self.messages) >= messages)

    def numbers(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def acknowledge(self) -> None:
        for message in self.messages:
            if not message.acknowledged:
                message.ack()

    def leave(self) -> None:
        """As when it is killed: nothing is given back."""
        self.channel.qos.restore_at_shutdown = False

    def close(self) -> None:
        self.connection.close()
        if self.hub:
            with suppress(*self.connection.connection_errors):  # from what would read a connection that was lost
                self.hub.close()
            self.hub.close()


@contextmanager
def consuming(url: str, *queues: str, **options: Any) -> Iterator[Consumer]:
    consumer = Consumer(url, *queues, **options)
    try:
        yield consumer
    finally:
        consumer.close()
