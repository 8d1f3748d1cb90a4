"""Counts the messages that wait in queues, of which some may not be there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from amqp.exceptions import ChannelError

#: RabbitMQ gives the code as a number, the Redis transport as a string.
_NOT_FOUND = "404"
#: RabbitMQ logs each question for a queue that is not there; it is asked again after this many seconds.
_ABSENT_S = 10.0


class Counting:
    """Counts over one connection at a time; `forget` belongs to its end. Not thread-safe."""

    def __init__(self) -> None:
        #: RabbitMQ's: for questions about queues that may not be there, and when to ask again for one that was not.
        self._channel: Any = None
        self._absent_until: dict[str, float] = {}

    def forget(self) -> None:
        """Forget the channel of a connection that has ended."""
        self._channel = None

    def waiting(self, connection: Any, queue: str) -> int:
        """Count the messages waiting in a queue that is normally there; 0 if it is not."""
        return self._counted(connection, queue) or 0  # Redis drops a list with its last element

    def beside(self, connection: Any, queue: str) -> int:
        """Count the messages waiting in a queue that only workers make; 0 if there is none."""
        if hasattr(connection.default_channel, "unacked_key"):
            return int(connection.default_channel.client.llen(queue))
        return self.seldom(connection, queue)

    def seldom(self, connection: Any, queue: str) -> int:
        """Count as `waiting` does, but do not ask RabbitMQ again soon for a queue that was not there."""
        if time.monotonic() < self._absent_until.get(queue, 0.0):
            return 0
        count = self._counted(connection, queue)
        if count is None and not hasattr(connection.default_channel, "unacked_key"):
            self._absent_until[queue] = time.monotonic() + _ABSENT_S
        return count or 0

    def each_beside(self, connection: Any, queues: Iterable[str]) -> dict[str, int]:
        """Count as `beside` does, in each of these queues."""
        queues = list(queues)
        channel = connection.default_channel
        if not hasattr(channel, "unacked_key"):
            return {queue: self.beside(connection, queue) for queue in queues}
        pipeline = channel.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue)
        return dict(zip(queues, map(int, pipeline.execute()), strict=True))

    def _counted(self, connection: Any, queue: str) -> int | None:
        """Count the messages waiting in a queue; None if there is none."""
        channel = connection.default_channel
        if not hasattr(channel, "unacked_key"):  # RabbitMQ closes the channel that asks for what is not there
            if self._channel is None:
                self._channel = connection.channel()
            channel = self._channel
        try:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError as error:
            self._channel = None
            if str(error.reply_code) != _NOT_FOUND:
                raise
            return None
