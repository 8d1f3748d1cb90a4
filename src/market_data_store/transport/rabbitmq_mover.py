"""Moves messages between the queues of a RabbitMQ: publishes copies, waits for the confirms, then acknowledges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import amqp
from kombu.exceptions import OperationalError

from market_data_store.transport.moving import DELIVERY_COUNT_HEADER, Move, MoveRefused, counted_turns

#: Seconds that the broker has for its confirms, and for any other answer.
_ANSWER_S = 10.0
#: What makes no sense for a copy: it would be refused if another user sent the message, and a message that waits for a
#: repair must not expire.
_NOT_COPIED = ("user_id", "expiration")
#: What the broker adds when it delivers.
_BROKERS_HEADERS = (DELIVERY_COUNT_HEADER, "x-acquired-count")


class RabbitMQMover:
    """A `moving.Mover` with a connection of its own, opened at its first use and reopened after a loss.

    Messages that it takes are acknowledged over this connection.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None
        self._channel: Any = None
        self._published = 0
        self._unconfirmed: set[int] = set()
        self._refused = ""

    def declare(self, queues: Sequence[str]) -> dict[str, int]:
        """Create durable quorum queues."""
        return {queue: self._declare(queue) for queue in queues}

    def waiting(self, queue: str) -> int | None:
        """Count the messages that wait."""
        return int(self._opened().queue_declare(queue, passive=True).message_count)

    def move(self, moves: Sequence[Move], queue: str) -> None:
        """Publish copies and acknowledge the messages."""
        # The broker gives the messages of a lost connection to others.
        moves = [move for move in moves if _is_open(move.message.channel)]
        self._publish([_copy(move) for move in moves], queue)
        for move in moves:
            move.message.ack()

    def take(self, queue: str) -> Any | None:
        """Take a message."""
        found = self._opened().basic_get(queue)
        if found is None:
            return None
        message = self._channel.message_to_python(found)
        message.queue = queue
        return message

    def pour(self, source: str, target: str, most: int) -> int:
        """Move waiting messages: take them all, publish them all, acknowledge them all."""
        moves: list[Move] = []
        while len(moves) < most and (message := self.take(source)) is not None:
            moves.append(Move(message, counted_turns(message.headers)))
        if moves:
            self.move(moves, target)
        return len(moves)

    @property
    def lease_s(self) -> float | None:
        """None: the broker watches the connection."""
        return None

    def renew(self) -> None:
        """Do nothing."""

    def lost(self) -> list[str]:
        """Return nothing: RabbitMQ gives back by itself what a lost connection had."""
        return []

    def give_back(self, tags: Sequence[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()  # not `close`, which would wait for a server that hangs

    def _declare(self, queue: str) -> int:
        arguments = {"x-queue-type": "quorum"}
        try:
            declared = self._opened().queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
        except amqp.exceptions.AMQPError as error:
            self.close()
            raise MoveRefused(str(error)) from error
        return int(declared.message_count)

    def _publish(self, copies: Iterable[amqp.basic_message.Message], queue: str) -> None:
        channel = self._opened()
        self._refused = ""
        try:
            for copy in copies:
                self._published += 1
                self._unconfirmed.add(self._published)
                channel._basic_publish(copy, exchange="", routing_key=queue, mandatory=True)
            while self._unconfirmed:
                channel.connection.drain_events(timeout=_ANSWER_S)
        except BaseException:
            self.close()  # what was published is in doubt, and the next confirms must not be taken for these
            raise
        if self._refused:
            raise MoveRefused(self._refused)

    def _opened(self) -> Any:
        if not _is_open(self._channel):
            self.close()
            connection = self._app.connection_for_write()
            connection.connect_timeout = _ANSWER_S
            connection.transport_options = {
                **connection.transport_options,
                "read_timeout": _ANSWER_S,
                "write_timeout": _ANSWER_S,
            }
            try:
                connection.ensure_connection(max_retries=0)
                channel = connection.channel()
                channel.confirm_select()
            except OperationalError:
                connection.collect()
                raise
            self._published, self._unconfirmed = 0, set()
            channel.events["basic_ack"].add(self._on_ack)
            channel.events["basic_nack"].add(self._on_nack)
            channel.events["basic_return"].add(self._on_return)
            self._connection, self._channel = connection, channel
        return self._channel

    def _on_ack(self, number: int, multiple: bool) -> None:
        self._unconfirmed -= {n for n in self._unconfirmed if n <= number} if multiple else {number}

    def _on_nack(self, number: int, multiple: bool) -> None:
        self._refused = "RabbitMQ did not take a message"
        self._on_ack(number, multiple)

    def _on_return(self, error: Exception, *_: Any) -> None:
        self._refused = str(error)


def _is_open(channel: Any) -> bool:
    return channel is not None and channel.connection is not None and bool(channel.connection.connected)


def _copy(move: Move) -> amqp.basic_message.Message:
    message = move.message
    headers = {name: value for name, value in message.headers.items() if name not in _BROKERS_HEADERS}
    headers |= move.headers
    properties = {name: value for name, value in message.properties.items() if name not in _NOT_COPIED}
    return amqp.basic_message.Message(message.body, **{**properties, "application_headers": headers})
