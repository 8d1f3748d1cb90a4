"""Releases messages that wait in queues of a RabbitMQ."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from market_data_store.protocol import ENQUEUED_AT_HEADER, QUEUE
from market_data_store.transport.moving import Move, MoveRefused, counted_turns
from market_data_store.transport.rabbitmq_mover import RabbitMQMover
from market_data_store.transport.releasing import PORTION_BYTES, SetAside, time_of

#: Seconds to wait before closing: quorum queues apply acknowledgements in portions, and forget the rest when the
#: connection closes.
_APPLIED_WITHIN_S = 0.5


class RabbitMQReleaser:
    """A `releasing.Releaser`."""

    def __init__(self, app: Any) -> None:
        self._mover = RabbitMQMover(app)
        self._has_moved = False
        with suppress(MoveRefused):  # it exists, with other arguments
            self._mover.declare([QUEUE])

    def take(self, queue: str, most: int) -> list[SetAside]:
        """Take the messages; what is not released goes back when the connection ends."""
        found: list[SetAside] = []
        room = PORTION_BYTES
        while len(found) < most and room > 0 and (message := self._mover.take(queue)) is not None:
            sent = (message.headers or {}).get(ENQUEUED_AT_HEADER)
            found.append(SetAside(queue, time_of(sent), message))
            room -= len(message.body or b"")
        return found

    def release(self, messages: Sequence[SetAside]) -> Counter[str]:
        """Publish copies, wait for the confirms, and acknowledge."""
        moves = [Move(message.known_as, counted_turns(message.known_as.headers)) for message in messages]
        self._mover.move(moves, QUEUE)
        self._has_moved = True
        return Counter(message.queue for message in messages)

    def taken(self, queues: Sequence[str]) -> Counter[str]:
        """None: RabbitMQ gives back at once what a killed worker had."""
        return Counter()

    def close(self) -> None:
        """Close the connection."""
        if self._has_moved:
            time.sleep(_APPLIED_WITHIN_S)
        self._mover.close()
