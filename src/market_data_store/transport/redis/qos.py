"""kombu's record of unacknowledged messages, with acknowledgements that are collected briefly and sent together."""

from __future__ import annotations

import logging
from collections import deque
from time import monotonic, time
from typing import Any

from kombu.transport import redis, virtual
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

#: Seconds that an acknowledgement waits for others.
ACK_DELAY_S = 0.01
#: About how many bytes of unacknowledged bodies a channel holds: the prefetch limit counts messages, whether of one row
#: or of thousands.
RESERVED_BYTES = 8 * 1024 * 1024
#: A larger body counts as one of this size. Otherwise one large message would keep all others from being fetched for as
#: long as it is processed.
_COUNTED_BYTES = RESERVED_BYTES // 4
#: Seconds until acknowledgements that could not be sent are sent again.
ACK_RETRY_S = 1.0


class QoS(redis.QoS):
    """Knows which messages are unacknowledged; collects acknowledgements for `ACK_DELAY_S`."""

    #: Whether the message being delivered was recorded when it was fetched.
    is_recorded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._acks: deque[str] = deque()
        self._ack_deadline = 0.0
        self._is_lost = False
        #: By delivery tag, the size of each body that is held.
        self._sizes: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    @property
    def visibility_timeout(self) -> float:
        """The visibility timeout, corrected by what this machine's clock differs from the server's.

        kombu subtracts it from this machine's time to find what is due. Records have the server's time, so a worker an
        hour ahead would take from the others what they are at work on.
        """
        with self.channel.conn_or_acquire() as client:
            ahead_s: float = time() - self.channel.server_time(client)
        return float(self.channel.visibility_timeout) + ahead_s

    def can_consume(self) -> bool:
        """Whether more messages may be fetched: within the prefetch limit and `RESERVED_BYTES`."""
        return bool(super().can_consume()) and sum(self._sizes.values()) < RESERVED_BYTES

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message as unacknowledged, and record it unless the fetch did."""
        # A message with an ETA may wait for hours, and Celery fetches others meanwhile.
        if not (message.headers or {}).get("eta"):
            size = len(message.body) if isinstance(message.body, bytes | str) else 0
            self._sizes[delivery_tag] = min(size, _COUNTED_BYTES)
        if self.is_recorded:
            self.is_recorded = False
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge together with others within `ACK_DELAY_S`; at once where no event loop runs."""
        virtual.QoS.ack(self, delivery_tag)  # makes room for the next message now
        self._sizes.pop(delivery_tag, None)
        transport = self._transport
        if transport is None:
            if not self._is_lost:
                logger.warning("Acknowledgements on a lost connection are void; their messages will be redelivered")
            self._is_lost = True
            return
        self._acks.append(delivery_tag)
        now = monotonic()
        if transport.hub is None:
            self._send_acks()
        elif not self._ack_deadline:
            self._ack_deadline = now + 2 * ACK_DELAY_S
            # Only the loop may set its timer, and this may be one of the pool's threads.
            transport.hub.call_soon(transport.hub.call_later, ACK_DELAY_S, self.flush_acks)
        elif now > self._ack_deadline:  # the loop has ended (warm shutdown) or is late
            self.flush_acks()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give back, or drop, at once."""
        super().reject(delivery_tag, requeue)
        self._sizes.pop(delivery_tag, None)

    def let_go(self, delivery_tag: str) -> None:
        """Forget a message that Redis has moved."""
        virtual.QoS.ack(self, delivery_tag)
        self._sizes.pop(delivery_tag, None)

    def flush_acks(self) -> None:
        """Send the collected acknowledgements; keep those that cannot be sent for the next try."""
        try:
            self._send_acks()
        except (*self.channel.connection_errors, ResponseError) as error:
            logger.warning("%d acknowledgements could not be sent (%s)", len(self._acks), type(error).__name__)
            transport = self._transport
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
        if not tags or self._transport is None:
            return
        try:
            with self.channel.conn_or_acquire() as client:
                # No MULTI: a full server refuses it. kombu cleans up entries that remain only in the index.
                pipeline = client.pipeline(transaction=False)
                pipeline.hdel(self.unacked_key, *tags).zrem(self.unacked_index_key, *tags).execute()
        except BaseException:
            self._acks.extend(tags)
            raise

    def restore_unacked(self, client: Any = None) -> None:
        """Give all unacknowledged messages back to their queues, in order."""
        self.flush_acks()
        if not self.channel.reserves:
            super().restore_unacked(client)
            return
        self._flush()
        self.channel.give_back(list(self._delivered))
        self._delivered.clear()
        self._sizes.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same when the channel ends; it may have only acknowledgements."""
        self.flush_acks()
        super().restore_unacked_once(stderr)

    @property
    def _transport(self) -> Any | None:
        """The transport; None once its connection was closed. A timer may still call then."""
        transport = self.channel.connection
        return None if transport is None or transport.client is None else transport
