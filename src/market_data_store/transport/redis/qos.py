"""kombu's book of unacknowledged messages, with acknowledgements that gather for a moment and go together."""

from __future__ import annotations

import logging
from collections import deque
from time import monotonic
from typing import Any

from kombu.transport import redis, virtual
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

#: An acknowledgement waits so long for others, in seconds.
ACK_DELAY_S = 0.01
#: Bodies that a channel holds unacknowledged, about: the prefetch limit counts messages, of one row or of thousands.
RESERVED_BYTES = 8 * 1024 * 1024
#: After a failure it is tried again after so long.
ACK_RETRY_S = 1.0


class QoS(redis.QoS):
    """Which messages are unacknowledged; acknowledgements gather for `ACK_DELAY_S`."""

    #: The message that is being delivered was recorded when it was fetched.
    is_recorded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._acks: deque[str] = deque()
        self._ack_deadline = 0.0
        self._is_lost = False
        #: Of bodies that are held, by delivery tag.
        self._sizes: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    def can_consume(self) -> bool:
        """Whether more may be fetched: within the prefetch limit, and within `RESERVED_BYTES`."""
        return bool(super().can_consume()) and sum(self._sizes.values()) < RESERVED_BYTES

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message as unacknowledged, and record it where the fetch did not."""
        # What waits for its time may wait for hours, and Celery lets others be fetched meanwhile.
        if not (message.headers or {}).get("eta"):
            self._sizes[delivery_tag] = len(message.body) if isinstance(message.body, bytes | str) else 0
        if self.is_recorded:
            self.is_recorded = False
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge, with others, within `ACK_DELAY_S`; at once where no event loop runs."""
        virtual.QoS.ack(self, delivery_tag)  # makes room for the next message now
        self._sizes.pop(delivery_tag, None)
        transport = self.channel.connection
        if transport is None:
            if not self._is_lost:
                logger.warning("What is acknowledged on a connection that is gone will be delivered again")
            self._is_lost = True
            return
        self._acks.append(delivery_tag)
        now = monotonic()
        if transport.hub is None:
            self._send_acks()
        elif not self._ack_deadline:
            self._ack_deadline = now + 2 * ACK_DELAY_S
            # The timer is the loop's own; this may be a thread of the pool.
            transport.hub.call_soon(transport.hub.call_later, ACK_DELAY_S, self.flush_acks)
        elif now > self._ack_deadline:  # the loop has ended (warm shutdown), or is late
            self.flush_acks()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give back, or acknowledge, at once."""
        super().reject(delivery_tag, requeue)
        self._sizes.pop(delivery_tag, None)

    def flush_acks(self) -> None:
        """Send the acknowledgements that have gathered; what cannot be sent is kept for the next try."""
        try:
            self._send_acks()
        except (*self.channel.connection_errors, ResponseError) as error:
            logger.warning("%d acknowledgements could not be sent (%s)", len(self._acks), type(error).__name__)
            transport = self.channel.connection
            if transport is not None and transport.hub is not None:
                self._ack_deadline = monotonic() + ACK_RETRY_S
                transport.hub.call_later(ACK_RETRY_S, self.flush_acks)

    def _send_acks(self) -> None:
        self._ack_deadline = 0.0
        tags: list[str] = []
        try:
            while True:
                tags.append(self._acks.popleft())
        except IndexError:
            pass
        if not tags or self.channel.connection is None:
            return
        try:
            with self.channel.conn_or_acquire() as client:
                # No MULTI: a server that is full refuses it. What stays in the index alone is cleaned up by kombu.
                pipeline = client.pipeline(transaction=False)
                pipeline.hdel(self.unacked_key, *tags).zrem(self.unacked_index_key, *tags).execute()
        except BaseException:
            self._acks.extend(tags)
            raise

    def restore_unacked(self, client: Any = None) -> None:
        """Give all unacknowledged messages back to their queues, in their order."""
        self.flush_acks()
        if not self.channel.reserves:
            super().restore_unacked(client)
            return
        self._flush()
        self.channel.give_back(list(self._delivered))
        self._delivered.clear()
        self._sizes.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same, at the channel's end, where there may be acknowledgements alone."""
        self.flush_acks()
        super().restore_unacked_once(stderr)
